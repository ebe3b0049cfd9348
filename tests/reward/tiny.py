"""A bundle so small that tests make their own: the logit grows with the mean of the red channel."""

from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gripwire_reward import bundle
from gripwire_reward.bundle import Bundle, Manifest
from gripwire_reward.calibration import Calibration
from gripwire_reward.decision import DecisionRule
from gripwire_reward.preprocess import Crop, InputContract, preprocess
from gripwire_reward.scorer import session

HEIGHT, WIDTH = 48, 64

CONTRACT = InputContract(
    key="observation.images.gripper_cam",
    frame=(HEIGHT, WIDTH),
    crop=Crop(top=0, left=8, height=48, width=48),
    size=(16, 16),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
RULE = DecisionRule(threshold=0.5, release=0.35, window_s=0.1, needed_s=0.1, fitted_hz=10)


def picture(success: bool, number: int = 0) -> NDArray[np.uint8]:
    """Red for success, blue for failure, with a little noise that differs by ``number``."""
    noise = np.random.default_rng(number).integers(0, 20, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    noise[..., 0 if success else 2] += 200
    return noise


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """An RGB picture as the camera service sends it."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def graph(gain: float = 8.0, size: tuple[int, int] = (16, 16)) -> bytes:
    """features = mean of each channel; logit = gain * (red - blue)."""
    weights = np.array([[gain], [0.0], [-gain]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["features", "w"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["logit"]),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, *size])],
        [
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3]),
        ],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def make(
    bundles: Path,
    gain: float = 8.0,
    golden_error: float = 0.0,
    contract: InputContract = CONTRACT,
    rule: DecisionRule = RULE,
    model: bytes | None = None,
    check: bool = True,
) -> Bundle:
    """A sealed bundle under ``bundles``; ``golden_error`` falsifies the recorded logits, and without
    ``check`` they are not the model's at all."""
    model = model or graph(gain)
    frames = np.stack([picture(i % 2 == 0, i) for i in range(12)])
    if check:
        engine = session(model, 1, "tiny")
        logits = [engine.run(["logit"], {"image": preprocess(f, CONTRACT)[None]})[0][0] for f in frames]
    else:
        logits = [0.0] * len(frames)
    with bundle.staging(bundles) as aside:
        (aside / "model.onnx").write_bytes(model)
        (aside / "report.html").write_text("<p>tiny</p>")
        np.savez_compressed(aside / "golden.npz", frames=frames, logits=np.float32(logits) + golden_error)
        return bundle.seal(
            aside,
            Manifest(name="tiny", inputs=[contract], decision=rule, calibration=Calibration(temperature=2)),
        )
