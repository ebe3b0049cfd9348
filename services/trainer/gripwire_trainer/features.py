"""Pictures and backbone features of every episode, made once and kept in the cache."""

import copy
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire.files import write_whole
from gripwire_reward.datasets import Dataset, Episode, frames
from gripwire_reward.preprocess import InputContract, crop_and_resize, normalise
from gripwire_reward.scorer import session
from gripwire_trainer import augment
from gripwire_trainer.backbone import Backbone, Pictures
from gripwire_trainer.cache import Cache
from gripwire_trainer.settings import Augmentation

_BATCH = 16
_TRIM_EVERY = 8
_PICTURES_VERSION = 1

Engine = Callable[[NDArray[np.float32]], NDArray[np.float16]]


@dataclass
class FeatureStore:
    """Makes and keeps what heads learn from, for one preprocessing contract and one backbone."""

    cache: Cache
    contract: InputContract
    backbone: Backbone
    augmentation: Augmentation
    _engine: Engine | None = field(default=None, repr=False, compare=False)
    _hashes: dict[tuple[Path, int, int], str] = field(default_factory=dict, repr=False, compare=False)

    def prepare(self) -> None:
        """Make the backbone ready; once, before threads share this store."""
        if self._engine is None and not isinstance(self.backbone, Pictures):
            self._engine = self._on_gpu() if torch.cuda.is_available() else self._on_cpu()

    def hash_of(self, video: Path) -> str:
        """A video's SHA-256, taken once while the file stays as it is."""
        stat = video.stat()
        seen = (video, stat.st_mtime_ns, stat.st_size)
        if seen not in self._hashes:
            with video.open("rb") as file:
                self._hashes[seen] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[seen]

    def pictures(self, dataset: Dataset, episode: Episode) -> NDArray[np.uint8]:
        """The episode as the model sees it, (n, h, w, 3) uint8 RGB.

        Raises:
            UserError: the video is missing, short or damaged, or of another size than the contract's.
        """
        key = self.key(dataset, episode)
        if (kept := self.cache.get("pictures", key)) is not None:
            return kept
        seen = frames(dataset, episode, dataset.camera(self.contract.key))
        made = np.stack([crop_and_resize(image, self.contract) for image in seen])
        self.cache.put("pictures", key, made)
        return made

    def features(self, dataset: Dataset, episode: Episode, view: int) -> NDArray[np.generic]:
        """What heads learn from, in one view: (n, c, h', w') float16 of the backbone, or (n, 3, h, w) uint8
        without one. View 0 is the picture as it is."""
        how = repr((view, augment.VERSION, self.augmentation)) if view else "0"
        key = self.key(dataset, episode, f"{self.backbone.fingerprint}/{how}")
        if (kept := self.cache.get("features", key)) is not None:
            return kept
        made = self._make(self.pictures(dataset, episode), view, np.random.default_rng(int(key[:16], 16)))
        self.cache.put("features", key, made)
        return made

    def key(self, dataset: Dataset, episode: Episode, what: str = "") -> str:
        """Of all that an entry depends on: the video, the preprocessing, and ``what`` is made of it."""
        part = episode.videos[dataset.camera(self.contract.key)]
        seen = self.contract.model_dump(exclude={"key"})
        made_of = (self.hash_of(part.path), part.start_s, episode.length, dataset.fps, seen, what)
        return hashlib.sha256(repr((_PICTURES_VERSION, *made_of)).encode()).hexdigest()[:40]

    def _make(self, pictures: NDArray[np.uint8], view: int, rng: np.random.Generator) -> NDArray[np.generic]:
        self.prepare()
        out: list[NDArray[np.generic]] = []
        for start in range(0, len(pictures), _BATCH):
            seen = list(pictures[start : start + _BATCH])
            if view:
                seen = [augment.view(picture, rng, self.augmentation) for picture in seen]
            if self._engine is None:
                out.append(np.stack(seen).transpose(0, 3, 1, 2))
            else:
                out.append(self._engine(np.stack([normalise(picture, self.contract) for picture in seen])))
        return np.concatenate(out)

    def _on_cpu(self) -> Engine:
        """ONNX Runtime, several times faster than PyTorch on a CPU."""
        height, width = self.contract.size
        file = self.cache.root / "backbones" / f"{self.backbone.fingerprint}-{height}x{width}.onnx"
        if file.is_file():
            with suppress(UserError):  # damaged: it is made again
                return _runner(file.read_bytes())
        from gripwire_trainer.model import export_onnx

        graph = export_onnx(self.backbone, self.contract.size, ["features"])
        with suppress(UserError):  # a full disk costs time later, never the job
            write_whole(file, graph)
        return _runner(graph)

    def _on_gpu(self) -> Engine:
        backbone = copy.deepcopy(self.backbone).cuda()  # the export moves the other one

        @torch.inference_mode()
        def run(batch: NDArray[np.float32]) -> NDArray[np.float16]:
            return backbone(torch.from_numpy(batch).cuda()).half().cpu().numpy()

        return run


def _runner(graph: bytes) -> Engine:
    loaded = session(graph, 1, "the backbone")
    return lambda batch: loaded.run(None, {"image": batch})[0].astype(np.float16)


def extract(
    store: FeatureStore,
    episodes: list[tuple[Dataset, Episode]],
    views: int,
    workers: int,
    progress: Callable[[float], None],
) -> None:
    """Have all views of each episode in the cache, several episodes at a time.

    Decoding, OpenCV and ONNX Runtime all let other threads run, and one thread per picture scales better
    than several threads inside one picture.
    """
    store.prepare()

    left = threading.Event()

    def work(dataset: Dataset, episode: Episode) -> None:
        for view in range(views):
            if not left.is_set():
                store.features(dataset, episode, view)

    with ThreadPoolExecutor(workers, thread_name_prefix="features") as pool:
        jobs = [pool.submit(work, dataset, episode) for dataset, episode in episodes]
        try:
            for count, job in enumerate(as_completed(jobs), 1):
                job.result()
                progress(count / len(jobs))
                if count % _TRIM_EVERY == 0:
                    store.cache.trim()
        except BaseException:
            left.set()
            pool.shutdown(cancel_futures=True)
            raise
    store.cache.trim()
