"""gripwire.toml and the variables: where they come from, and whether each service accepts its section."""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

from gripwire.doctor.finding import Finding, Here
from gripwire.errors import UserError
from gripwire.settings import FILE_NAME, Section

MODELS = {
    "robot": "gripwire_robot.settings:Robot",
    "reward": "gripwire_reward.settings:RewardSettings",
    "recorder": "gripwire_recorder.settings:Recorder",
    "trainer": "gripwire_trainer.settings:TrainerSettings",
    "sim": "gripwire_sim.settings:SimSettings",
    "cameras": "gripwire_camera.settings:Camera",
    "capsule": "gripwire.capsule.settings:Capsule",
    "metrics": "gripwire.metrics.settings:Metrics",
}
"""Section to its model; those of services that are not installed here are not looked at."""


def check(here: Here) -> Iterator[Finding]:
    """The top was read already; each service reads its own section only when it starts."""
    path = here.settings.path
    where = f"{path.absolute()}" if path else f"there is no {FILE_NAME} here: defaults and variables"
    variables = sorted(v.origin for v in here.settings.values.values() if v.origin.startswith("$"))
    said = f"; set by {', '.join(variables)}" if variables else ""
    wrong = [text for section in _sections(here) if (text := _refusal(here, section))]
    if wrong:
        for text in wrong:
            yield Finding("settings", "fail", text, "correct the line that is named; docs/ has every key")
        return
    yield Finding("settings", "ok", f"{where}{said}; data in {here.data}")


def _sections(here: Here) -> list[str]:
    given = dict.fromkeys(key[0] for key in here.settings.values if len(key) > 1)
    cameras = [f"cameras.{name}" for name in here.settings.cameras] if "cameras" in given else []
    return [*(name for name in given if name != "cameras"), *cameras]


def _refusal(here: Here, section: str) -> str:
    """What the service would say of its section; empty if it accepts it."""
    name = MODELS.get(section.split(".")[0], "")
    module, _, model = name.partition(":")
    if not module or find_spec(module.split(".")[0]) is None:
        return ""
    kind: type[Section] = getattr(import_module(module), model)
    try:
        here.settings.section(section, kind)
    except UserError as e:
        return str(e)
    return ""
