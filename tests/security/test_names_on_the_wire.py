"""Names that lead elsewhere, offered to the real services on real sockets."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gripwire import control, names, settings
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    Label,
    Offer,
    ReadBundle,
    StartEpisode,
    StartSession,
    StopEpisode,
    Swap,
    Train,
)
from gripwire.service import Runtime
from gripwire.settings import Settings
from gripwire_trainer.service import TrainerService
from tests.conftest import free_port_base
from tests.helpers import ending
from tests.reward import tiny

START_S, WAIT_S = 120.0, 20.0

BAD = [
    "../../etc", "..", ".", "", "/etc/passwd", "//etc/passwd", "a/../../../outside/canary", "a\0b", "\0",
    "canary\n", ".hidden", "~", "~root", "-rf", "$HOME", "`id`", "$(id)", "a;b", "a b", "C:\\windows",
    "..\\..\\x", "\N{FULLWIDTH FULL STOP}" * 2, "x" * 101, "x" * 5000, "%2e%2e%2f", "file:///etc/passwd",
    "*", "[a-z]*",
]  # fmt: skip


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside the data folder, with everything in it that a name could lead to."""
    folder = tmp_path_factory.mktemp("names") / "outside"
    tiny.make(folder)
    (folder / "canary.json").write_text('{"dataset_path": "x", "episodes": {}}')
    return folder


@pytest.fixture(scope="module")
def running(outside: Path) -> Iterator[Settings]:
    """Recorder and reward service as processes of their own; the trainer in a thread, without its engine."""
    data = outside.parent / "data"
    (data / "labels").mkdir(parents=True)
    (data / "bundles").mkdir()
    (bundle,) = (path.parent for path in outside.glob("*/bundle.json"))
    (data / "labels" / "link.json").symlink_to(outside / "canary.json")
    (data / "labels" / "sub").symlink_to(outside, target_is_directory=True)
    (data / "bundles" / bundle.name).symlink_to(bundle, target_is_directory=True)
    stack = settings.load(flags={"data": data, "port_base": free_port_base()}, env={})
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")} | stack.environment()
    with ending() as started:
        for service in ("recorder", "reward"):
            command = [sys.executable, "-m", "gripwire", service, "run"]
            started.append(subprocess.Popen(command, env=environment, cwd=data, stderr=subprocess.DEVNULL))
        with _trainer(stack):
            for service, probe in (("recorder", StopEpisode()), ("reward", Offer(bundle=""))):
                deadline = time.monotonic() + START_S
                while "did not answer" in refusal(stack, service, probe):
                    assert time.monotonic() < deadline, f"{service} does not start"
            yield stack


@contextmanager
def _trainer(stack: Settings) -> Iterator[None]:
    """The trainer service as it is once its engine is loaded, which takes long and no command here needs."""
    runtime, end = Runtime("trainer", stack), threading.Event()
    service = TrainerService(runtime)
    service._ready = True
    server = control.Server(stack.topics.control_binds("trainer"), service.commands)

    def run() -> None:
        while not end.is_set():
            server.poll(0.02)
        server.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        runtime.close()


def refusal(stack: Settings, service: str, command: Command) -> str:
    with pytest.raises(UserError) as refused:
        control.request(stack.topics.control(service), service, command, WAIT_S)
    return str(refused.value)


def _files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_a_dataset_is_named_and_never_pointed_at(running: Settings, outside: Path) -> None:
    before = _files(outside)
    for name in BAD:
        for command in (
            StartEpisode(task="t", dataset=name),
            StartSession(task="t", dataset=name, episodes=1, seconds=1.0),
        ):
            said = refusal(running, "recorder", command)
            assert "use letters, digits, `.`, `_` and `-`" in said and len(said) < 400, name
    assert _files(outside) == before
    assert [path.name for path in (running.data / "datasets").iterdir()] == [".recorder.lock"]


@pytest.mark.parametrize("kind", [Offer, Swap])
def test_a_bundle_is_named_and_never_pointed_at(
    running: Settings, outside: Path, kind: type[Offer | Swap]
) -> None:
    (led_out,) = (path.name for path in (running.data / "bundles").iterdir())
    for name in [*BAD, str(outside / led_out), f"../../outside/{led_out}", led_out, led_out[:8], "0" * 20]:
        assert "no bundle of that id under" in refusal(running, "reward", kind(bundle=name)), name
        assert "no bundle of that id under" in refusal(running, "trainer", ReadBundle(bundle=name)), name


def test_a_label_file_is_found_below_its_folder_alone(running: Settings, outside: Path) -> None:
    for name in [
        *BAD,
        str(outside / "canary.json"),
        "../../outside/canary",
        "link",
        "link.json",
        "sub/canary.json",
    ]:
        assert "no such label file under" in refusal(running, "trainer", Train(labels=name)), name


def test_a_command_names_no_folder_among_its_options(running: Settings) -> None:
    (running.data / "labels" / "real.json").write_text("{}")
    for option, value in [
        ("backbone", "/etc"),
        ("backbone", "../outside"),
        ("run_in", "container"),
        ("image", "x"),
    ]:
        said = refusal(running, "trainer", Train(labels="real", options={option: value}))
        assert said.startswith(f"option `{option}`") and "by its owner" in said


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_name_is_refused_in_one_short_sentence(name: str) -> None:
    with pytest.raises(UserError, match=r"^dataset name `") as refused:
        names.plain(name, "dataset name")
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("name", ["grasp", "a", "2026-11-27_cube.v2", "x" * 100])
def test_a_plain_name_is_taken_as_it_is(name: str) -> None:
    assert names.plain(name, "dataset name") == name


def test_a_label_from_the_bus_about_a_dataset_elsewhere_writes_nothing(
    running: Settings, outside: Path
) -> None:
    from gripwire.bus import Latest, Publisher
    from gripwire.messages import Health

    before = _files(outside)
    with (
        Publisher(running.topics["label"]) as publisher,
        Latest(running.topics["health/recorder"], Health) as beats,
    ):
        assert publisher.wait_for_subscriber(WAIT_S)
        for name in BAD:
            publisher.publish(Label(success=True, dataset=name, episode=0, valid=True))
        first = beats.wait(WAIT_S)
        assert first
        for _ in range(2):  # beats that began after it had time to act on them
            first = beats.wait(WAIT_S, after=first)
            assert first and first.message.state != "stopping"
    assert _files(outside) == before
    assert not list(running.data.rglob("*.verdicts.jsonl"))
