"""From labels to a bundle that serves, by the command and by the service."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gripwire.bus import Queued
from gripwire.control import Server
from gripwire.errors import UserError
from gripwire.messages import Done, Offer, Reply, Train, TrainerState
from gripwire.service import Runtime
from gripwire.settings import Settings
from gripwire_reward import bundle
from gripwire_reward.datasets import open_dataset
from gripwire_reward.score import score_dataset
from gripwire_reward.scorer import Scorer
from gripwire_trainer import job
from gripwire_trainer.service import TrainerService
from gripwire_trainer.settings import TrainerSettings
from tests.trainer import synthetic

WAIT_S = 100.0
QUICK = TrainerSettings(size=(64, 64), views=2, epochs=25, build=False, threads=1)


@pytest.fixture(scope="session")
def result(
    coloured: tuple[Path, list[int | None]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, job.Result, list[str]]:
    """One training on the coloured dataset: data root, result, and the stages that were told."""
    root = tmp_path_factory.mktemp("job")
    file = synthetic.write_labels(root / "labels", *coloured)
    told: list[str] = []
    made = job.run(job.Task(file, root, QUICK), lambda stage, part, metrics: told.append(stage))
    return root, made, list(dict.fromkeys(told))


def test_the_pipeline_tells_its_stages_in_order(result: tuple[Path, job.Result, list[str]]) -> None:
    assert result[2] == ["read", "features", "train", "evaluate", "build", "bundle"]
    assert set(result[1].seconds) == set(result[2])


def test_the_bundle_scores_what_it_learnt(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]]
) -> None:
    scorer = Scorer(bundle.load(result[1].bundle.path))
    dataset, starts = open_dataset(coloured[0]), coloured[1]
    right = []
    for scores, start in zip(score_dataset(scorer, dataset), starts, strict=True):
        truth = np.arange(len(scores.above)) >= (99 if start is None else start)
        right.append(scores.above == truth)
        assert bool(scores.decision.any()) == (start is not None)
    assert np.concatenate(right).mean() > 0.97


def test_the_bundle_holds_all_that_the_design_asks_for(result: tuple[Path, job.Result, list[str]]) -> None:
    made = result[1].bundle
    files = {"model.onnx", "model.safetensors", "config.json", "golden.npz", "report.html"}
    assert set(made.manifest.files) == files
    with np.load(made.file("golden.npz")) as golden:
        assert golden["frames"].shape == (12, synthetic.HEIGHT, synthetic.WIDTH, 3)
    assert made.manifest.metrics["frame_accuracy"].low is not None
    reported = [e for part in made.manifest.trained_on.split.values() for e in part]
    assert sorted(reported) == sorted(f"set/{i}" for i in range(12))
    assert b"<svg" in made.file("report.html").read_bytes()


def test_serving_scores_equal_the_golden_ones_frame_for_frame(
    result: tuple[Path, job.Result, list[str]],
) -> None:
    scorer = Scorer(bundle.load(result[1].bundle.path))
    with np.load(result[1].bundle.file("golden.npz")) as golden:
        assert np.allclose([scorer.frame(f).logit for f in golden["frames"]], golden["logits"], atol=1e-4)


def test_a_second_training_reads_its_features_from_the_cache(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]]
) -> None:
    root = result[0]
    before = {p: p.stat().st_mtime_ns for p in (root / "cache").rglob("*.npy")}
    file = synthetic.write_labels(root / "labels", *coloured, name="again")
    job.run(job.Task(file, root, QUICK), lambda *_: None)
    assert before == {p: p.stat().st_mtime_ns for p in (root / "cache").rglob("*.npy")}
    assert len(before) == 12 * (1 + QUICK.views)


def test_a_damaged_cache_entry_is_made_anew(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]], tmp_path: Path
) -> None:
    from gripwire_trainer.features import FeatureStore

    store = FeatureStore(tmp_path, result[1].bundle.manifest.inputs[0])
    dataset = open_dataset(coloured[0])
    good = store.features(dataset, dataset.episodes[0], 1)
    for file in tmp_path.rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:200])
    assert np.array_equal(store.features(dataset, dataset.episodes[0], 1), good)


def test_cancelling_leaves_no_bundle(coloured: tuple[Path, list[int | None]], tmp_path: Path) -> None:
    def stop(stage: str, part: float, metrics: dict[str, float]) -> None:
        if stage == "train":
            raise KeyboardInterrupt

    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    with pytest.raises(KeyboardInterrupt):
        job.run(job.Task(file, tmp_path, QUICK), stop)
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ([None] * 12, "no frame of 12 episodes is labelled success"),
        ([0] * 12, "every frame is labelled success"),
        ([4, 5] + [None] * 10, "2 episodes with success"),
    ],
)
def test_labels_that_cannot_teach_are_refused(
    coloured: tuple[Path, list[int | None]], tmp_path: Path, starts: list[int | None], said: str
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", coloured[0], starts)
    with pytest.raises(UserError, match=said):
        job.run(job.Task(file, tmp_path, QUICK), lambda *_: None)


def test_a_frame_split_and_a_crop_outside_the_picture_are_refused(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    for change, said in (
        ({"split": "frame"}, "neighbouring frames"),
        ({"crop": (0, 0, 99, 99)}, "does not fit"),
    ):
        with pytest.raises(UserError, match=said):
            job.run(job.Task(file, tmp_path, QUICK.model_copy(update=change)), lambda *_: None)


def test_a_reward_dataset_that_cannot_be_built_fails_the_job_in_its_words_and_leaves_no_bundle(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    (tmp_path / "datasets").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="the reward dataset was not built"):
        job.run(
            job.Task(file, tmp_path, QUICK.model_copy(update={"build": True, "epochs": 2})), lambda *_: None
        )
    assert not (tmp_path / "bundles").exists()


# --- the command ------------------------------------------------------------------------------------------


def _gripwire(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gripwire", *args], capture_output=True, text=True, timeout=110
    )


def test_train_builds_beside_and_its_last_line_is_json(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    synthetic.write_labels(tmp_path / "labels", *coloured)
    config = tmp_path / "gripwire.toml"
    config.write_text("[trainer]\nsize = [64, 64]\nviews = 1\nepochs = 5\nthreads = 1\n")
    flags = ["--config", str(config), "--data", str(tmp_path)]
    done = _gripwire("trainer", "train", "labels", "--json", *flags)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "bundles" / summary["bundle"] / "bundle.json").is_file()
    assert {"read", "features", "train", "evaluate", "build", "bundle"} == set(summary["seconds"])
    assert open_dataset(Path(summary["dataset"])).version == "v3.0"

    scores = tmp_path / "scores.parquet"
    scored = _gripwire(
        "reward",
        "score",
        summary["bundle"][:8],
        str(coloured[0]),
        "--out",
        str(scores),
        "--data",
        str(tmp_path),
    )
    assert scored.returncode == 0, scored.stderr
    table = pq.read_table(scores)
    names = ["episode_index", "frame_index", "logit", "probability", "above", "decision", "valid", "reason"]
    assert table.column_names == names and table.num_rows == 12 * 16

    trained = _gripwire("trainer", "train", summary["dataset"], "--json", *flags)
    assert trained.returncode == 0, trained.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["trainer", "train", "nowhere"], "no such label file or dataset"),
        (["trainer", "build", "nowhere.json"], "no such label file"),
        (["labels", "check", "nowhere.json"], "no such label file"),
        (["reward", "score", "0" * 20, "nowhere", "--out", "x"], "not a LeRobot dataset"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(tmp_path: Path, args: list[str], said: str) -> None:
    done = _gripwire(*args, *([] if args[0] == "labels" else ["--data", str(tmp_path)]))
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_labels_check_shows_each_source(coloured: tuple[Path, list[int | None]], tmp_path: Path) -> None:
    file = synthetic.write_labels(tmp_path, *coloured)
    done = _gripwire("labels", "check", str(file), "--json")
    (source,) = json.loads(done.stdout)["sources"]
    assert (source["episodes"], source["frames"], source["skipped"]) == (12, 192, 0)


# --- the service ------------------------------------------------------------------------------------------


class Running:
    """The trainer service driven tick by tick, with a stand-in at the reward service's control endpoint."""

    def __init__(self, settings: Settings) -> None:
        self.offered: list[str] = []
        self.runtime = Runtime("trainer", settings)
        self.service = TrainerService(self.runtime)
        self.states = Queued(settings.topics["trainer"], TrainerState)
        self.reward = Server(settings.topics.control("reward"), {Offer: self._offer})
        assert self.service._publisher.wait_for_subscriber(WAIT_S)
        self.service.setup()
        self.said: list[TrainerState] = []

    def _offer(self, offer: Offer) -> Reply:
        self.offered.append(offer.bundle)
        return Done()

    def until_done(self) -> TrainerState:
        deadline = time.monotonic() + WAIT_S
        while not (self.said and self.said[-1].done):
            assert time.monotonic() < deadline, self.said[-1:]
            self.service.update()
            self.reward.poll(0.02)
            self.said += [r.message for r in self.states.drain()]
        return self.said[-1]

    def close(self) -> None:
        self.service.close(False)
        self.reward.close()
        self.states.close()
        self.runtime.close()


@pytest.fixture
def running(stack: Settings) -> Iterator[Running]:
    made = Running(stack)
    yield made
    made.close()


def _train(service: TrainerService, labels: str, **options: Any) -> Reply:
    return service.commands[Train](Train(labels=labels, options=QUICK.model_dump() | options))


def test_the_service_trains_tells_how_it_goes_and_offers(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running
) -> None:
    synthetic.write_labels(stack.data / "labels", *coloured)
    _train(running.service, "labels", epochs=5)
    with pytest.raises(UserError, match="under way"):
        _train(running.service, "labels")
    end = running.until_done()
    assert end.error == "" and running.offered == [end.bundle]
    assert bundle.load(stack.data / "bundles" / end.bundle).id == end.bundle
    assert end.metrics["frame_accuracy"] > 0.5 and "offer" in end.seconds


def test_a_bad_label_file_ends_the_job_and_not_the_service(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running
) -> None:
    synthetic.write_labels(stack.data / "labels", coloured[0], [99] + [None] * 11)
    _train(running.service, "labels")
    end = running.until_done()
    assert "episode 0" in end.error and "beyond the episode" in end.error
    assert "beyond the episode" in running.runtime.problems and running.offered == []


@pytest.mark.parametrize("name", ["../secrets", "/etc/passwd", "none"])
def test_labels_are_named_never_given_as_a_path(running: Running, name: str) -> None:
    with pytest.raises(UserError, match="no such label file"):
        _train(running.service, name)


def test_an_unknown_option_is_named(
    coloured: tuple[Path, list[int | None]], stack: Settings, running: Running
) -> None:
    synthetic.write_labels(stack.data / "labels", *coloured)
    with pytest.raises(UserError, match="epoch"):
        _train(running.service, "labels", epoch=3)
