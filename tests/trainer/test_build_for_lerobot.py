"""What LeRobot makes of a built dataset: training of a classifier, and HIL-SERL's demonstrations buffer."""

import json
import logging
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.processor.hil_processor import ImageCropResizeProcessorStep
from lerobot.rewards.classifier.modeling_classifier import Classifier
from lerobot.rl.buffer import ReplayBuffer
from lerobot.scripts import lerobot_train
from transformers import ResNetConfig, ResNetModel
from typer.testing import CliRunner

from gripwire.errors import UserError
from gripwire_reward.datasets import columns, frames, open_dataset
from gripwire_trainer import labels
from gripwire_trainer.builder import WarmBuilder
from gripwire_trainer.cli import app
from gripwire_trainer.datasets.build import build
from gripwire_trainer.datasets.demonstrations import Demonstrations
from gripwire_trainer.episodes import read_episodes
from gripwire_trainer.settings import TrainerSettings
from tests.trainer import synthetic
from tests.trainer.synthetic import KEY

STATE = ["observation.state", KEY]


@pytest.fixture(scope="module", autouse=True)
def alone(lerobot_asks_nobody: None) -> Iterator[None]:
    """One thread, which is quicker beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _opened(root: str) -> LeRobotDataset:
    return LeRobotDataset("me/demos", root=root, video_backend="pyav")


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    """LeRobot's command takes the log over."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("_logging_as_before")
def test_lerobots_own_training_learns_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [[np.full((128, 128, 3), 200 if i >= 4 else 50, np.uint8) for i in range(8)] for _ in range(2)]
    source = synthetic.write_v21(tmp_path / "set", shown)
    summary = build(labels.read(synthetic.write_labels(tmp_path, source, [4, 4])), tmp_path)
    torch.manual_seed(0)
    widths = ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic")
    ResNetModel(widths).save_pretrained(tmp_path / "resnet")
    picture = json.dumps({KEY: {"type": "VISUAL", "shape": [3, 128, 128]}})
    reward = json.dumps({"next.reward": {"type": "REWARD", "shape": [1]}})
    arguments = {
        "dataset.repo_id": "me/grasp", "dataset.root": summary.dataset, "dataset.video_backend": "pyav",
        "dataset.use_imagenet_stats": "false", "reward_model.type": "reward_classifier",
        "reward_model.model_name": tmp_path / "resnet", "reward_model.num_cameras": 1,
        "reward_model.input_features": picture, "reward_model.output_features": reward,
        "reward_model.device": "cpu", "reward_model.push_to_hub": "false", "reward_model.learning_rate": 0.01,
        "output_dir": tmp_path / "out", "steps": 40, "batch_size": 8, "num_workers": 0, "save_freq": 40,
        "wandb.enable": "false",
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *(f"--{k}={v}" for k, v in arguments.items())])
    lerobot_train.main()
    learnt = Classifier.from_pretrained(tmp_path / "out/checkpoints/last/pretrained_model").eval()
    dataset = _opened(summary.dataset)
    mean, std = (torch.tensor(dataset.meta.stats[KEY][name]).float() for name in ("mean", "std"))
    seen = torch.stack([dataset[i][KEY] for i in range(8)])
    with torch.no_grad():
        said = learnt.predict([(seen - mean) / std]).probabilities
    assert said[4:].min() > said[:4].max() + 0.3, said


# --- demonstrations ----------------------------------------------------------------------------------------


def test_a_step_earns_what_the_next_picture_shows_and_success_ends_the_episode() -> None:
    told = Demonstrations()
    success = np.array([False, False, True, True, False])
    reward, done = told.transitions(success, Path("x"), 0)
    assert reward.tolist() == [0, 1] and done.tolist() == [False, True]
    reward, done = told.transitions(np.zeros(3, bool), Path("x"), 0)
    assert reward.tolist() == [0, 0, 0] and done.tolist() == [False, False, True]
    with pytest.raises(UserError, match=r"labels.json: episode 7 shows success from its first frame"):
        told.transitions(np.array([True, False]), Path("labels.json"), 7)


@pytest.fixture(scope="module")
def demos(counted: Path, tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    """Three demonstrations: success after 5 steps, never within 21, and after 21."""
    folder = tmp_path_factory.mktemp("demos")
    file = synthetic.write_labels(folder, counted, [5, None, 21])
    summary = build(labels.read(file), folder, demonstrations=Demonstrations())
    assert (summary.episodes, summary.frames, summary.success_frames) == (3, 5 + 21 + 21, 2)
    return _opened(summary.dataset)


def test_hil_serls_buffer_is_filled_from_it(demos: LeRobotDataset, counted: Path) -> None:
    buffer = ReplayBuffer.from_lerobot_dataset(
        demos, device="cpu", state_keys=STATE, capacity=60, optimize_memory=True,
        image_augmentation_function=lambda pictures: pictures,
    )  # fmt: skip
    source = open_dataset(counted)
    taken = [(e, i) for e, count in ((0, 5), (1, 21), (2, 21)) for i in range(count)]
    pictures = {e: list(frames(source, source.episodes[e], KEY)) for e in range(3)}
    actions = {e: columns(source.episodes[e], ["action"])["action"] for e in range(3)}
    assert len(buffer) == len(taken)
    for row, (episode, i) in enumerate(taken):
        seen = (buffer.states[KEY][row] * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(seen, pictures[episode][i])
        assert np.array_equal(buffer.actions[row].numpy(), actions[episode][i])
    assert buffer.rewards[: len(taken)].nonzero().ravel().tolist() == [4, 46]
    assert buffer.dones[: len(taken)].nonzero().ravel().tolist() == [4, 25, 46]  # no step leads elsewhere
    batch = buffer.sample(16)
    assert batch["complementary_info"]["discrete_penalty"].tolist() == [0.0] * 16
    assert batch["next_state"][KEY].shape == (16, 3, 48, 64)


def test_a_penalty_that_was_recorded_is_kept(counted: Path, tmp_path: Path) -> None:
    name = "complementary_info.discrete_penalty"
    source = Path(shutil.copytree(counted, tmp_path / "set"))
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][name] = {"dtype": "float32", "shape": [1], "names": ["discrete_penalty"]}
    (source / "meta/info.json").write_text(json.dumps(info))
    file = source / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(file).append_column(name, pa.array([-0.5] * 20, pa.float32())), file)
    summary = build(
        labels.read(synthetic.write_labels(tmp_path, source, [5])), tmp_path, demonstrations=Demonstrations()
    )
    assert _opened(summary.dataset)[0][name].item() == -0.5


def test_pictures_are_cut_out_as_lerobot_does_it_for_a_policy(counted: Path, tmp_path: Path) -> None:
    file = synthetic.write_labels(tmp_path, counted, [6, None])
    before = {p: p.read_bytes() for p in counted.rglob("*") if p.is_file()}
    told = Demonstrations(["1"], size=32, crop=(4, 8, 40, 48))
    summary = build(labels.read(file), tmp_path, demonstrations=told)
    assert len(summary.videos_encoded) == 1 and summary.videos_copied == 0
    made = _opened(summary.dataset)
    assert made.meta.features[KEY]["shape"] == (32, 32, 3) and len(made) == 21
    step, source = ImageCropResizeProcessorStep({KEY: (4, 8, 40, 48)}, (32, 32)), open_dataset(counted)
    for i, picture in enumerate(frames(source, source.episodes[1], KEY)):
        whole = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        assert (made[i][KEY] - step.observation({KEY: whole})[KEY][0]).abs().mean() < 0.02
    assert made.meta.stats[KEY]["mean"].mean() == pytest.approx(
        np.mean([made[i][KEY].mean() for i in range(21)]), abs=0.01
    )
    again = build(labels.read(file), tmp_path, "again", demonstrations=told)
    assert (again.videos_linked, again.videos_encoded) == (1, [])
    with pytest.raises(UserError, match=r"crop \[0, 0, 49, 9\].* does not lie within the 64x48 pictures"):
        build(labels.read(file), tmp_path, demonstrations=Demonstrations(size=32, crop=(0, 0, 49, 9)))
    assert before == {p: p.read_bytes() for p in counted.rglob("*") if p.is_file()}


def test_demonstrations_need_actions(counted: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(counted, tmp_path / "set"))
    info = json.loads((source / "meta/info.json").read_text())
    del info["features"]["action"]
    (source / "meta/info.json").write_text(json.dumps(info))
    file = synthetic.write_labels(tmp_path, source, [5])
    with pytest.raises(UserError, match="demonstrations need `action`"):
        build(labels.read(file), tmp_path, demonstrations=Demonstrations())


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def merge(counted: Path, tmp_path: Path) -> Iterator[Path]:
    """Two sources, and the data folder beside them."""
    before = signal.getsignal(signal.SIGTERM)
    second = synthetic.write_v21(tmp_path / "set", [[synthetic.numbered(i) for i in range(9)]] * 2)
    synthetic.write_labels(tmp_path, counted, [5, None, 21], "good")
    synthetic.write_labels(tmp_path, second, [None, 3], "mixed")
    file = tmp_path / "merge.json"
    file.write_text(json.dumps({"sources": ["good", "mixed"], "output_repo_id": "me/grasp"}))
    yield file
    signal.signal(signal.SIGTERM, before)


def _run(merge: Path, *flags: str) -> Any:
    return CliRunner().invoke(app, ["build", str(merge), "--data", str(merge.parent / "data"), *flags])


def test_the_command_builds_and_its_last_line_is_json(merge: Path) -> None:
    done = _run(merge, "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    root = Path(told["dataset"])
    assert root.parent == merge.parent / "data/datasets/me" and root.name.startswith("grasp-")
    assert (told["episodes"], told["frames"], told["found"]) == (5, 81, False) and told["seconds"] > 0
    assert open_dataset(root).version == "v3.0"
    done = _run(merge)
    assert f"5 episodes, 81 frames (22 success) -> {root}\nit was there already" in done.stdout
    done = _run(merge, "--out", "mine")
    assert "videos   4 linked, 0 copied as they are (h264)" in done.stdout  # two episodes look the same
    assert open_dataset(merge.parent / "data/datasets/mine").lengths == open_dataset(root).lengths


def test_a_trainer_that_has_lerobot_builds_of_the_labels_as_they_were(counted: Path, tmp_path: Path) -> None:
    file = synthetic.write_labels(tmp_path, counted, [5])
    builder = WarmBuilder(file, tmp_path, True)
    synthetic.write_labels(tmp_path, counted, [6])
    root = Path(builder.wait(lambda part: None))
    assert columns(open_dataset(root).episodes[0], ["next.reward"])["next.reward"].sum() == 15
    assert WarmBuilder(root, tmp_path, True).wait(lambda part: None) == ""  # it is one already
    assert WarmBuilder(file, tmp_path, False).wait(lambda part: None) == ""
    (counted_without := tmp_path / "gone.json").write_text(file.read_text().replace(str(counted), "nowhere"))
    with pytest.raises(UserError, match=r"the reward dataset was not built: .*not a LeRobot dataset"):
        WarmBuilder(counted_without, tmp_path, True).wait(lambda part: None)


@pytest.mark.parametrize(
    ("chosen", "lengths"),
    [
        ([], [5, 21, 21, 9, 3]),
        (["successful"], [5, 21, 3]),
        (["good:0-1"], [5, 21]),
        (["good.json:2", "mixed:successful"], [21, 3]),
    ],
)
def test_the_command_takes_the_demonstrations_that_were_asked_for(
    merge: Path, chosen: list[str], lengths: list[int]
) -> None:
    done = _run(merge, "--offline-rl", "--json", *(f"--episodes={which}" for which in chosen))
    told = json.loads(done.stdout.splitlines()[-1])
    assert "grasp-demonstrations-" in told["dataset"]
    assert list(open_dataset(Path(told["dataset"])).lengths.values()) == lengths


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--episodes", "good:0"], "add --offline-rl"),
        (["--size", "128"], "add --offline-rl"),
        (["--replace"], "--replace needs --out NAME"),
        (["--out", "../elsewhere"], "not a path elsewhere"),
        (["--offline-rl", "--episodes", "0"], "there are 2 sources; say of which, such as good:0"),
        (["--offline-rl", "--episodes", "best:0"], "no source best; there are good, mixed"),
        (["--offline-rl", "--episodes", "mixed:7"], "has no label for episode 7"),
        (["--offline-rl", "--episodes", "mixed:x"], "numbers and ranges are due"),
    ],
)
def test_the_command_says_what_it_cannot_do(merge: Path, flags: list[str], said: str) -> None:
    done = _run(merge, *flags)
    assert isinstance(done.exception, UserError) and said in str(done.exception)
    assert not (merge.parent / "data/datasets").exists()


def test_the_command_warns_of_a_merge_that_cannot_be_learned_from(merge: Path, counted: Path) -> None:
    file = synthetic.write_labels(merge.parent, counted, [None, None], "bad")
    done = _run(file)
    assert done.exit_code == 0 and f"warning: {file}: no frame is labelled success" in done.stderr


def test_a_classifier_is_not_trained_on_demonstrations(tmp_path: Path) -> None:
    source = synthetic.write_v21(tmp_path / "set", [[synthetic.numbered(i) for i in range(12)]])
    file = synthetic.write_labels(tmp_path, source, [5])
    built = build(labels.read(file), tmp_path, demonstrations=Demonstrations())
    with pytest.raises(UserError, match="whose rewards belong to the next picture"):
        read_episodes(Path(built.dataset), TrainerSettings())
    whole = build(labels.read(file), tmp_path)
    assert [e.success.argmax() for e in read_episodes(Path(whole.dataset), TrainerSettings())] == [5]
