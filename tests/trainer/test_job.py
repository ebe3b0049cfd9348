"""From labels to a bundle that serves, by the command."""

import hashlib
import html
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer

import gripwire.cli
from gripwire.bus import Latest
from gripwire.errors import UserError
from gripwire.messages import ModelState
from gripwire.settings import Settings
from gripwire_reward import bundle
from gripwire_reward.datasets import open_dataset
from gripwire_reward.score import score_dataset, score_episode
from gripwire_reward.scorer import Scorer
from gripwire_trainer import job, train
from gripwire_trainer.cache import Cache
from gripwire_trainer.episodes import short_names
from tests.helpers import on_small_disk
from tests.trainer import synthetic
from tests.trainer.synthetic import QUICK

WAIT_S = 100.0


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
    assert result[2] == ["read", "features", "train", "evaluate", "bundle", "build"]
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


def _served_as_trained(result: job.Result) -> None:
    """Logit and drift of an episode, by the bundle on raw frames and by the trainer on what it cached."""
    material, episode = result.material, result.episodes[0]
    rows, frames = material.rows([0]), material.frames(result.episodes)
    served = score_episode(Scorer(result.bundle), episode.dataset, episode.episode)
    logits = [train.logits(t.best, frames, rows) for t in result.outcome.served]
    assert np.allclose(served.logit, np.mean(logits, axis=0), atol=0.02)
    _, far = material.drift(range(len(result.episodes)))
    assert np.allclose(served.drift, far[rows, 0].numpy(), rtol=0.02)
    assert 0.3 < np.median(far[:, 0].numpy()) < 3  # the training frames' own is near 1


def test_what_serves_scores_and_drifts_as_it_did_in_training(
    result: tuple[Path, job.Result, list[str]],
) -> None:
    _served_as_trained(result[1])


def test_a_network_from_scratch_too_serves_what_was_trained(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    settings = QUICK.model_copy(update={"backbone": "scratch", "epochs": 2})
    _served_as_trained(job.run(job.Task(file, tmp_path, settings), lambda stage, part, metrics: None))


def test_the_bundle_holds_all_that_the_design_asks_for(result: tuple[Path, job.Result, list[str]]) -> None:
    made = result[1].bundle
    files = {"model.onnx", "model.safetensors", "config.json", "golden.npz", "report.html", "report.png"}
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
    before = {p: p.stat().st_ino for p in (root / "cache").rglob("*.safetensors")}
    file = synthetic.write_labels(root / "labels", *coloured, name="again")
    job.run(job.Task(file, root, QUICK), lambda *_: None)
    assert before == {p: p.stat().st_ino for p in (root / "cache").rglob("*.safetensors")}
    assert len(before) == 12 * (1 + QUICK.views)


def test_a_damaged_cache_entry_is_made_anew(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]], tmp_path: Path
) -> None:
    store = replace(result[1].material.store, cache=Cache(tmp_path))
    dataset = open_dataset(coloured[0])
    good = store.features(dataset, dataset.episodes[0], 1)
    for file in tmp_path.rglob("*.safetensors"):
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


def test_episodes_of_two_folders_of_the_same_name_stay_apart(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]], tmp_path: Path
) -> None:
    shutil.copytree(coloured[0], tmp_path / "other" / coloured[0].name)
    synthetic.write_labels(tmp_path / "labels", *coloured, name="a")
    synthetic.write_labels(tmp_path / "labels", tmp_path / "other" / coloured[0].name, coloured[1], "b")
    merge = tmp_path / "labels" / "merge.json"
    merge.write_text(json.dumps({"sources": ["a", "b"], "output_repo_id": "me/both"}))
    few = QUICK.model_copy(update={"epochs": 1, "views": 1})
    made = job.run(job.Task(merge, tmp_path, few), lambda *_: None).bundle.manifest.trained_on
    held_out = [name for part in made.split.values() for name in part]
    assert len(set(held_out)) == 24
    assert {name for name in held_out if name.startswith("other/set/")} == {
        f"other/set/{i}" for i in range(12)
    }
    assert len(made.datasets) == 2 and set(made.labels) == {"merge.json", "a.json", "b.json"}


def test_names_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    paths = [Path("/a/x/set"), Path("/b/x/set"), Path("/set"), Path("/b/other")]
    assert list(short_names(paths).values()) == ["a/x/set", "b/x/set", "//set", "other"]


def test_a_refusal_and_a_dataset_that_cannot_be_built_are_told_beside_the_bundle(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    shutil.copytree(result[0] / "cache", tmp_path / "cache")
    (tmp_path / "datasets").write_text("a file where the folder should be")

    def refuse(bundle: str) -> None:
        raise UserError("refused: it squints")

    sealed: list[str] = []
    task = job.Task(file, tmp_path, QUICK.model_copy(update={"build": True, "epochs": 2}))
    made = job.run(task, lambda *_: None, refuse, sealed.append)
    assert bundle.load(tmp_path / "bundles" / sealed[0]).id == made.bundle.id == sealed[0]
    first, second = made.failures
    assert f"bundle {sealed[0]} is not known to serve" in first and "it squints" in first
    assert f"bundle {sealed[0]} is there" in second and "the reward dataset was not built" in second
    assert made.dataset == "" and made.metrics


def test_the_report_and_the_bundle_say_what_the_figures_are_not(
    result: tuple[Path, job.Result, list[str]],
) -> None:
    note = result[1].bundle.manifest.note
    heads = len(result[1].bundle.manifest.trained_on.split)
    assert f"{heads} single heads" in note and "no held-out figure of its own" in note
    assert note in html.unescape(result[1].bundle.file("report.html").read_text())


def test_a_damaged_backbone_graph_is_made_anew(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]], tmp_path: Path
) -> None:
    kept = result[1].material.store
    good = kept.features(dataset := open_dataset(coloured[0]), dataset.episodes[0], 0)
    (graph,) = (result[0] / "cache" / "backbones").glob("*.onnx")
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / graph.name).write_bytes(graph.read_bytes()[:1000])
    store = replace(kept, cache=Cache(tmp_path), _engine=None)
    assert np.array_equal(store.features(dataset, dataset.episodes[0], 0), good)


def test_the_labels_that_were_learnt_from_are_the_ones_that_the_bundle_names(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    learnt_from = hashlib.sha256(file.read_bytes()).hexdigest()

    def save_something_else(stage: str, part: float, metrics: dict[str, float]) -> None:
        if stage == "evaluate":
            file.write_text("{")

    made = job.run(job.Task(file, tmp_path, QUICK), save_something_else)
    assert list(made.bundle.manifest.trained_on.labels.values()) == [learnt_from]


def test_an_interrupted_training_ends_with_the_epoch_under_way(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    long = QUICK.model_copy(update={"epochs": 100_000, "patience": 100_000})

    def interrupt(stage: str, part: float, metrics: dict[str, float]) -> None:
        if stage == "train" and part > 0:
            raise KeyboardInterrupt

    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    with pytest.raises(KeyboardInterrupt):  # or the test's own limit ends it
        job.run(job.Task(file, tmp_path, long), interrupt)


# --- the command ------------------------------------------------------------------------------------------


def _gripwire(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gripwire", *args], capture_output=True, text=True, timeout=280
    )


def _here(*args: str) -> None:
    """The command within this process, which has imported what takes long."""
    typer.main.get_command(gripwire.cli.app)(list(args), standalone_mode=False)


@pytest.fixture
def ready(
    coloured: tuple[Path, list[int | None]], result: tuple[Path, job.Result, list[str]], tmp_path: Path
) -> list[str]:
    """A data root with labels and features already computed; the flags that name it."""
    synthetic.write_labels(tmp_path / "labels", *coloured)
    shutil.copytree(result[0] / "cache", tmp_path / "cache")
    config = tmp_path / "gripwire.toml"
    config.write_text("[trainer]\nsize = [64, 64]\nviews = 1\nepochs = 3\nthreads = 1\n")
    return ["--config", str(config), "--data", str(tmp_path)]


def test_train_builds_beside_and_its_last_line_is_json(
    coloured: tuple[Path, list[int | None]], tmp_path: Path, ready: list[str], capsys: Any
) -> None:
    _here("trainer", "train", "labels", "--json", *ready)
    said = capsys.readouterr()
    summary = json.loads(said.out.splitlines()[-1])
    assert (tmp_path / "bundles" / summary["bundle"] / "bundle.json").is_file()
    assert summary["bundle"] in said.err  # told as soon as it was there
    assert {"read", "features", "train", "evaluate", "bundle", "build"} == set(summary["seconds"])
    assert open_dataset(Path(summary["dataset"])).version == "v3.0"

    out = tmp_path / "scores.parquet"
    _here("reward", "score", summary["bundle"][:8], str(coloured[0]), "--out", str(out), *ready)
    table = pq.read_table(out)
    names = [
        "episode_index",
        "frame_index",
        "logit",
        "probability",
        "above",
        "decision",
        "valid",
        "reason",
        "drift",
    ]
    assert table.column_names == names and table.num_rows == 12 * 16

    capsys.readouterr()
    _here("trainer", "train", summary["dataset"], "--json", *ready)
    assert json.loads(capsys.readouterr().out)["dataset"] == ""  # it is one already


@pytest.fixture
def serving(stack: Settings, tmp_path: Path) -> Iterator[Any]:
    """Starts a real reward service that judges the given camera."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(camera: str) -> None:
        config = tmp_path / "reward.toml"
        config.write_text("[cameras.gripper_cam]\n[cameras.top_cam]\n")
        flags = ["--config", str(config), "--data", str(tmp_path), "--port-base", str(stack.bus.port_base)]
        command = [sys.executable, "-m", "gripwire", "reward", "run", "--camera", camera, *flags]
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        with Latest(stack.topics["model"], ModelState) as model:
            assert model.wait(WAIT_S)

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _train_and_offer(ready: list[str], stack: Settings) -> None:
    ports = ["--port-base", str(stack.bus.port_base)]
    _here("trainer", "train", "labels", "--no-build", "--offer", "--json", *ready, *ports)


def test_an_offer_is_over_when_the_bundle_serves(
    stack: Settings, ready: list[str], serving: Any, tmp_path: Path, capsys: Any
) -> None:
    serving("gripper_cam")
    _train_and_offer(ready, stack)
    summary = json.loads(capsys.readouterr().out)
    remembered = json.loads((tmp_path / "runs" / "reward" / "serving.json").read_text())
    assert remembered["serving"] == summary["bundle"] and "offer" in summary["seconds"]


@pytest.mark.parametrize(("camera", "why"), [("top_cam", "trained on camera"), ("", "did not answer")])
def test_an_offer_that_comes_to_nothing_names_the_bundle_and_the_reason(
    stack: Settings, ready: list[str], serving: Any, capsys: Any, camera: str, why: str
) -> None:
    if camera:
        serving(camera)
    with pytest.raises(UserError, match=why) as error:
        _train_and_offer(ready, stack)
    summary = json.loads(capsys.readouterr().out)
    assert f"gripwire reward swap {summary['bundle']}" in str(error.value)
    assert bundle.load(Path(summary["path"])).id == summary["bundle"] and summary["metrics"]


def test_a_full_disk_while_the_bundle_is_written_leaves_nothing_and_says_so(
    result: tuple[Path, job.Result, list[str]], tmp_path: Path, ready: list[str]
) -> None:
    room = result[1].bundle.file("model.onnx").stat().st_size + 65536  # the weights, next, do not fit
    command = [sys.executable, "-m", "gripwire", "trainer", "train", "labels", "--json", "--no-build", *ready]
    done = on_small_disk(tmp_path / "bundles", room, *command)
    assert done.returncode == 1 and "is full" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_build_goes_with_the_trainer_that_was_killed(
    coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    file = synthetic.write_labels(tmp_path / "labels", *coloured)
    script = (
        "import sys, signal; from pathlib import Path; from gripwire_trainer.builder import Builder\n"
        "made = Builder(Path(sys.argv[1]), Path(sys.argv[2]), True)\n"
        "print(made._process.pid, flush=True); signal.pause()"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", script, str(file), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout
    child = Path("/proc") / trainer.stdout.readline().strip()
    try:
        _await(lambda: "torch" in (child / "maps").read_text())  # it is importing LeRobot's writer
    finally:
        trainer.kill()
        trainer.communicate()
    _await(lambda: not child.exists() or ") Z " in (child / "stat").read_text())
    assert not list((tmp_path / "datasets").glob("[!.]*"))  # at most a hidden one that it had begun


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


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
