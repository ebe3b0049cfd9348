"""A model of two cameras: judged together when both pictures show the same moment, not valid when not."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gripwire import bus, settings
from gripwire.bus import Publisher
from gripwire.errors import UserError
from gripwire.messages import Frame, Offer
from gripwire_reward import bundle
from gripwire_reward.bundle import Bundle, Manifest
from gripwire_reward.preprocess import preprocess
from gripwire_reward.scorer import Scorer, session
from tests.reward import tiny
from tests.reward.bench import WAIT_S, Bench

CONTRACTS = [tiny.CONTRACT, tiny.CONTRACT.model_copy(update={"key": "observation.images.top_cam"})]


def _graph() -> bytes:
    """logit = 8 * (mean of the first camera's red and of the second's): high only if both are red."""
    nodes = [
        helper.make_node("ReduceMean", ["first"], ["a"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["second"], ["b"], axes=[2, 3], keepdims=0),
        helper.make_node("Min", ["a", "b"], ["features"]),
        helper.make_node("Slice", ["features", "zero", "one", "one"], ["red"]),  # from 0 to 1 along axis 1
        helper.make_node("Squeeze", ["red", "one"], ["flat"]),
        helper.make_node("Mul", ["flat", "gain"], ["logit"]),
    ]
    image = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, 16, 16]) for n in ("first", "second")
    ]
    out = [
        helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.array([0], np.int64), "zero"),
        onnx.numpy_helper.from_array(np.array([1], np.int64), "one"),
        onnx.numpy_helper.from_array(np.array(8.0, np.float32), "gain"),
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "two", image, out, constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    return made.SerializeToString()


def _make(bundles: Path) -> Bundle:
    model = _graph()
    engine = session(model, 1, "two")
    first = np.stack([tiny.picture(i % 2 == 0, i) for i in range(12)])
    second = np.stack([tiny.picture(i % 3 == 0, i) for i in range(12)])
    logits = []
    for a, b in zip(first, second, strict=True):
        fed = {"first": preprocess(a, CONTRACTS[0])[None], "second": preprocess(b, CONTRACTS[1])[None]}
        logits.append(engine.run(["logit"], fed)[0][0])
    with bundle.staging(bundles) as aside:
        (aside / "model.onnx").write_bytes(model)
        np.savez_compressed(aside / "golden.npz", frames=first, frames_1=second, logits=np.float32(logits))
        return bundle.seal(aside, Manifest(inputs=CONTRACTS, decision=tiny.RULE))


def test_the_scorer_takes_a_picture_of_each_camera_in_the_manifests_order(tmp_path: Path) -> None:
    scorer = Scorer(bundle.load(_make(tmp_path).path))
    red, blue = tiny.picture(True), tiny.picture(False)
    assert scorer.frame(red, red).logit > 0 > max(
        scorer.frame(red, blue).logit, scorer.frame(blue, red).logit
    )  # fmt: skip


@pytest.fixture
def two(tmp_path: Path, port_base: int) -> Iterator[tuple[Bench, Publisher[Frame]]]:
    slots = {f"cameras.{name}.fps": 30.0 for name in ("gripper_cam", "top_cam")}
    stack = settings.load(flags={"data": tmp_path / "data", "port_base": port_base} | slots, env={})
    bench = Bench(stack)
    top: Publisher[Frame] = bus.Publisher(stack.topics["camera/top_cam"])
    yield bench, top
    bench.stop()
    bench.camera.close()
    top.close()


def _show(bench: Bench, top: Publisher[Frame], success: bool, later_ns: int = 0) -> Frame:
    """A picture of the top camera, taken when the gripper camera's next one will be."""
    frame = Frame(
        valid=True, camera="top_cam", width=tiny.WIDTH, height=tiny.HEIGHT, encoding="jpeg",
        t_capture=bench.shot_at + 33_333_333 + later_ns,
    )  # fmt: skip
    sent = top.publish(frame, tiny.jpeg(tiny.picture(success)))
    reader = bench.service._serving.companions._cameras["top_cam"]
    bench.until(lambda: (seen := reader.get()) and seen.message.seq >= sent.seq)
    return sent


def test_frames_of_the_same_moment_are_judged_together_and_others_are_not(two) -> None:
    bench, top = two
    made = _make(bench.settings.data / "bundles")
    bench.ask(Offer(bundle=made.id))
    bench.state("serving", made.id)
    alone = bench.verdict(bench.send(True))
    assert not alone.valid and "no frame from camera top_cam" in alone.reason
    assert top.wait_for_subscriber(WAIT_S)
    beside = _show(bench, top, True)
    both = bench.verdict(bench.send(True))
    assert both.valid and both.above and both.other_frames == {"top_cam": beside.seq}
    _show(bench, top, False)
    assert not bench.verdict(bench.send(True)).above
    _show(bench, top, True, later_ns=500_000_000)
    apart = bench.verdict(bench.send(True))
    assert not apart.valid and "0.5 s apart" in apart.reason


def test_a_camera_that_is_not_there_is_named_before_anything_changes(bench: Bench) -> None:
    first = bench.serve()
    made = _make(bench.settings.data / "bundles")
    bench.ask(Offer(bundle=made.id))
    refused = bench.state("refused", made.id)
    assert "[cameras.top_cam]" in refused.reason and refused.serving == first


def test_golden_frames_of_one_camera_are_not_enough(tmp_path: Path) -> None:
    made = _make(tmp_path)
    with bundle.staging(tmp_path / "other") as aside:
        (aside / "model.onnx").write_bytes(made.file("model.onnx").read_bytes())
        with np.load(made.file("golden.npz")) as golden:
            np.savez_compressed(aside / "golden.npz", frames=golden["frames"], logits=golden["logits"])
        one = bundle.seal(aside, Manifest(inputs=CONTRACTS))
    with pytest.raises(UserError, match="frames_1"):
        Scorer(bundle.load(one.path))
