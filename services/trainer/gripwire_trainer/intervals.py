"""How far a figure of few episodes can be believed: its 95 % interval."""

import math

import numpy as np
from numpy.typing import NDArray

from gripwire_reward.bundle import Metric

ROUNDS = 200


def draws(episodes: int, rounds: int = ROUNDS) -> NDArray[np.float64]:
    """How often each episode counts, (1 + rounds, episodes).

    In the first row all count once; the others are drawn with replacement, the same at every call. Whole
    episodes are drawn, because the frames of one are not independent.
    """
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=rounds)
    return np.vstack([np.ones(episodes), drawn])


def interval(values: NDArray[np.floating], episodes: int) -> Metric:
    """A figure (the first of ``values``) and the middle 95 % of what it was in the episodes drawn.

    ``values`` are those of the rows of :func:`draws`. Draws without a value, such as those that took no
    episode with success, are left out.
    """
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn if len(drawn) else values[:1], [2.5, 97.5])
    return Metric(value=float(values[0]), low=float(low), high=float(high), episodes=episodes)


def share_with_bound(hits: int, of: int) -> Metric:
    """A share of episodes with its exact one-sided 95 % upper bound (Clopper-Pearson): none in 20 proves
    only a rate below 13.9 %."""
    if of == 0:
        return Metric(value=0.0, low=0.0, high=1.0, episodes=0)
    low, high = hits / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(hits, of, middle) > 0.05 else (low, middle)
    return Metric(value=hits / of, low=0.0, high=high, episodes=of)


def _at_most(hits: int, of: int, rate: float) -> float:
    """Probability of at most so many hits, by logarithms: thousands of episodes overflow the factors."""
    if rate >= 1:
        return float(hits >= of)
    i = np.arange(hits + 1)
    ways = np.array([math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) for k in i.tolist()])
    return float(np.exp(ways + i * math.log(max(rate, 1e-300)) + (of - i) * math.log1p(-rate)).sum())
