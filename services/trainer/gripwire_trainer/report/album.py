"""The report's pictures: frames judged most wrongly, and labels to doubt, as the model saw them."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from gripwire_trainer.disagreement import Doubtful, Place
from gripwire_trainer.figures import Judged
from gripwire_trainer.runs import runs

Pictures = Callable[[str], NDArray[np.uint8]]
"""An episode's frames by its name, (n, H, W, 3) uint8 RGB."""

WORST, SHOWN, LISTED = 24, 15, 75
"""So many wrong frames, doubtful labels with pictures, and doubtful labels in all are on the page."""


@dataclass(frozen=True)
class Album:
    """The frames to show. ``marks``: the id of each episode's timeline on the page."""

    judged: Sequence[Judged]
    doubts: Sequence[Doubtful]
    marks: Mapping[str, str]
    jpegs: Mapping[tuple[str, int], bytes]
    by_name: Mapping[str, Judged]

    def figure(self, name: str, frame: int, caption: str, asked: bool = False) -> str:
        """One frame over its caption (HTML), underlined in the colour of success where so labelled."""
        source = f"data:image/jpeg;base64,{base64.b64encode(self.jpegs[name, frame]).decode()}"
        look = ' class="yes"' if self.by_name[name].success[frame] else ""
        text = f"{html.escape(name)}, frame {frame}"
        return (
            f'<figure{" class=asked" if asked else ""}><img{look} src="{source}" alt="{text}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def fill(
    judged: Sequence[Judged], found: Sequence[Doubtful], marks: Mapping[str, str], pictures: Pictures
) -> Album:
    """Read what is to be shown, episode by episode: all of them together would fill the memory."""
    by_name = {e.name: e for e in judged}
    wanted: dict[str, set[int]] = {}
    for e, frame in worst_frames(judged):
        wanted.setdefault(e.name, set()).add(frame)
    for d in found[:SHOWN]:
        wanted.setdefault(d.episode, set()).update(borders(d, len(by_name[d.episode].success)))
    jpegs = {}
    for name, numbers in wanted.items():
        read = pictures(name)
        jpegs |= {(name, frame): _jpeg(read[frame]) for frame in numbers}
    return Album(judged, found, marks, jpegs, by_name)


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    shown = np.ascontiguousarray(picture[..., ::-1])
    _, coded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return coded.tobytes()


def worst_frames(judged: Sequence[Judged], limit: int = WORST) -> list[tuple[Judged, int]]:
    """Of every run of wrong frames the most wrong one, the most confident mistakes first."""
    found = []
    for e in judged:
        wrong = ~e.right & e.counted
        gap = np.abs(e.probability - e.success)
        for mask in (wrong & e.success, wrong & ~e.success):
            for first, last in runs(mask):
                frame = first + int(gap[first : last + 1].argmax())
                found.append((float(gap[frame]), e, frame))
    return [(e, frame) for _, e, frame in sorted(found, key=lambda w: -w[0])[:limit]]


def worst(album: Album) -> str:
    """The gallery of :func:`worst_frames`."""
    found = worst_frames(album.judged)
    if not found:
        return "<p>None: every frame that counts is on the right side of the threshold.</p>"
    faces = []
    for e, frame in found:
        unknown = "" if e.valid[frame] else ", not valid"
        caption = (
            f'<a href="#{album.marks[e.name]}">{html.escape(e.name)}</a><br>frame {frame}{unknown}<br>'
            f"said <b>{said(e, frame)}</b>, label <b>{verdict(bool(e.success[frame]))}</b>"
        )
        faces.append(album.figure(e.name, frame, caption))
    return f'<div class="faces">{"".join(faces)}</div>'


def doubts(album: Album) -> str:
    """Doubtful labels, the first of them with the frames on either side of their borders."""
    found = album.doubts
    if not found:
        return "<p>None: no frame that counts was judged against its label.</p>"
    out = [_doubt(number, d, album) for number, d in enumerate(found[:SHOWN], 1)]
    if rest := found[SHOWN:LISTED]:
        lines = "".join(f"<li>{html.escape(d.episode)}, {frames(d)}: {advice(d)}</li>" for d in rest)
        out.append(f'<h3>Further down the list</h3><ol class="rest" start="{SHOWN + 1}">{lines}</ol>')
    if more := len(found) - LISTED:
        out.append(f"<p>And {more} more, with less evidence.</p>" if more > 0 else "")
    return "".join(out)


def _doubt(number: int, d: Doubtful, album: Album) -> str:
    e = album.by_name[d.episode]
    strip = [
        album.figure(
            d.episode, frame, f"{frame}: {verdict(bool(e.success[frame]))}<br>said {said(e, frame)}",
            asked=d.first <= frame <= d.last,
        )
        for frame in borders(d, len(e.success))
    ]  # fmt: skip
    return (
        f'<div class="doubt"><div><h3>{number}. {frames(d).capitalize()}</h3>'
        f'<p><a href="#{album.marks[d.episode]}">{html.escape(d.episode)}</a></p><p>{advice(d)}</p>'
        f'<p class="soft">Labelled {verdict(d.success)}; the head said {d.probability:.2f} on average '
        f"(evidence {d.evidence:.1f}).</p></div>"
        f'<div class="strip">{"".join(strip)}</div></div>'
    )


def borders(d: Doubtful, count: int) -> list[int]:
    """Up to five frames that tell: the last before the run, its first, middle and last, and the next."""
    wanted = {d.first - 1, d.first, (d.first + d.last) // 2, d.last, d.last + 1}
    return sorted(frame for frame in wanted if 0 <= frame < count)


def frames(d: Doubtful) -> str:
    """`frames 10 to 14`."""
    return f"frame {d.first}" if d.first == d.last else f"frames {d.first} to {d.last}"


def advice(d: Doubtful) -> str:
    """What in the label would have to change if the head is right."""
    if d.move and d.place is Place.START:
        return f"Success begins at {d.move[0]} by the label; the head says at <b>{d.move[1]}</b>. Move it?"
    if d.move and d.place is Place.END:
        return (
            f"Success lasts to {d.move[0]} by the label; the head says to <b>{d.move[1]}</b>. Move the end?"
        )
    if d.place is Place.RANGE:
        return "The head sees no success in this whole range. Is there any?"
    if d.place is Place.GAP:
        return "The head sees success in all that lies between two ranges. Are they one?"
    if d.success:
        return "The head sees a failure inside a range of success. Was the grasp lost?"
    return "The head sees success where none is labelled, away from any. Was there any?"


def said(e: Judged, frame: int) -> str:
    """A probability as HTML, never rounded to a certainty that it is not."""
    p = float(e.probability[frame])
    return "&lt; 0.001" if p < 0.001 else "&gt; 0.999" if p > 0.999 else f"{p:.3f}"


def verdict(success: bool) -> str:
    return "success" if success else "failure"
