"""One episode through LeRobot's own writer, into a folder where nothing else can be harmed.

Importing this module imports LeRobot: only the worker does it (lerobot_alone.py says at what price).
"""

import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
from lerobot.configs import RGBEncoderConfig
from lerobot.datasets import dataset_metadata, dataset_writer
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import DEFAULT_EPISODES_PATH, EPISODES_DIR, update_chunk_file_indices

from gripwire_recorder import schema
from gripwire_recorder.picture import Pixels, decode
from gripwire_recorder.store import Incomplete
from gripwire_recorder.take import Picture, Row

log = logging.getLogger(__name__)

av.logging.set_libav_level(av.logging.ERROR)  # x264 prints twenty lines per episode otherwise
cv2.setNumThreads(1)
# LeRobot switches progress bars back on after each table; they stay off here (saver.py).
warnings.filterwarnings("ignore", message="Cannot enable progress bars")

# LeRobot walks over all rows to put images into the table, 2 ms a row: here all pictures are video.
dataset_writer.embed_images = lambda table: table

_QUEUE = 30


def _last_episode(root: Path) -> list[dict[str, Any]]:
    """What LeRobot's metadata say of the last episode, which is all that it asks for to add another.

    It would load those of all episodes, statistics included: 45 ms of CPU for each, whenever one begins.
    """
    path = max((root / EPISODES_DIR).glob("*/*.parquet"))
    columns = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
    return list(pq.read_table(path, columns=columns).to_pylist()[-1:])


dataset_metadata.load_episodes = _last_episode


class EpisodeWriter:
    """Adds one episode to the dataset in ``root`` (created when it does not exist there).

    ``sizes``: height and width of each camera's pictures.
    """

    def __init__(
        self, root: Path, name: str, task: str, fps: int, crf: float, sizes: dict[str, tuple[int, int]]
    ) -> None:
        self._root, self._task = root, task
        self._cameras = tuple(sizes)
        self._rows = 0
        self._last: dict[str, tuple[Picture, Pixels]] = {}
        self.unreadable = 0
        # Measured at 640x480 and CRF 18 on two cores: `ultrafast` costs 4 ms of CPU a picture (`veryfast` 11,
        # AV1 13 at a worse picture), 11 KB at 42.8 dB (8 KB at 42.4): it must keep up beside a training.
        # A key picture every second frame keeps random access cheap for training.
        encoder = RGBEncoderConfig(vcodec="h264", crf=crf, preset="ultrafast", g=2)
        options: dict[str, Any] = {
            "rgb_encoder": encoder, "streaming_encoding": True, "encoder_queue_maxsize": _QUEUE,
            "encoder_threads": 1, "video_backend": "pyav",
        }  # fmt: skip
        if root.exists():
            # A dataset that was just resumed begins new files, so nothing saved is ever written again.
            self._dataset = LeRobotDataset.resume(name, root=root, **options)
            self._check_new_files()
        else:
            self._dataset = LeRobotDataset.create(
                name, fps, schema.features(sizes), root=root, robot_type=schema.ROBOT_TYPE, **options
            )
        self.episode = int(self._dataset.meta.total_episodes)

    def _check_new_files(self) -> None:
        """The files that LeRobot will write next must not exist: they are hard links to saved ones."""
        meta = self._dataset.meta
        last = meta.episodes[-1]
        targets: list[tuple[str, str, dict[str, str]]] = [
            ("data", meta.data_path, {}),
            ("meta/episodes", DEFAULT_EPISODES_PATH, {}),
        ]
        targets += [(f"videos/{key}", str(meta.video_path), {"video_key": key}) for key in meta.video_keys]
        for column, path, extra in targets:
            chunk, file = update_chunk_file_indices(
                last[f"{column}/chunk_index"], last[f"{column}/file_index"], meta.chunks_size
            )
            target = self._root / path.format(chunk_index=chunk, file_index=file, **extra)
            if target.exists():
                found = target.relative_to(self._root)
                raise Incomplete(f"its last episode is not in its last file ({found}); name another dataset")

    def add(self, row: Row) -> None:
        """Append a row. The picture before stands in for one that cannot be decoded, in the columns too."""
        frame: dict[str, Any] = {"observation.state": row.state, "action": row.action, "task": self._task}
        for camera in self._cameras:
            picture, pixels = self._decode(camera, row.pictures[camera])
            if picture is None:
                return  # not one readable picture so far: the episode begins with the first
            frame[schema.image_key(camera)] = pixels
            frame |= self._columns(camera, picture, row)
        frame |= _row_columns(row)
        self._wait_for_encoder()
        self._dataset.add_frame(frame)
        self._rows += 1

    def _columns(self, camera: str, picture: Picture, row: Row) -> dict[str, Any]:
        values: dict[str, tuple[Any, float]] = {
            "t_capture": (np.int64, picture.t_capture),
            "seq": (np.int64, picture.seq),
            "exposure": (np.int64, picture.exposure),
            "skew_ms": (np.float32, (picture.t_capture - row.time) / 1e6),
            "gap_ms": (np.float32, row.gap_ms[camera]),
        }
        return {schema.column(camera, name): np.array([x], kind) for name, (kind, x) in values.items()}

    def _decode(self, camera: str, picture: Picture) -> tuple[Picture | None, Pixels | None]:
        known = self._last.get(camera)
        if known and known[0] is picture:
            return known
        pixels = decode(picture)
        if pixels is None:
            self.unreadable += 1
            return known or (None, None)
        self._last[camera] = (picture, pixels)
        return picture, pixels

    def _wait_for_encoder(self) -> None:
        """LeRobot drops the picture but keeps the row when its queue stays full for 0.1 s, and every later
        row then shows the wrong picture: so wait here, where there is time."""
        encoder = self._dataset.writer._streaming_encoder
        for key, queue in encoder._frame_queues.items():
            while queue.full() and encoder._threads[key].is_alive():
                time.sleep(0.005)

    def finish(self, summary: dict[str, Any]) -> int:
        """Save, close every file and verify; the number of rows.

        Raises:
            Incomplete: rows or pictures are missing from what was written.
        """
        if self._rows < 2:  # of a single picture LeRobot computes no statistics, and such a dataset breaks
            raise Incomplete("it is too short: fewer than two rows")
        self._dataset.writer.episode_buffer["next.done"][-1] = np.array([True])
        dropped = sum(self._dataset.writer._streaming_encoder._dropped_frames.values())
        self._dataset.save_episode()
        self._dataset.finalize()
        if dropped:
            raise Incomplete(f"the encoder lost {dropped} pictures")
        self._verify()
        # Not appended in place: after a copy the file may still share its bytes with the saved dataset.
        notes = self._root / "meta" / "gripwire.jsonl"
        before = notes.read_text() if notes.exists() else ""
        notes.unlink(missing_ok=True)
        notes.write_text(before + json.dumps({"episode": self.episode, "rows": self._rows, **summary}) + "\n")
        return self._rows

    def _verify(self) -> None:
        """Read back what a reader of the dataset needs: footers, row count, every video's first and last
        picture."""
        meta, latest = self._dataset.meta, self._dataset.meta.latest_episode

        def place(key: str) -> dict[str, int]:
            return {name: latest[f"{key}/{name}"][0] for name in ("chunk_index", "file_index")}

        rows = pq.read_metadata(self._root / meta.data_path.format(**place("data"))).num_rows
        if rows != self._rows:
            raise Incomplete(f"{rows} of {self._rows} rows were written")
        pq.read_metadata(self._root / DEFAULT_EPISODES_PATH.format(**place("meta/episodes")))
        for key in meta.video_keys:
            path = str(meta.video_path).format(video_key=key, **place(f"videos/{key}"))
            self._verify_video(key, self._root / path)

    def _verify_video(self, key: str, path: Path) -> None:
        with av.open(str(path)) as container:
            times = [packet.pts or 0 for packet in container.demux(video=0) if packet.size > 0]
        if len(times) != self._rows:
            raise Incomplete(f"{len(times)} of {self._rows} pictures of {key} were written")
        with av.open(str(path)) as container:
            if next(container.decode(video=0), None) is None:
                raise Incomplete(f"the first picture of {key} does not decode")
            container.seek(max(t for t in times if t is not None), stream=container.streams.video[0])
            last = max(
                (frame.pts for frame in container.decode(video=0) if frame.pts is not None), default=None
            )
            if last != max(t for t in times if t is not None):
                raise Incomplete(f"the last picture of {key} does not decode")

    def abandon(self) -> None:
        """Stop writing; the folder may be removed afterwards."""
        try:
            self._dataset.writer.cancel_pending_videos()
            self._dataset.finalize()
        except Exception as e:  # the disk may be full here too, and what it writes is thrown away
            log.debug("while abandoning: %s", e)


def _row_columns(row: Row) -> dict[str, Any]:
    """What a row says beside pictures and joints; without a valid reward the probability is -1."""
    judged = row.reward if row.reward is not None and row.reward.valid else None
    probability = judged.probability if judged and judged.probability is not None else -1.0
    values: dict[str, float] = {
        "next.reward": float(judged is not None and judged.decision),
        "next.done": False,  # of the last row: finish()
        "gripwire.state.gap_ms": row.gap_ms["state"],
        "gripwire.intervention": int(row.intervention),
        "gripwire.verdict": row.verdict,
        "gripwire.reward.probability": probability,
        "gripwire.reward.logit": judged.logit if judged and judged.logit is not None else 0.0,
        "gripwire.reward.epoch": judged.epoch if judged else -1,
    }
    return {name: np.array([value], schema.PER_ROW[name]) for name, value in values.items()}
