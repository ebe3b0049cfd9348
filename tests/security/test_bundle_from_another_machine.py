"""A bundle that was trained elsewhere: two data folders on real sockets, and offerers that lie or die."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire import settings
from gripwire.control import Server
from gripwire.errors import UserError
from gripwire.messages import BundlePart, Command, Offer, ReadBundle, Swap
from gripwire.settings import Settings
from gripwire_reward import bundle as bundles
from gripwire_reward import transfer
from tests.reward import tiny
from tests.reward.bench import Bench
from tests.security.conftest import Machine, acquaint

Change = Callable[[ReadBundle, BundlePart], BundlePart]


def honest(_: ReadBundle, part: BundlePart) -> BundlePart:
    return part


class GpuBox:
    """Answers for the bundles of its data folder, as the trainer service does; ``change`` makes it lie."""

    def __init__(self, stack: Settings) -> None:
        self.bundles = stack.data / "bundles"
        self.change: Change = honest
        self.asked: list[Command] = []
        self.server: Server | None = Server(stack.topics.control_binds("trainer"), {ReadBundle: self._read})
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _read(self, command: ReadBundle) -> BundlePart:
        self.asked.append(command)
        return self.change(command, transfer.read(self.bundles, command))

    def _run(self) -> None:
        while not self._end.is_set() and self.server:
            self.server.poll(0.02)
        if self.server:
            self.server.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture(params=["with keys", "without keys"])
def machines(
    request: pytest.FixtureRequest, machine: Machine, tmp_path: Path, port_base: int
) -> list[Settings]:
    """Robot and GPU box: a data folder each, the trainer found on `localhost`, the rest at 127.0.0.1."""
    hosts = {"hosts__trainer": "localhost"}
    if request.param == "without keys":
        return [machine("robot-pc", False, **hosts), machine("gpu-box", False)]
    acquaint(machine("gpu-box"), machine("robot-pc"), "watch", name="robot-pc")
    known = machine("robot-pc").keys
    assert known
    settings.keys.allow(known, "robot-pc", None, ("watch",), host="localhost")
    return [machine("robot-pc", **hosts), machine("gpu-box")]


@pytest.fixture
def gpu_box(machines: list[Settings]) -> Iterator[GpuBox]:
    made = GpuBox(machines[1])
    yield made
    made.close()


@pytest.fixture
def robot(machines: list[Settings]) -> Iterator[Bench]:
    made = Bench(machines[0])
    yield made
    made.stop()
    made.camera.close()


def _left_behind(stack: Settings) -> list[str]:
    return sorted(path.name for path in (stack.data / "bundles").glob("*"))


def test_a_bundle_of_another_machine_is_fetched_verified_and_served(robot: Bench, gpu_box: GpuBox) -> None:
    made = tiny.make(gpu_box.bundles)
    assert robot.ask(Offer(bundle=made.id)).startswith(f"fetching {made.id} from localhost")
    robot.state("serving", made.id)
    assert robot.verdict(robot.send(True)).valid
    here = bundles.load(robot.settings.data / "bundles" / made.id)
    assert here.manifest == made.manifest
    asked = len(gpu_box.asked)
    assert robot.ask(Swap(bundle=made.id)).startswith("verifying")  # it is here now
    assert len(gpu_box.asked) == asked


def test_a_file_of_several_pieces_arrives_whole(
    robot: Bench, gpu_box: GpuBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PART", 100)
    made = tiny.make(gpu_box.bundles)
    robot.ask(Offer(bundle=made.id))
    robot.state("serving", made.id)
    offsets = [command.offset for command in gpu_box.asked if command.file == "model.onnx"]  # type: ignore[attr-defined]
    assert offsets == list(range(0, made.file("model.onnx").stat().st_size, 100))


def _flip(command: ReadBundle, part: BundlePart) -> BundlePart:
    return part.model_copy(update={"data": bytes([part.data[0] ^ 1]) + part.data[1:]})


def _in(file: str, change: Change) -> Change:
    return lambda command, part: change(command, part) if command.file == file else part


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_in("model.onnx", _flip), "model.onnx changed on the way"),
        (_in("bundle.json", _flip), "what came is another one, or changed on the way"),
        (
            _in("golden.npz", lambda _, part: part.model_copy(update={"data": part.data[:-1]})),
            "a piece of golden.npz",
        ),
        (_in("golden.npz", lambda _, part: part.model_copy(update={"data": b""})), "came with 0 bytes"),
        (
            _in("golden.npz", lambda _, part: part.model_copy(update={"size": 2**40})),
            "golden.npz has 1099511627776",
        ),
        (
            _in("bundle.json", lambda _, part: part.model_copy(update={"size": 2**40})),
            "bundle.json has 1099511627776",
        ),
    ],
)
def test_what_was_changed_on_the_way_is_refused_and_leaves_nothing(
    robot: Bench, gpu_box: GpuBox, change: Change, why: str
) -> None:
    made = tiny.make(gpu_box.bundles)
    gpu_box.change = change
    robot.ask(Offer(bundle=made.id))
    assert why in robot.state("refused", made.id).reason
    assert _left_behind(robot.settings) == []
    gpu_box.change = honest  # and the service goes on: the next try may be a good one
    robot.ask(Offer(bundle=made.id))
    robot.state("serving", made.id)


def _forge(gpu_box: GpuBox, **changes: Any) -> str:
    """A bundle whose description says something else than what is there, under the id that this has."""
    made = tiny.make(gpu_box.bundles)
    manifest = json.loads((made.path / bundles.MANIFEST).read_bytes())
    files = manifest["files"]
    for name, entry in changes.items():
        files[name] = entry
    data = json.dumps(manifest).encode()
    forged = gpu_box.bundles / bundles.identity(data)
    made.path.rename(forged)
    (forged / bundles.MANIFEST).write_bytes(data)
    return forged.name


EVIL = b"#!/bin/sh\n"
ENTRY = {"sha256": hashlib.sha256(EVIL).hexdigest(), "size": len(EVIL)}


@pytest.mark.parametrize(
    "name", ["../x.json", "/tmp/x.json", "a/b.json", "..", ".hidden.json", "x\0.json", "n" * 200, ""]
)
def test_a_description_that_names_files_outside_is_refused_before_anything_is_written(
    robot: Bench, gpu_box: GpuBox, name: str
) -> None:
    forged = _forge(gpu_box, **{name: ENTRY})
    robot.ask(Offer(bundle=forged))
    assert "a file named `" in robot.state("refused", forged).reason
    assert {command.file for command in gpu_box.asked} == {"bundle.json"}  # type: ignore[attr-defined]
    assert _left_behind(robot.settings) == []


def test_a_bundle_that_claims_too_much_is_refused_before_it_is_fetched(robot: Bench, gpu_box: GpuBox) -> None:
    forged = _forge(gpu_box, **{"huge.npz": {"sha256": "0" * 64, "size": 3 * 2**30}})
    robot.ask(Offer(bundle=forged))
    assert "3.0 GiB, more than the 2 that are taken over the network" in robot.state("refused", forged).reason
    assert {command.file for command in gpu_box.asked} == {"bundle.json"}  # type: ignore[attr-defined]


def test_a_kind_of_file_that_no_bundle_has_is_refused(robot: Bench, gpu_box: GpuBox) -> None:
    forged = _forge(gpu_box, **{"weights.pt": ENTRY})
    (gpu_box.bundles / forged / "weights.pt").write_bytes(EVIL)
    robot.ask(Offer(bundle=forged))
    assert "weights come as ONNX or safetensors" in robot.state("refused", forged).reason


def test_an_offerer_that_dies_in_the_middle_leaves_nothing_and_it_is_said(
    robot: Bench, gpu_box: GpuBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ANSWER_S", 0.5)
    made = tiny.make(gpu_box.bundles)

    def die(command: ReadBundle, part: BundlePart) -> BundlePart:
        gpu_box._end.set()  # what it answers now never leaves
        raise UserError("dying")

    gpu_box.change = _in("golden.npz", die)
    robot.ask(Offer(bundle=made.id))
    assert "dying" in robot.state("refused", made.id).reason
    robot.states.clear()
    robot.ask(Offer(bundle=made.id))
    assert "the trainer service did not answer `ReadBundle`" in robot.state("refused", made.id).reason
    assert _left_behind(robot.settings) == []
    assert not robot.verdict(robot.send(True)).valid


def test_an_id_that_nobody_has_is_refused_by_name(robot: Bench, gpu_box: GpuBox) -> None:
    robot.ask(Offer(bundle="0" * 20))
    assert "no bundle of that id" in robot.state("refused", "0" * 20).reason


def test_where_both_share_a_data_folder_nothing_is_fetched(stack: Settings) -> None:
    bench = Bench(stack)
    with pytest.raises(UserError, match="no bundle of that id"):
        bench.ask(Offer(bundle="0" * 20))
    bench.stop()
    bench.camera.close()


def test_frames_are_judged_while_a_bundle_is_on_its_way(robot: Bench, gpu_box: GpuBox) -> None:
    first, second = tiny.make(gpu_box.bundles), tiny.make(gpu_box.bundles, gain=4.0)
    robot.ask(Offer(bundle=first.id))
    robot.state("serving", first.id)
    reached, go_on = threading.Event(), threading.Event()

    def slow(command: ReadBundle, part: BundlePart) -> BundlePart:
        reached.set()
        assert go_on.wait(20)
        return part

    gpu_box.change = slow
    robot.ask(Offer(bundle=second.id))
    robot.until(reached.is_set)
    assert robot.verdict(robot.send(True)).model == first.id
    go_on.set()
    robot.state("serving", second.id)


def test_the_trainer_hands_out_bundles_and_nothing_else(gpu_box: GpuBox, tmp_path: Path) -> None:
    made = tiny.make(gpu_box.bundles)
    (tmp_path / "secret.json").write_text("{}")
    (made.path / "link.json").symlink_to(tmp_path / "secret.json")
    (gpu_box.bundles / "0123456789abcdef0123").symlink_to(tmp_path, target_is_directory=True)
    for bundle, file in [
        (made.id, "../../secret.json"), (made.id, str(tmp_path / "secret.json")), (made.id, "link.json"),
        (made.id, "."), (made.id, ""), (made.id, "a\0b"), ("../" + made.id, "bundle.json"),
        ("0123456789abcdef0123", "secret.json"), ("..", "secret.json"), ("*", "bundle.json"),
        ("", "bundle.json"),
    ]:  # fmt: skip
        with pytest.raises(UserError):
            transfer.read(gpu_box.bundles, ReadBundle(bundle=bundle, file=file))
    assert transfer.read(gpu_box.bundles, ReadBundle(bundle=made.id)).size > 100
