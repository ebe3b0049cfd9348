"""Frames of episodes as picture files, as the model sees them, with a contact sheet for each episode."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire.files import folder_whole, write_whole
from gripwire_reward.datasets import frames
from gripwire_reward.preprocess import crop_and_resize
from gripwire_trainer.labelling.contact_sheet import MOST, Tile, contact_sheet, small
from gripwire_trainer.labelling.doubt import nth
from gripwire_trainer.labelling.wanted_frames import Wanted

_FRAME_FILE = re.compile(r"frame_\d+\.jpg|\.DS_Store|Thumbs\.db")
_QUALITY, _SHEET_QUALITY = 95, 88


def refuse_existing(out: Path, wanted: Sequence[Wanted], replace: bool) -> None:
    """Refuse to write over what is there, or into a folder that is for something else.

    Raises:
        UserError: saying what is in the way.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, not a folder; choose another --out")
    there = [w for w in wanted if os.path.lexists(w.folder) or os.path.lexists(w.sheet)]
    if there and not replace:
        names = there[0].folder.name + (f" and {len(there) - 1} more" if len(there) > 1 else "")
        raise UserError(
            f"{out} has {names} already; choose another --out, other --episodes, or add --replace "
            "to write these episodes anew"
        )
    if not there and not replace and _is_foreign(out, wanted):
        raise UserError(f"{out} holds other things; choose a new or empty folder for --out")
    for w in there:
        for path in w.folder.rglob("*") if w.folder.is_dir() else ():
            if not _FRAME_FILE.fullmatch(path.name):
                raise UserError(
                    f"{path} is not a frame of this command's; move it elsewhere before --replace"
                )


def _is_foreign(out: Path, wanted: Sequence[Wanted]) -> bool:
    """Not empty, and without a single sheet where this command would put one."""
    sheets = (sheet for w in wanted for sheet in w.folder.parent.glob("episode_??????.jpg"))
    return out.is_dir() and any(out.iterdir()) and not any(sheets)


def extract(wanted: Sequence[Wanted], every: int, done: Callable[[], object]) -> Iterator[int]:
    """Write each episode's every ``every``-th frame; yields how many that were. ``done``: a frame was read.

    An episode's folder appears whole or not at all, beside its sheet. One that was there is replaced.

    Raises:
        UserError: a video that cannot be read, or a disk that is full.
    """
    for w in wanted:
        fresh = w.folder.with_name(f".{w.folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            with folder_whole(fresh) as aside:
                tiles = list(_write_frames(w, every, aside, done))
                write_whole(w.sheet, _jpeg(contact_sheet(_title(w, every), tiles), _SHEET_QUALITY))
            shutil.rmtree(w.folder, ignore_errors=True)
            fresh.rename(w.folder)
        except OSError as e:
            raise UserError(f"{w.folder}: cannot be written ({e.strerror or e}); check that folder") from e
        yield len(tiles)


def _write_frames(w: Wanted, every: int, folder: Path, done: Callable[[], object]) -> Iterator[Tile]:
    for index, image in enumerate(frames(w.dataset, w.episode, w.contract.key)):
        done()
        if index % every == 0:
            picture = crop_and_resize(image, w.contract)
            (folder / f"frame_{index:06d}.jpg").write_bytes(_jpeg(picture, _QUALITY))
            yield Tile(index, small(picture), w.success is not None and bool(w.success[index]))


def _title(w: Wanted, every: int) -> str:
    step = every * ceil(ceil(w.episode.length / every) / MOST)
    marks = "" if w.success is None else "   green: labelled success"
    frames_ = f"frames 0 to {w.episode.length - 1}" + (f", every {nth(step)}" if step > 1 else "")
    return f"{w.dataset.path.name}   episode {w.episode.index}   {frames_}{marks}"


def _jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()
