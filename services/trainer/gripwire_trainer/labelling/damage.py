"""What is wrong with a dataset's files, as far as footers and headers tell: nothing is decoded."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gripwire_reward.datasets import Dataset, Episode

_REMEDY = "leave {} out or copy the dataset again"
_RATE_SLACK = 0.05


def damage(dataset: Dataset, numbers: Iterable[int]) -> list[str]:
    """What would stop these episodes from being read, one sentence for each thing that is wrong.

    Rows: the file is there, has its footer and as many rows of the episode as the description says. Videos:
    the file is there, opens, has the described size and rate, and a picture for every row.
    """
    episodes = [dataset.episodes[number] for number in numbers]
    by_rows: dict[Path, list[Episode]] = defaultdict(list)
    by_video: dict[tuple[Path, str], list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_rows[episode.data].append(episode)
        for key, part in episode.videos.items():
            by_video[part.path, key].append(episode)
    found = [line for file, group in by_rows.items() for line in _rows(file, group)]
    for (file, key), group in by_video.items():
        found += _video(file, key, group, dataset)
    return found


def _rows(file: Path, episodes: list[Episode]) -> Iterator[str]:
    which = _which(episodes)
    if not file.is_file():
        yield f"{file}: the rows of {which} are missing; {_REMEDY.format('that')}"
        return
    try:
        column = pq.read_table(file, columns=["episode_index"])["episode_index"].to_numpy()
    except (OSError, KeyError, pa.ArrowException) as e:
        said = str(e).splitlines()[0].split("': ")[-1][:120]  # without the path, which stands there already
        yield f"{file}: the rows of {which} cannot be read ({said}); {_REMEDY.format('that')}"
        return
    for episode in episodes:
        count = int(np.count_nonzero(column == episode.index))
        if count != episode.length:
            yield (
                f"{file}: episode {episode.index} has {count} rows, its description says {episode.length}; "
                + _REMEDY.format("that episode")
            )


def _video(file: Path, key: str, episodes: list[Episode], dataset: Dataset) -> Iterator[str]:
    which = _which(episodes)
    if not file.is_file():
        yield f"{file}: the video of {which} is missing; {_REMEDY.format('that')}"
        return
    try:
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            size, rate = (stream.height, stream.width), float(stream.average_rate or dataset.fps)
            whole = _reaches_the_end(container, stream, key, episodes, dataset)
            times = None if whole else _times(container)
    except (av.FFmpegError, IndexError) as e:
        said = getattr(e, "strerror", None) or "no video in it"
        yield f"{file}: the video of {which} cannot be opened ({said}); {_REMEDY.format('that')}"
        return
    if size != dataset.cameras[key]:
        height, width = dataset.cameras[key]
        yield (
            f"{file}: a video of {size[1]}x{size[0]}, the description says {width}x{height}; "
            "copy the dataset again"
        )
    if abs(rate - dataset.fps) > _RATE_SLACK * dataset.fps:
        yield (
            f"{file}: a video of {rate:g} frames per second beside rows at {dataset.fps:g}: "
            "pictures and rows do not match; record it again"
        )
        return
    if times is None:
        return
    for episode in episodes:
        count = _pictures(times, episode, key, dataset.fps)
        if count < episode.length:
            yield (
                f"{file}: episode {episode.index}: the video has {count} frames for {episode.length} rows; "
                + _REMEDY.format("that episode")
            )


def _reaches_the_end(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    key: str,
    episodes: list[Episode],
    dataset: Dataset,
) -> bool:
    """Whether nothing is missing by the header's count and the file's own last packets.

    The header alone does not tell: of a copy that broke off it still promises all frames.
    """
    if 0 < stream.frames < sum(e.length for e in episodes):
        return False
    last = max(e.videos[key].start_s + (e.length - 1) / dataset.fps for e in episodes)
    container.seek(int(last * av.time_base), backward=True)
    end = max(_times(container, rewind=False), default=-1.0)
    return bool(end >= last - 0.5 / dataset.fps)


def _times(container: av.container.InputContainer, rewind: bool = True) -> list[float]:
    """The times in seconds of all packets that are there whole, from the present place or from the start."""
    if rewind:
        container.seek(0)
    packets = container.demux(video=0)
    return [float(p.pts * p.time_base) for p in packets if p.size and p.pts is not None and not p.is_corrupt]


def _pictures(times: list[float], episode: Episode, key: str, fps: float) -> int:
    first = episode.videos[key].start_s - 0.5 / fps
    return sum(first <= time < first + episode.length / fps for time in times)


def _which(episodes: list[Episode]) -> str:
    """Names the episodes of one file: `episode 3`, `episodes 3 to 9` or `episodes 0, 1, 4`."""
    numbers = sorted(e.index for e in episodes)
    if len(numbers) == 1:
        return f"episode {numbers[0]}"
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"episodes {numbers[0]} to {numbers[-1]}"
    return f"episodes {', '.join(map(str, numbers))}"
