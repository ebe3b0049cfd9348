"""Videos are taken as they are: LeRobot must find the picture of row i at its start plus i / rate.

Where a file's time stamps are elsewhere (a camera whose frames came when they came), its pictures are copied
without decoding them, under even stamps. Only pictures that are to be cropped are encoded again.
"""

import errno
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_reward.datasets import Dataset, Episode

_TOLERANCE_S = 5e-5
"""Half of LeRobot's own, which also has to bear its rounding."""

_RATE_SLACK = 0.05
_TICKS = 1024
"""Of the clock of a copied video, per picture."""

_ENCODING = {"crf": "16", "g": "10", "bf": "0"}
"""Close to the original, and cheap to read from any place."""

Times = NDArray[np.float64]


def picture_times(video: Path, where: str) -> Times:
    """When the file's pictures are shown, in seconds and in order, (n,).

    Raises:
        UserError: it cannot be opened, or its pictures have no time stamps.
    """
    try:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stamps = [packet.pts for packet in _pictures(container, stream)]
            second = stream.time_base
    except (av.FFmpegError, IndexError) as e:
        said = getattr(e, "strerror", None) or "no video in it"
        raise UserError(
            f"{where}: the video cannot be opened ({said}); copy the dataset again or leave that episode out"
        ) from e
    known = [stamp for stamp in stamps if stamp is not None]
    if not known or len(known) < len(stamps) or second is None:
        raise UserError(f"{where}: its pictures have no time stamps; record it again")
    return np.sort(np.array(known) * float(second))


def first_picture(times: Times, dataset: Dataset, episode: Episode, key: str, where: str) -> int:
    """Which of the file's pictures is that of the episode's first row.

    Raises:
        UserError: there are fewer pictures than rows, or they are of another rate.
    """
    start = episode.videos[key].start_s - 0.5 / dataset.fps
    first = int(np.searchsorted(times, start))
    have = len(times) - first
    if have < episode.length:
        raise UserError(
            f"{where}: the video ends after {have} frames, there are {episode.length} rows; "
            "leave that episode out or record it again"
        )
    shown = times[first : first + episode.length]
    rate = (len(shown) - 1) / (shown[-1] - shown[0]) if len(shown) > 1 else dataset.fps
    if abs(rate - dataset.fps) > _RATE_SLACK * dataset.fps:
        raise UserError(
            f"{where}: a video of {rate:.3g} frames per second beside rows at {dataset.fps:g}: pictures "
            "and rows do not match; leave that episode out or record it again"
        )
    return first


def is_even(shown: Times, fps: float) -> bool:
    """Whether LeRobot finds each of an episode's pictures by its row's time stamp."""
    due = shown[0] + np.arange(len(shown)) / fps
    return bool(np.abs(shown - due).max() < _TOLERANCE_S)


def copy(source: Path, to: Path) -> None:
    """Copy a file's bytes.

    Raises:
        UserError: the source cannot be opened. OSError: ``to`` cannot be written.
    """
    try:
        file = source.open("rb")
    except OSError as e:
        raise UserError(f"{source}: cannot be read ({e.strerror}); check its permissions") from e
    with file, to.open("wb") as out:
        shutil.copyfileobj(file, out, 2**20)


def copy_evenly(source: Path, to: Path, fps: float) -> None:
    """Copy a video's pictures, still encoded, under even time stamps: picture i at i / ``fps``.

    All of them must have a time stamp: see :func:`picture_times`.
    """
    clock = 1 / (Fraction(fps).limit_denominator(1001) * _TICKS)
    with av.open(str(source)) as container:
        stamps = [packet.pts or 0 for packet in _pictures(container, container.streams.video[0])]
    place = {stamp: i for i, stamp in enumerate(sorted(stamps))}
    # A picture that others refer to is decoded before it is shown: by so many places at most.
    lead = max(i - place[stamp] for i, stamp in enumerate(stamps))
    with av.open(str(source)) as container, av.open(str(to), "w", format="mp4") as out:
        stream = container.streams.video[0]
        target = out.add_stream_from_template(stream, opaque=True)
        for i, (packet, stamp) in enumerate(zip(_pictures(container, stream), stamps, strict=True)):
            packet.stream, packet.time_base, packet.duration = target, clock, _TICKS
            packet.pts, packet.dts = place[stamp] * _TICKS, (i - lead) * _TICKS
            out.mux(packet)


def encode(shown: Sequence[NDArray[np.uint8]], to: Path, fps: float) -> None:
    """Write pictures, (h, w, 3) uint8 RGB each, as a new H.264 video that decodes to nearly the same."""
    height, width = shown[0].shape[:2]
    with av.open(str(to), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=_ENCODING)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in shown:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())


def raise_if_full(error: av.FFmpegError, file: Path) -> None:
    """Pass on what the disk said while ``file`` was written.

    Raises:
        OSError: it was the disk.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(error.errno, error.strerror, str(file)) from error


def _pictures(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """One at a time: a file may be larger than the memory."""
    return (packet for packet in container.demux(stream) if packet.size and not packet.is_corrupt)
