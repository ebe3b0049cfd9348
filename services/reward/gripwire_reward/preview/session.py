"""What the preview does between two moments: the threshold, the video, and the keys for both."""

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gripwire import control
from gripwire.errors import UserError
from gripwire.files import make_folder
from gripwire.messages import Override
from gripwire.settings import Settings
from gripwire_reward.preview.feed import Feed, Shown
from gripwire_reward.preview.picture import draw

STEP = 0.01
_WAIT_S = 0.2


class Session:
    """Draws one moment after the other; :meth:`press` takes keys, from any thread's queue of them."""

    def __init__(self, settings: Settings, feed: Feed, threshold: float | None = None) -> None:
        self._settings, self._feed = settings, feed
        self.threshold = threshold
        self.said = ""
        self.ended = False
        self._video: Video | None = None

    def frame(self) -> tuple[Shown, NDArray[np.uint8]] | None:
        """The next moment and its picture (h, w, 3) RGB; None when none came for a while."""
        shown = self._feed.next(_WAIT_S)
        if shown is None:
            return None
        if self.threshold is None:
            self.threshold = shown.reward.threshold
        picture = draw(shown, self.threshold, self._video is not None)
        if self._video is not None:
            self._video.add(picture)
        return shown, picture

    def press(self, key: str) -> None:
        """`+`, `-`, `s`, `v` or `q`; others do nothing."""
        if key in ("+", "=", "-") and self.threshold is not None:
            step = -STEP if key == "-" else STEP
            self.threshold = round(min(0.99, max(0.01, self.threshold + step)), 2)
            self.said = f"threshold {self.threshold:.2f}, here only: s has the service use it"
        elif key == "s" and self.threshold is not None:
            self.said = self._set()
        elif key == "v":
            self.said = self._toggle_video()
        elif key == "q":
            self.ended = True

    def _set(self) -> str:
        change = Override(threshold=self.threshold)
        try:
            control.request(self._settings.topics.control("reward"), "reward", change, timeout_s=2.0)
        except UserError as e:
            return str(e)
        return f"the service decides at {self.threshold:.2f} from now on; `reward override --clear` undoes it"

    def _toggle_video(self) -> str:
        if self._video is not None:
            path = self._video.close()
            self._video = None
            return f"written: {path}"
        folder = self._settings.data / "runs" / "preview"
        make_folder(folder)
        self._video = Video(folder / f"{time.strftime('%Y%m%d-%H%M%S')}.mp4")
        return "recording; v ends it"

    def close(self) -> None:
        if self._video is not None:
            self.said = self._toggle_video()
        self._feed.close()


class Video:
    """An H.264 file whose pictures keep the times at which they came."""

    def __init__(self, path: Path) -> None:
        import av

        self._path, self._begun = path, time.monotonic()
        self._out = av.open(str(path), "w")
        self._stream: Any = None
        self._last = -1

    def add(self, picture: NDArray[np.uint8]) -> None:
        import av

        height, width = (side - side % 2 for side in picture.shape[:2])  # the codec wants even sides
        if self._stream is None:
            self._stream = self._out.add_stream("libx264", rate=30)
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, 1000)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        self._last = max(self._last + 1, round((time.monotonic() - self._begun) * 1000))
        frame.pts, frame.time_base = self._last, Fraction(1, 1000)
        self._out.mux(self._stream.encode(frame))

    def close(self) -> Path:
        if self._stream is not None:
            self._out.mux(self._stream.encode())
        self._out.close()
        return self._path
