"""The decision rule is fitted to the user's budget, and the gate to what the robot did in successes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from gripwire.errors import UserError
from gripwire_trainer import evaluate, gates
from gripwire_trainer.episodes import read_episodes
from gripwire_trainer.evaluate import Demand, HeldOut
from gripwire_trainer.settings import TrainerSettings
from tests.trainer import synthetic


def _failed(spurious: int) -> HeldOut:
    logit = np.full(60, -6.0, np.float32)
    logit[10 : 10 + spurious] = 6.0
    return _held(np.zeros(60, bool), logit)


def _held(success: np.ndarray, logit: np.ndarray) -> HeldOut:
    return HeldOut("set/0", 0, 10.0, success, np.ones(60, bool), np.float32(logit), np.ones(60, np.float32))


def _good() -> HeldOut:
    success = np.arange(60) >= 30
    return _held(success, np.where(success, 6.0, -6.0))


def test_a_budget_that_allows_a_false_success_gets_a_quicker_rule_than_one_that_allows_none() -> None:
    episodes = [_good(), _good(), _failed(5), *(_failed(0) for _ in range(9))]
    strict = evaluate.fit(episodes, Demand(false_successes=0.01)).rule  # of ten: none
    lenient = evaluate.fit(episodes, Demand(false_successes=0.1)).rule  # of ten: one
    assert strict.window_s > lenient.window_s


@pytest.mark.parametrize(
    ("budget", "share"),
    [("1 false success in 100 failed episodes", 0.01), ("0 false successes in 1 failed episode", 0.0)],
)
def test_a_budget_is_stated_in_words(budget: str, share: float) -> None:
    assert TrainerSettings(budget=budget).false_success_budget == share


@pytest.mark.parametrize("changes", [{"budget": "few"}, {"budget": "1 false success in 0 failed episodes"},
                                     {"gate": "griper > 5"}])  # fmt: skip
def test_settings_that_say_neither_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TrainerSettings(**changes)


def test_frames_at_which_the_gate_was_shut_make_no_success() -> None:
    good = _good()
    fitted = evaluate.fit([good, _failed(0)])
    shut = HeldOut(**{**vars(good), "gate": np.zeros(60, bool)})
    assert evaluate.judge(good, fitted).decision.any() and not evaluate.judge(shut, fitted).decision.any()


@pytest.fixture
def gripped(coloured: tuple[Path, list[int | None]], tmp_path: Path) -> Path:
    """Labels of a dataset whose state says how far the gripper is open: the number of the frame."""
    source = shutil.copytree(coloured[0], tmp_path / "set")
    info = json.loads((source / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = ["gripper.pos", "wrist_flex.pos"]
    (source / "meta/info.json").write_text(json.dumps(info))
    return synthetic.write_labels(tmp_path / "labels", source, coloured[1])


def test_auto_is_the_range_of_the_gripper_in_successes_and_a_little_more(gripped: Path) -> None:
    settings = TrainerSettings(gate="auto", label_every=1)
    episodes = read_episodes(gripped, settings)
    starts = [int(np.argmax(e.success)) for e in episodes if e.success.any()]
    low, high = float(min(starts)), 15.0
    text = gates.choose(episodes, settings)
    margin = max(2.0, 0.1 * (high - low))
    assert text == f"{low - margin:.1f} <= gripper <= {high + margin:.1f}"
    opened = gates.apply(text, episodes)[0].gate
    assert opened is not None and opened.tolist() == [i >= low - margin for i in range(16)]


def test_a_dataset_that_does_not_know_the_joint_is_named(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path, *coloured)
    episodes = read_episodes(file, TrainerSettings())
    with pytest.raises(UserError, match="gate = auto needs the gripper's position"):
        gates.choose(episodes, TrainerSettings(gate="auto"))
    with pytest.raises(UserError, match="episode 0: the robot's state has no position of gripper"):
        gates.apply("gripper > 5", episodes)
