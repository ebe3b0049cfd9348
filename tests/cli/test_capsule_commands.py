"""`gripwire capsule` as a user runs it: a real service on a real bus, killed and asked."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gripwire.bus import Publisher, Queued
from gripwire.errors import UserError
from gripwire.messages import CapsuleStatus, EpisodeState, Frame, Health, ModelState, Reward, SaveCapsule
from gripwire.recording.file import Recording
from gripwire.topics import Topics
from tests.cli.publishing import publishing
from tests.helpers import until

WAIT_S = 60.0
BUNDLE = "f25718f0162e0a66c804"


def _end(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


@contextmanager
def _a_stack(topics: Topics) -> Iterator[Publisher]:
    """A camera, a reward, and what two latched topics said before anybody listened."""
    picture = Frame(valid=True, camera="gripper_cam", width=1, height=1, encoding="jpeg")
    with ExitStack() as stack:
        for name, message in (
            ("model", ModelState(valid=True, serving=BUNDLE, epoch=2)),
            ("episode", EpisodeState(valid=True, state="recording", dataset="mine", episode=4)),
        ):
            stack.enter_context(publishing(topics[name], message.model_copy, 2.0))
        stack.enter_context(publishing(topics["camera/gripper_cam"], picture.model_copy, 30.0, b"a picture"))
        yield stack.enter_context(publishing(topics["reward"], lambda: Reward(valid=True), 50.0))


def _kept(folder: Path, topic: str, count: int) -> Callable[[], bool]:
    """Whether the ring on the disk has so many messages of a topic."""

    def holds() -> bool:
        try:
            return sum(Recording(p).contents().counts.get(topic, 0) for p in folder.glob("*.mcap")) > count
        except UserError:  # a segment that was begun this moment, or given back
            return False

    return holds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "capsules"


def test_a_running_service_saves_what_it_has_and_the_capsule_tells_and_plays(
    gripwire, topics: Topics, folder: Path, tmp_path: Path
) -> None:
    with _a_stack(topics):
        service = gripwire("capsule", "run")
        until(_kept(folder / "ring", "reward", 50), "a second in the ring", WAIT_S)
        code, out, err = _end(gripwire("capsule", "save", "--note", "it hit the table", "--json"))
    assert (code, err) == (0, "")
    told = json.loads(out.splitlines()[-1])
    path = folder / told["capsule"]
    assert told["service"] and told["path"] == str(path) and path.exists()
    code, out, _ = _end(gripwire("capsule", "show", "--json"))
    inside = json.loads(out)
    assert code == 0 and inside["about"]["note"] == "it hit the table" and not inside["about"]["problems"]
    assert inside["about"]["serving"] == BUNDLE and inside["about"]["episode"] == "mine/4"
    assert inside["topics"]["reward"] > 50 and inside["topics"]["camera/gripper_cam"] > 20
    assert "gripwire" in inside["versions"]["capsule"] and "settings.json" in inside["attachments"]
    code, out, _ = _end(gripwire("capsule", "show", path.name))
    assert code == 0 and "it hit the table" in out and "camera/gripper_cam" in out
    code, out, _ = _end(gripwire("capsule", "show", str(path), "--print", "settings.json"))
    assert code == 0 and json.loads(out)["port_base"]["value"] == str(topics.port_base)
    with Queued(topics["reward"], Reward) as reader:
        player = gripwire("replay", str(path), "--topics", "reward", "--rate", "50", "--json")
        assert reader.receive(WAIT_S) is not None
        assert _end(player)[0] == 0
    service.send_signal(signal.SIGTERM)
    assert _end(service)[0] == 0


def test_an_asker_with_another_data_folder_is_told_the_name_and_where_to_look(
    gripwire, topics: Topics, folder: Path
) -> None:
    gripwire("capsule", "run")
    with _a_stack(topics):
        until(_kept(folder / "ring", "reward", 10), "something in the ring", WAIT_S)
        code, out, _ = _end(gripwire("capsule", "save", "--data", "elsewhere"))
        (path,) = folder.glob("capsule-*.mcap")
        assert code == 0 and out.startswith(
            f"saved {path.name} in the folder capsules/ of the data folder of"
        )
        path.rename(path.with_suffix(".seen"))  # two within one second would have one name
        until(lambda: time.strftime("%Y%m%d-%H%M%S") not in path.name, "the next second", WAIT_S)
        code, _, err = _end(gripwire("capsule", "save", "--data", "elsewhere", "-o", "table.mcap"))
    assert code == 1 and "but not on this machine" in err and len(list(folder.glob("capsule-*.mcap"))) == 1


def test_what_a_killed_service_left_is_saved_without_it(gripwire, topics: Topics, folder: Path) -> None:
    with _a_stack(topics):
        service = gripwire("capsule", "run")
        until(_kept(folder / "ring", "reward", 50), "a second in the ring", WAIT_S)
        service.kill()
        service.wait(WAIT_S)
    code, out, err = _end(gripwire("capsule", "save", "-o", "table.mcap"))
    assert (code, err) == (0, "the capsule service does not run: this is what it left on the disk\n")
    assert "saved table.mcap" in out and list(folder.glob("*.mcap")) == []
    out_path = folder.parents[1] / "table.mcap"
    counts = Recording(out_path).contents().counts
    assert counts["reward"] > 50 and counts["model"] >= 1
    code, _, err = _end(gripwire("capsule", "save", "-o", "table.mcap"))
    assert code == 1 and "exists already and is never overwritten" in err


def test_a_death_is_saved_by_itself_with_what_followed(gripwire, topics: Topics, folder: Path) -> None:
    service = gripwire("capsule", "run")
    with _a_stack(topics), Publisher(topics["health/robot"]) as heart:
        assert heart.wait_for_subscriber(WAIT_S)
        beat = heart.publish(Health(valid=True, service="robot", state="ready"))
        heart.play_back(beat.model_copy(update={"state": "starting", "boot": "another process"}))
        until(lambda: any(folder.glob("auto-*.mcap")), "an automatic capsule", WAIT_S)
    code, out, _ = _end(gripwire("capsule", "show", "--json"))
    inside = json.loads(out)
    assert code == 0 and inside["about"]["why"] == "robot was killed or crashed"
    assert inside["seconds"] >= 4.5
    service.kill()


def test_status_tells_what_is_kept_and_whether_anything_keeps_it(
    gripwire, topics: Topics, folder: Path
) -> None:
    code, out, _ = _end(gripwire("capsule", "status"))
    assert code == 0 and "does not run" in out
    gripwire("capsule", "run")
    with _a_stack(topics):
        until(_kept(folder / "ring", "reward", 10), "something in the ring", WAIT_S)
        code, out, _ = _end(gripwire("capsule", "status", "--json"))
    state = json.loads(out)["service"]
    assert code == 0 and state["ring_s"] > 0 and not state["paused"] and not state["failed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("save",), "there is no ring, and the capsule service does not run"),
        (("save", "--before"), "there is no ring of an earlier run"),
        (("save", "-o", "run.bag"), "the name of a capsule ends in .mcap"),
        (("show",), "there is no capsule; `gripwire capsule save` makes one"),
        (("show", "missing.mcap"), "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(gripwire, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = _end(gripwire("capsule", *arguments))
    assert (code, out) == (1, "") and said in err and "Traceback" not in err


def test_a_recording_is_no_capsule(gripwire, tmp_path: Path) -> None:
    assert _end(gripwire("record", "-o", "run.mcap", "--seconds", "0.1"))[0] == 0
    code, _, err = _end(gripwire("capsule", "show", "run.mcap"))
    assert code == 1 and "is a recording but no capsule" in err


def test_who_only_watches_writes_nothing_and_a_note_has_an_end() -> None:
    assert SaveCapsule(note="x" * 2000).role == "label" and CapsuleStatus().role == "watch"
    with pytest.raises(ValueError, match="at most 2000"):
        SaveCapsule(note="x" * 2001)
