"""The reward service alone against a recorded run: with the model that judged it then, where it is here."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import ModelState, Reward
from gripwire.recording.file import Recording
from gripwire.settings import Settings
from gripwire_reward.keeper import Remembered

_LOAD_S = 60.0


@contextmanager
def scratch(settings: Settings, recording: Path, bundle: str | None) -> Iterator[Path]:
    """A data folder with the bundles of the real one, in which ``bundle`` serves, or else the one that the
    recording's rewards name, by the rule that they name. Nothing of the real one is changed; it is removed at
    the end.
    """
    remembered = _remembered(settings, recording, bundle)
    folder = Path(tempfile.mkdtemp(prefix="gripwire-reward-"))
    try:
        state = folder / "runs" / "reward" / "serving.json"
        state.parent.mkdir(parents=True)
        state.write_text(remembered.model_dump_json() + "\n")
        (folder / "bundles").symlink_to(settings.data / "bundles", target_is_directory=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remembered(settings: Settings, recording: Path, bundle: str | None) -> Remembered:
    if bundle is not None:
        return Remembered(serving=bundle)
    then = judged_by(Recording(recording))
    if then is not None and (settings.data / "bundles" / then.model).is_dir():
        return Remembered(
            serving=then.model, epoch=then.epoch, overrides=then.overrides, applied=then.overrides
        )
    served = settings.data / "runs" / "reward" / "serving.json"
    try:
        now = Remembered.model_validate_json(served.read_bytes())
    except (OSError, ValueError):
        now = Remembered()
    if not now.serving:
        named = f"its rewards name {then.model}, which is" if then else "its rewards name none, and none is"
        raise UserError(
            f"{recording}: no bundle to judge it by: {named} not under {settings.data / 'bundles'}; bring it "
            "there, give --data, or name another with --bundle"
        )
    return Remembered(serving=now.serving, epoch=now.epoch, overrides=now.overrides, applied=now.applied)


def judged_by(recording: Recording) -> Reward | None:
    """The first reward that a model gave."""
    for recorded in recording.messages({"reward"}):
        if isinstance(recorded.message, Reward) and recorded.message.model:
            return recorded.message
    return None


def wait_for_model(settings: Settings, ended: threading.Event) -> None:
    """Until the model serves: frames that come before get no verdict, and then it would be another run.

    Raises:
        UserError: it cannot serve, or did not within a minute.
    """
    with Latest(settings.topics["model"], ModelState) as models:
        seen = None
        for _ in range(int(_LOAD_S / 0.5)):
            if ended.is_set():
                return
            seen = models.wait(0.5, after=seen) or seen
            if seen and seen.message.event == "serving":
                return
            if seen and seen.message.event == "refused":
                raise UserError(f"bundle {seen.message.offer} cannot serve: {seen.message.reason}")
    raise UserError(f"no bundle served within {_LOAD_S:.0f} s")
