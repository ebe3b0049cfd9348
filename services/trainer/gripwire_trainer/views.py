"""Where the views that heads learn from lie: in memory, or, where they are whole pictures, on the disk."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from gripwire.errors import no_space


class Views(Protocol):
    """All views (v) of all frames (n), each of ``shape``."""

    count: int
    """v"""
    device: torch.device
    """Where :meth:`take` leaves them."""

    def put(self, start: int, view: int, part: Tensor) -> None:
        """Keep one view of the frames from ``start`` on, (m, *shape)."""

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        """One view (m,) of each row (m,): (m, *shape)."""


class InMemory:
    """Small ones, such as projected features; on the GPU if there is one."""

    def __init__(self, frames: int, views: int, like: Tensor) -> None:
        self.count, self.device = views, _device()
        self._all = torch.empty((frames * views, *like.shape[1:]), dtype=like.dtype, device=self.device)

    def put(self, start: int, view: int, part: Tensor) -> None:
        first = start * self.count + view
        self._all[first : first + len(part) * self.count : self.count] = part.to(self.device)

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        # Copied row by row: indexing in two dimensions takes ten times as long.
        return self._all.index_select(0, (rows * self.count + views).to(self.device))


class OnDisk:
    """Large ones, in a file without a name, which goes with the process. The system keeps in memory what it
    has room for. :meth:`put` raises a ``UserError`` when the disk is full.
    """

    def __init__(self, views: int, like: Tensor, folder: Path) -> None:
        self.count, self.device = views, _device()
        self._shape, self._dtype = like.shape[1:], like.dtype
        self._bytes, self._folder = like[0].nbytes, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # open as long as this lives

    def put(self, start: int, view: int, part: Tensor) -> None:
        for number, one in enumerate(part.numpy()):
            place = ((start + number) * self.count + view) * self._bytes
            try:
                os.pwrite(self._file.fileno(), one.tobytes(), place)
            except OSError as e:
                raise self._full(e) from e

    def take(self, rows: Tensor, views: Tensor) -> Tensor:
        out = torch.empty((len(rows), *self._shape), dtype=self._dtype)
        places = (rows * self.count + views).tolist()
        for one, place in zip(out.numpy(), places, strict=True):
            os.preadv(self._file.fileno(), [one], place * self._bytes)
        return out.to(self.device)

    def _full(self, e: OSError) -> Exception:
        return no_space(self._folder) if e.errno in (errno.ENOSPC, errno.EDQUOT) else e


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
