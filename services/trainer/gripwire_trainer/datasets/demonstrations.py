"""Episodes as transitions for reinforcement learning from demonstrations, the way HIL-SERL records them.

A row is a step: what was seen, the action that was then taken, and what came of it. `next.reward` is 1 and
`next.done` true where the *next* picture is the first to show success; there the episode ends, as it would
have ended while the policy learns. An episode without success ends, done, with its last row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gripwire.errors import UserError
from gripwire_trainer.labelling.wanted_frames import numbers
from gripwire_trainer.labels import Source

SUCCESSFUL = "successful"

Chosen = Callable[[Source, int, NDArray[np.bool_]], bool]


@dataclass(frozen=True)
class Demonstrations:
    """Which labelled episodes: all, or as told by `SOURCE:0,3,7-9` (or `0,3,7-9`, or `successful`) each.

    With a ``size``, pictures are cropped to ``crop`` (top, left, height, width; the largest central square)
    and resized to that many pixels either way, as a policy sees them.
    """

    told: Sequence[str] = ()
    size: int | None = None
    crop: tuple[int, int, int, int] | None = None

    def choose(self, sources: Sequence[Source]) -> Chosen:
        """A test for what was asked for.

        Raises:
            UserError: it names a source or an episode that is not there.
        """
        if not self.told:
            return lambda *_: True
        wanted: set[tuple[Path, int]] = set()
        successful: set[Path] = set()
        for text in self.told:
            name, _, which = text.rpartition(":")
            for source in _named(name, sources, text):
                if which.strip() == SUCCESSFUL:
                    successful.add(source.file)
                else:
                    wanted |= {(source.file, number) for number in _known(which, source)}
        return lambda source, number, success: (
            (source.file, number) in wanted or (source.file in successful and bool(success.any()))
        )

    def transitions(
        self, success: NDArray[np.bool_], file: Path, number: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reward and done of each row that is kept, (n,) each; n is at most the length of ``success``.

        Raises:
            UserError: the episode begins in success, so no step leads there.
        """
        if success[0]:
            raise UserError(
                f"{file}: episode {number} shows success from its first frame, so none of its steps leads "
                "there; leave it out with --episodes"
            )
        kept = int(success.argmax()) or len(success)
        reward, done = np.zeros(kept, np.float32), np.zeros(kept, bool)
        reward[-1], done[-1] = float(success.any()), True
        return reward, done


def _named(name: str, sources: Sequence[Source], text: str) -> Sequence[Source]:
    if not name:
        if len(sources) > 1 and text.strip() != SUCCESSFUL:
            raise UserError(
                f"--episodes {text}: there are {len(sources)} sources; say of which, such as "
                f"{sources[0].file.stem}:{text}"
            )
        return sources
    found = [source for source in sources if name in (source.file.stem, source.file.name)]
    if not found:
        have = ", ".join(source.file.stem for source in sources)
        raise UserError(f"--episodes {text}: no source {name}; there are {have}")
    return found


def _known(which: str, source: Source) -> list[int]:
    found = numbers(which)
    for number in found:
        if number not in source.episodes:
            raise UserError(
                f"--episodes: {source.file} has no label for episode {number}; label it or leave it out"
            )
    return found
