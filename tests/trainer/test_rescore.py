"""`reward rescore`: a dataset with the rewards of another bundle, which LeRobot opens like the one before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer

import gripwire.cli
from gripwire.errors import UserError
from gripwire_reward import bundle
from gripwire_reward.datasets import columns, open_dataset
from gripwire_reward.score import score_dataset
from gripwire_reward.scorer import Scorer
from tests.reward import tiny
from tests.trainer import synthetic
from tests.trainer.building import build, contents, opened

pytestmark = pytest.mark.usefixtures("lerobot_asks_nobody")


@pytest.fixture(scope="module")
def built(coloured: tuple[Path, list[int | None]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v3.0 reward dataset of the coloured episodes, with rewards as labelled."""
    folder = tmp_path_factory.mktemp("built")
    return Path(build(folder, synthetic.write_labels(folder, *coloured)).dataset)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with a bundle that finds success where there is red, and one that finds it nowhere."""
    for gain in (8.0, 0.0):
        tiny.make(tmp_path / "bundles", gain=gain)
    return tmp_path


def _bundle(data: Path, gain: float) -> str:
    return tiny.make(data / "bundles", gain=gain).id


def _rescore(*args: str) -> None:
    typer.main.get_command(gripwire.cli.app)(["reward", "rescore", *args], standalone_mode=False)


def test_a_new_dataset_has_the_rewards_of_the_bundle_and_lerobot_opens_it(
    built: Path, data: Path, capsys: Any
) -> None:
    before, model = contents(built), _bundle(data, 8.0)
    _rescore(str(built), model, "--out", "again", "--data", str(data), "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["out"] == str(data / "datasets" / "again") and said["frames"] == 12 * 16
    assert contents(built) == before  # the source is as it was
    due = np.concatenate([
        s.decision for s in score_dataset(Scorer(bundle.load(data / "bundles" / model)), open_dataset(built))
    ])  # fmt: skip
    seen = opened(data / "datasets" / "again")
    rewards = np.array([float(r) for r in seen.hf_dataset["next.reward"]])
    assert np.array_equal(rewards, due.astype(float)) and 0 < rewards.mean() < 1
    assert float(seen.meta.stats["next.reward"]["mean"][0]) == pytest.approx(rewards.mean())
    first = open_dataset(data / "datasets" / "again").episodes[0]
    assert np.array_equal(columns(first, ["next.reward"])["next.reward"].reshape(-1), rewards[:16])
    old = np.concatenate([
        columns(e, ["next.reward"])["next.reward"].reshape(-1) for e in open_dataset(built).episodes.values()
    ])  # fmt: skip
    assert said["changed"] == int((old != rewards).sum())


def test_the_probability_itself_can_be_the_reward(built: Path, data: Path) -> None:
    _rescore(str(built), _bundle(data, 8.0), "--out", "again", "--reward", "probability", "--data", str(data))
    reward = columns(open_dataset(data / "datasets" / "again").episodes[0], ["next.reward"])["next.reward"]
    assert set(np.round(reward.reshape(-1), 6)) - {0.0, 1.0}


def test_a_file_is_enough_for_a_recording_without_rewards(
    coloured: tuple[Path, list[int | None]], data: Path, capsys: Any
) -> None:
    out = data / "rewards.parquet"
    _rescore(str(coloured[0]), _bundle(data, 8.0), "--out", str(out), "--data", str(data))
    assert pq.read_table(out).num_rows == 12 * 16
    assert "the source has no rewards" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no `next\.reward` to replace"):
        _rescore(str(coloured[0]), _bundle(data, 8.0), "--out", "again", "--data", str(data))
    assert not (data / "datasets" / "again").exists()


def test_an_existing_dataset_is_never_overwritten(built: Path, data: Path) -> None:
    (data / "datasets" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match="never overwritten"):
        _rescore(str(built), _bundle(data, 0.0), "--out", "mine", "--data", str(data))
