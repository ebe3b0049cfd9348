"""What is worse than what serves is not offered."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gripwire_trainer import compare, job
from gripwire_trainer.figures import Judged
from gripwire_trainer.settings import TrainerSettings
from tests.trainer import synthetic


def _episode(name: str, onset: int | None, wrong: int = 0, decided: bool | None = None) -> Judged:
    """100 frames, ``wrong`` of them on the wrong side, decided as they should be unless said otherwise."""
    success = np.arange(100) >= (100 if onset is None else onset)
    above = success.copy()
    above[:wrong] = ~above[:wrong]
    yes = success.any() if decided is None else decided
    return Judged(
        name=name, fps=10.0, success=success, counted=np.ones(100, bool), logit=np.zeros(100, np.float32),
        probability=above.astype(float), above=above, decision=np.full(100, yes), valid=np.ones(100, bool),
        threshold=0.5,
    )  # fmt: skip


def test_a_bundle_is_judged_out_of_fold_whatever_its_episodes_are_called_by_now(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    settings = TrainerSettings(size=(64, 64), views=1, epochs=3, build=False, threads=1)
    made = job.run(job.Task(file, tmp_path, settings), lambda *_: None)
    store = made.material.store
    renamed = [replace(e, name=f"elsewhere/{e.name}") for e in made.episodes]
    by_name, again = (compare.judge_serving(made.bundle, store, e) for e in (made.episodes, renamed))
    for before, after, own in zip(by_name, again, made.outcome.held_out, strict=True):
        assert np.array_equal(before.logit, after.logit)
        assert np.allclose(before.logit, own.logit, atol=0.05)  # the head that never saw it, not their mean


OLD = [_episode(f"set/{i}", None if i % 2 else 40, wrong=2) for i in range(12)]


def test_an_equal_model_is_not_worse() -> None:
    verdict = compare.decide(OLD, OLD, "abc")
    assert verdict.offer and verdict.why.startswith("not worse than abc")


def test_chance_makes_no_model_worse() -> None:
    new = [replace(e, above=b.above) for e, b in zip(OLD, OLD, strict=True)]
    new[3] = _episode("set/3", None, wrong=4)
    assert compare.decide(new, OLD, "abc").offer


@pytest.mark.parametrize(
    ("episode", "why"),
    [
        (_episode("set/1", None, decided=True), "more false successes"),
        (_episode("set/0", 40, decided=False), "more successes missed"),
    ],
)
def test_one_more_wrong_episode_is_worse(episode: Judged, why: str) -> None:
    new = [episode if e.name == episode.name else e for e in OLD]
    verdict = compare.decide(new, OLD, "abc")
    assert not verdict.offer and why in verdict.why


def test_clearly_more_wrong_frames_are_worse() -> None:
    new = [_episode(e.name, None if e.failed else 40, wrong=6) for e in OLD]
    verdict = compare.decide(new, OLD, "abc")
    assert not verdict.offer and "wrong frames" in verdict.why
    assert compare.decide(OLD, new, "abc").offer


def test_frames_that_are_not_valid_count_as_wrong() -> None:
    blind = [replace(e, valid=np.zeros(100, bool)) for e in OLD]
    assert compare.tally(blind).wrong_frames.tolist() == [100] * 12
