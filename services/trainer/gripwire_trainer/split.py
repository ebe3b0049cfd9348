"""Which episodes train, which select, which are reported. By episode, never by frame."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gripwire.errors import UserError

MIN_FOLDS, MAX_FOLDS = 3, 5
UNITS = ("auto", "episode", "session")


@dataclass(frozen=True)
class Fold:
    """Indices of episodes. ``train`` sets the weights, ``select`` stops the training, ``report`` is "
    "scored."""

    train: list[int]
    select: list[int]
    report: list[int]


def check_unit(unit: str) -> None:
    """Refuse any split but by episode or session.

    Raises:
        UserError: with the reason.
    """
    if unit not in UNITS:
        raise UserError(
            f"a split by {unit} is refused: neighbouring frames of one episode are nearly the same "
            "picture, so the score would be taken on frames the model has all but seen; use `episode`, "
            "`session` or `auto`"
        )


def choose(
    unit: str, has_success: Sequence[bool], sessions: Sequence[str], seed: int = 0
) -> tuple[list[Fold], str]:
    """The folds, and in words what was held out.

    ``sessions`` has one name per episode, empty where it is not known. `auto` splits by session where that
    holds back enough to learn from: three sessions at least, none with more than half of the episodes, and
    success in every part. Episodes of one session share light and camera, so a split within it flatters a
    little.

    Raises:
        UserError: see :func:`rotate`.
    """
    if unit == "session":
        return rotate(has_success, sessions, seed), f"by session, {len(set(sessions))} of them"
    if unit == "auto" and (found := _sessions_that_will_do(has_success, sessions, seed)):
        return found, f"by session, {len(set(sessions))} of them"
    known = {name for name in sessions if name}
    why = {
        0: "which session each was recorded in is not known",
        1: "all are of one session",
    }.get(len(known), f"the {len(known)} sessions are too few or too unequal to hold any back")
    return rotate(has_success, None, seed), "by episode" + (f": {why}" if unit == "auto" else "")


def _sessions_that_will_do(
    has_success: Sequence[bool], sessions: Sequence[str], seed: int
) -> list[Fold] | None:
    sizes = Counter(sessions)
    if "" in sizes or len(sizes) < MIN_FOLDS or 2 * max(sizes.values()) > len(sessions):
        return None
    if sum(has_success) < MIN_FOLDS:
        return None
    folds = rotate(has_success, sessions, seed)
    enough = all(any(has_success[e] for e in part) for f in folds for part in (f.train, f.select))
    return folds if enough else None


def rotate(has_success: Sequence[bool], sessions: Sequence[str] | None = None, seed: int = 0) -> list[Fold]:
    """Three to five folds in rotation: each is reported once, selects once, and trains otherwise.

    Episodes with success and without are dealt out evenly, so that every fold has its share of both. With
    ``sessions`` (one name per episode, at least three different) whole sessions stay together.

    Raises:
        UserError: too few episodes with success, or too few sessions, to hold any back.
    """
    count = len(has_success)
    successes = sum(has_success)
    if successes < MIN_FOLDS:
        raise UserError(
            f"{successes} episode{'' if successes == 1 else 's'} with success: at least {MIN_FOLDS} are "
            "needed, since some are held "
            "back to stop the training and to report the score; record or label more"
        )
    rng = np.random.default_rng(seed)
    if sessions is not None:
        fold_of, folds = _by_session(sessions, rng)
    else:
        folds = min(MAX_FOLDS, successes)
        fold_of = _by_episode(has_success, folds, rng)
    out = []
    for i in range(folds):
        j = (i + 1) % folds
        train = [e for e in range(count) if fold_of[e] not in (i, j)]
        out.append(
            Fold(
                train,
                [e for e in range(count) if fold_of[e] == j],
                [e for e in range(count) if fold_of[e] == i],
            )
        )
    return out


def _by_episode(has_success: Sequence[bool], folds: int, rng: np.random.Generator) -> dict[int, int]:
    flags = np.asarray(has_success)
    # Failures are dealt on from where the successes ended, so that folds stay equally large.
    order = [*rng.permutation(np.flatnonzero(flags)), *rng.permutation(np.flatnonzero(~flags))]
    return {int(episode): position % folds for position, episode in enumerate(order)}


def _by_session(sessions: Sequence[str], rng: np.random.Generator) -> tuple[dict[int, int], int]:
    names = sorted(set(sessions))
    if len(names) < MIN_FOLDS:
        raise UserError(
            f"a split by session needs at least {MIN_FOLDS} sessions, there are {len(names)}; split by "
            "episode"
        )
    folds = min(MAX_FOLDS, len(names))
    fold_of = {name: i % folds for i, name in enumerate(rng.permutation(names))}
    return {episode: fold_of[name] for episode, name in enumerate(sessions)}, folds
