"""The preview in a window of its own, where there is a display (Tk: OpenCV's headless build has none)."""

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def possible() -> bool:
    """Whether a window can be opened here."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        import tkinter

        tkinter.Tk().destroy()
    except Exception:  # no Tk in this Python, or no display after all
        return False
    return True


class Window:
    """Shows pictures and gathers keys."""

    def __init__(self) -> None:
        import tkinter

        self._root = tkinter.Tk()
        self._root.title("gripwire reward preview")
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()
        self._keys: list[str] = []
        self._root.bind("<Key>", lambda event: self._keys.append(event.char))
        self._root.protocol("WM_DELETE_WINDOW", lambda: self._keys.append("q"))
        self._image: Any = None

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Draw a picture (h, w, 3) RGB."""
        import tkinter

        height, width = picture.shape[:2]
        self._image = tkinter.PhotoImage(data=b"P6 %d %d 255 " % (width, height) + picture.tobytes())
        self._label.configure(image=self._image)

    def pressed(self) -> list[str]:
        """Keys since the last call."""
        self._root.update()
        keys, self._keys = self._keys, []
        return keys

    def title(self, text: str) -> None:
        self._root.title(f"gripwire reward preview: {text}" if text else "gripwire reward preview")

    def close(self) -> None:
        self._root.destroy()
