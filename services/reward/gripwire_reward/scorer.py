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
from gripwire_reward.graph_check import refuse_strange
from gripwire_reward.preprocess import InputContract, preprocess


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
        self.contracts = bundle.manifest.inputs
        self._session = session(
            bundle.file("model.onnx").read_bytes(), threads, str(bundle.file("model.onnx"))
        )
        self._inputs = self._check_graph()
        verify_golden(self)

    @property
    def contract(self) -> InputContract:
        """Of the first camera, the one that is judged."""
        return self.contracts[0]

    def _check_graph(self) -> list[str]:
        """The names of the graph's inputs, in the manifest's order."""
        file = self.bundle.file("model.onnx")
        inputs, outputs = self._session.get_inputs(), {o.name for o in self._session.get_outputs()}
        due = [(3, *contract.size) for contract in self.contracts]
        got = [tuple(i.shape[1:]) for i in inputs if i.type == "tensor(float)"]
        if got != due or len(inputs) != len(due):
            shown = [(i.type, i.shape) for i in inputs]
            wanted = ", ".join(f"(n, {', '.join(map(str, shape))})" for shape in due)
            raise UserError(
                f"{file}: float inputs {wanted} are due, one for each camera, not {shown}; train again"
            )
        if not {"logit", "features"} <= outputs:
            raise UserError(
                f"{file}: outputs `logit` and `features` are due, not {sorted(outputs)}; train again"
            )
        return [i.name for i in inputs]

    def batch(self, *inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Preprocessed (n, 3, h, w) float32, one for each camera, to logits (n,) and features (n, f).

        Raises:
            UserError: an output is not finite.
        """
        fed = dict(zip(self._inputs, inputs, strict=True))
        logit, features = self._session.run(["logit", "features"], fed)
        logit = np.asarray(logit, np.float32).reshape(len(inputs[0]))
        if not (np.isfinite(logit).all() and np.isfinite(features).all()):
            raise UserError(f"{self.bundle.path}: the model gives numbers that are not finite; train again")
        return logit, np.asarray(features, np.float32)

    def frame(self, *images: NDArray[np.uint8]) -> Score:
        """Score one RGB frame (H, W, 3) uint8 of each camera.

        Raises:
            UserError: a frame has another size than the model was trained on, or an output is not finite.
        """
        start = perf_counter()
        inputs = [preprocess(i, c)[None] for i, c in zip(images, self.contracts, strict=True)]
        ready = perf_counter()
        logit, features = self.batch(*inputs)
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
        inputs = [np.zeros((1, 3, *contract.size), np.float32) for contract in self.contracts]
        for _ in range(times):
            self.batch(*inputs)


def drift(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far frames are from the training frames: the root mean square of each row of (n, f).

    A trainer gives ``features`` centred and whitened by its training frames, so that theirs have one near 1.
    """
    return np.sqrt(np.mean(np.square(features, dtype=np.float64), axis=1)).astype(np.float32)


def session(model: bytes, threads: int, name: str) -> ort.InferenceSession:
    """A sequential session on the GPU that ONNX Runtime can use, else on the CPU.

    Raises:
        UserError: ONNX Runtime cannot read the graph, or must not: see :mod:`gripwire_reward.graph_check`.
    """
    refuse_strange(model, name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Spinning workers would take the second core from camera and robot for nothing.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in ort.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))  # the golden logits are exact
    try:
        return ort.InferenceSession(model, options, providers=providers)
    except Exception as e:  # ONNX Runtime raises a family of types of its own
        raise UserError(
            f"{name}: ONNX Runtime cannot read it ({str(e).splitlines()[0][:200]}); train again"
        ) from e


def verify_golden(scorer: Scorer) -> None:
    """Re-score the golden frames; refuse on any difference beyond the bundle's tolerance."""
    file, tolerance = scorer.bundle.file("golden.npz"), scorer.bundle.manifest.golden_tolerance
    frames, logits = read_golden(file, len(scorer.contracts))
    for number, (expected, *images) in enumerate(zip(logits, *frames, strict=True)):
        got = scorer.frame(*images).logit
        if not abs(got - float(expected)) <= tolerance:
            raise UserError(
                f"{file}: golden frame {number} scores {got:.4f}, {float(expected):.4f} was recorded "
                "when the "
                f"model was trained (tolerance {tolerance:g}): what would run is not what was trained; "
                "train again here"
            )


def read_golden(file: Any, cameras: int = 1) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
    """Frames (n, H, W, 3) uint8 of each camera (`frames`, `frames_1`, ...), and their logits (n,). Nothing
    is ever unpickled.

    Raises:
        UserError: the file does not hold them.
    """
    names = ["frames", *(f"frames_{i}" for i in range(1, cameras))]
    try:
        with np.load(file, allow_pickle=False) as content:
            frames, logits = [content[name] for name in names], content["logits"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as e:
        raise UserError(f"{file}: not the golden frames of a bundle ({e}); train again") from e
    for shown in frames:
        if shown.ndim != 4 or shown.dtype != np.uint8 or logits.shape != (len(shown),) or len(shown) == 0:
            raise UserError(
                f"{file}: golden frames of {shown.shape} and logits of {logits.shape}; train again"
            )
    return frames, logits.astype(np.float32)
