"""Pictures and backbone features of every episode, computed once and kept under cache/.

An entry's name is the hash of all that it depends on, so nothing is ever stale, and it is written aside and
renamed, so that a crash or a second trainer beside this one does no harm.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gripwire.files import write_whole
from gripwire_reward.datasets import Dataset, Episode, frames
from gripwire_reward.preprocess import InputContract, crop_and_resize, normalise
from gripwire_reward.scorer import session
from gripwire_trainer import augment, backbone

_BATCH = 16
_PICTURES_VERSION = 1


def video_hash(path: Path) -> str:
    """SHA-256 of a video file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class FeatureStore:
    """Makes and keeps the features of episodes for one preprocessing contract."""

    cache: Path
    contract: InputContract

    def __post_init__(self) -> None:
        self._session: ort.InferenceSession | None = None
        self._hashes: dict[Path, str] = {}

    def prepare(self) -> None:
        """Load the backbone; once, before threads share this store."""
        if self._session is None:
            self._session = session(self._graph(), 1, "the backbone")

    def hash_of(self, video: Path) -> str:
        """The video's hash, taken once per job."""
        if video not in self._hashes:
            self._hashes[video] = video_hash(video)
        return self._hashes[video]

    def pictures(self, dataset: Dataset, episode: Episode) -> NDArray[np.uint8]:
        """The episode as the model sees it, (n, h, w, 3) uint8 RGB.

        Raises:
            UserError: the video is missing, short or damaged, or of another size than the contract's.
        """
        file = self.cache / "pictures" / f"{self._key(dataset, episode)}.npy"
        if (kept := _read(file)) is not None:
            return kept
        seen = frames(dataset, episode, dataset.camera(self.contract.key))
        made = np.stack([crop_and_resize(image, self.contract) for image in seen])
        _write(file, made)
        return made

    def views(self, dataset: Dataset, episode: Episode, count: int) -> list[NDArray[np.float16]]:
        """The first ``count`` views of an episode."""
        return [self.features(dataset, episode, view) for view in range(count)]

    def features(self, dataset: Dataset, episode: Episode, view: int) -> NDArray[np.float16]:
        """Backbone features of one view, (n, c, h/16, w/16) float16. View 0 is the picture as it is."""
        key = self._key(
            dataset, episode, f"{backbone.fingerprint()}/view {view}.{augment.VERSION if view else 0}"
        )
        file = self.cache / "features" / f"{key}.npy"
        if (kept := _read(file)) is not None:
            return kept
        rng = np.random.default_rng(int(key[:16], 16))
        made = self._forward(self.pictures(dataset, episode), view, rng)
        _write(file, made)
        return made

    def _key(self, dataset: Dataset, episode: Episode, what: str = "") -> str:
        key = dataset.camera(self.contract.key)
        part = episode.videos[key]
        seen = self.contract.model_dump(exclude={"key"})
        parts = (
            _PICTURES_VERSION,
            self.hash_of(part.path),
            part.start_s,
            episode.length,
            dataset.fps,
            seen,
            what,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]

    def _forward(
        self, pictures: NDArray[np.uint8], view: int, rng: np.random.Generator
    ) -> NDArray[np.float16]:
        self.prepare()
        assert self._session is not None
        out = []
        for chunk in _chunks(pictures, _BATCH):
            seen = chunk if view == 0 else [augment.view(picture, rng) for picture in chunk]
            batch = np.stack([normalise(picture, self.contract) for picture in seen])
            out.append(self._session.run(None, {"image": batch})[0].astype(np.float16))
        return np.concatenate(out)

    def _graph(self) -> bytes:
        """The backbone in ONNX, several times faster than PyTorch on a CPU."""
        height, width = self.contract.size
        file = self.cache / "backbones" / f"{backbone.fingerprint()}-{height}x{width}.onnx"
        if file.is_file():
            return file.read_bytes()
        from gripwire_trainer.model import export_onnx

        graph = export_onnx(backbone.Backbone(self.contract.size), self.contract.size, ["features"])
        write_whole(file, graph)
        return graph


def extract(
    store: FeatureStore,
    episodes: list[tuple[Dataset, Episode]],
    views: int,
    threads: int,
    progress: Callable[[float], None],
) -> list[list[NDArray[np.float16]]]:
    """All views of each episode, in order; several episodes at a time.

    Decoding, OpenCV and ONNX Runtime all let other threads run, and one thread per picture scales better
    than several threads inside one picture.
    """
    store.prepare()
    with ThreadPoolExecutor(threads, thread_name_prefix="features") as pool:
        jobs = [pool.submit(store.views, dataset, episode, views) for dataset, episode in episodes]
        try:
            for count, _ in enumerate(as_completed(jobs), 1):
                progress(count / len(jobs))
            return [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _chunks(array: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


def _read[D: np.generic](file: Path) -> NDArray[D] | None:
    """An entry, or None when there is none, or none that can be read."""
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def _write(file: Path, array: NDArray[np.generic]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_whole(file, buffer.getvalue())
