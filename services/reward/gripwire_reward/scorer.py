"""Runs a bundle's model: ONNX Runtime, one thread. What is reported and what serves are computed here."""

import zipfile
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward import calibration
from gripwire_reward.bundle import Bundle
from gripwire_reward.preprocess import preprocess


@dataclass(frozen=True)
class Score:
    """What the model says about one frame."""

    logit: float
    probability: float
    drift: float
    features: NDArray[np.float32]
    preprocess_ms: float
    score_ms: float


class Scorer:
    """A verified bundle, ready to score frames.

    Loading re-scores the golden frames through the very path that live frames take.

    Raises:
        UserError: the graph is not what the manifest says, gives non-finite numbers, or differs from the
            golden logits by more than the tolerance.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.bundle = bundle
        self.contract = bundle.manifest.inputs[0]
        if len(bundle.manifest.inputs) != 1:
            raise UserError(
                f"{bundle.path}: this model wants {len(bundle.manifest.inputs)} cameras; one is supported"
            )
        self._session = session(
            bundle.file("model.onnx").read_bytes(), threads, str(bundle.file("model.onnx"))
        )
        self._check_graph()
        verify_golden(self)

    def _check_graph(self) -> None:
        file = self.bundle.file("model.onnx")
        inputs, outputs = self._session.get_inputs(), {o.name for o in self._session.get_outputs()}
        shape = (3, *self.contract.size)
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or tuple(inputs[0].shape[1:]) != shape:
            got = [(i.type, i.shape) for i in inputs]
            raise UserError(
                f"{file}: one float input of (n, {shape[0]}, {shape[1]}, {shape[2]}) is due, not {got}; "
                "train again"
            )
        if not {"logit", "features"} <= outputs:
            raise UserError(
                f"{file}: outputs `logit` and `features` are due, not {sorted(outputs)}; train again"
            )
        self._input = inputs[0].name

    def batch(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Preprocessed (n, 3, h, w) float32 to logits (n,) and features (n, f).

        Raises:
            UserError: an output is not finite.
        """
        logit, features = self._session.run(["logit", "features"], {self._input: inputs})
        logit = np.asarray(logit, np.float32).reshape(len(inputs))
        if not (np.isfinite(logit).all() and np.isfinite(features).all()):
            raise UserError(f"{self.bundle.path}: the model gives numbers that are not finite; train again")
        return logit, np.asarray(features, np.float32)

    def frame(self, image: NDArray[np.uint8]) -> Score:
        """Score one RGB frame (H, W, 3) uint8.

        Raises:
            UserError: the frame has another size than the model was trained on, or an output is not finite.
        """
        start = perf_counter()
        inputs = preprocess(image, self.contract)[None]
        ready = perf_counter()
        logit, features = self.batch(inputs)
        probability = float(calibration.apply(logit, self.bundle.manifest.calibration)[0])
        far = float(drift(features)[0])
        end = perf_counter()
        return Score(
            float(logit[0]), probability, far, features[0], (ready - start) * 1e3, (end - ready) * 1e3
        )

    def strange(self, far: float) -> str:
        """Why a frame of this drift is not judged; empty when it is."""
        limit = self.bundle.manifest.drift_limit
        if limit is None or far <= limit:
            return ""
        return (
            f"the picture is far from what the model was trained on (drift {far:.1f}, limit {limit:.1f}): "
            "light, camera or scene have changed; restore them, or record, label and train on this"
        )

    def warm_up(self, times: int = 3) -> None:
        """The first runs allocate memory; have them before the first live frame."""
        inputs = np.zeros((1, 3, *self.contract.size), np.float32)
        for _ in range(times):
            self.batch(inputs)


def drift(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far frames are from the training frames: the root mean square of each row of (n, f).

    A trainer gives ``features`` centred and whitened by its training frames, so that theirs have one near 1.
    """
    return np.sqrt(np.mean(np.square(features, dtype=np.float64), axis=1)).astype(np.float32)


def session(model: bytes, threads: int, name: str) -> ort.InferenceSession:
    """A sequential session on the CPU.

    Raises:
        UserError: ONNX Runtime cannot read the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Spinning workers would take the second core from camera and robot for nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # ONNX Runtime raises a family of types of its own
        raise UserError(
            f"{name}: ONNX Runtime cannot read it ({str(e).splitlines()[0][:200]}); train again"
        ) from e


def verify_golden(scorer: Scorer) -> None:
    """Re-score the golden frames; refuse on any difference beyond the bundle's tolerance."""
    file, tolerance = scorer.bundle.file("golden.npz"), scorer.bundle.manifest.golden_tolerance
    frames, logits = read_golden(file)
    for number, (frame, expected) in enumerate(zip(frames, logits, strict=True)):
        got = scorer.frame(frame).logit
        if not abs(got - float(expected)) <= tolerance:
            raise UserError(
                f"{file}: golden frame {number} scores {got:.4f}, {float(expected):.4f} was recorded "
                "when the "
                f"model was trained (tolerance {tolerance:g}): what would run is not what was trained; "
                "train again here"
            )


def read_golden(file: Any) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Frames (n, H, W, 3) uint8 and their logits (n,). Nothing is ever unpickled.

    Raises:
        UserError: the file does not hold them.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            frames, logits = content["frames"], content["logits"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as e:
        raise UserError(f"{file}: not the golden frames of a bundle ({e}); train again") from e
    if frames.ndim != 4 or frames.dtype != np.uint8 or logits.shape != (len(frames),) or len(frames) == 0:
        raise UserError(f"{file}: golden frames of {frames.shape} and logits of {logits.shape}; train again")
    return frames, logits.astype(np.float32)
