"""A LeRobot training configuration: what is honoured, what is named, and what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from gripwire.errors import UserError
from gripwire_trainer import local_model
from gripwire_trainer.interop import training_config as lerobot_config
from gripwire_trainer.interop.training_config import LeRobotTraining, is_lerobot_config
from gripwire_trainer.interop.transforms import NEUTRAL
from gripwire_trainer.settings import TrainerSettings

CAMERA = "observation.images.gripper_cam"


def _jitter(name: str, spread: Any, weight: float = 1.0, kind: str = "ColorJitter") -> dict[str, Any]:
    return {"weight": weight, "type": kind, "kwargs": {name: spread}}


CONFIG: dict[str, Any] = {
    "policy": {
        "type": "reward_classifier",
        "push_to_hub": False,
        "model_name": "someone/resnet10",
        "num_cameras": 1,
        "num_classes": 2,
        "hidden_dim": 96,
        "latent_dim": 128,
        "image_embedding_pooling_dim": 4,
        "dropout_rate": 0.25,
        "learning_rate": 3e-4,
        "weight_decay": 0.02,
        "grad_clip_norm": 1.0,
        "image_size": 96,
        "input_features": {CAMERA: {"type": "VISUAL", "shape": [3, 96, 96]}},
    },
    "dataset": {
        "repo_id": "me/set",
        "image_transforms": {
            "enable": True,
            "max_num_transforms": 2,
            "random_order": True,
            "tfs": {
                "brightness": _jitter("brightness", [0.4, 1.6]),
                "hue": _jitter("hue", 0.1),
                "sharpness": _jitter("sharpness", [0.5, 2.0], 0.5, "SharpnessJitter"),
            },
        },
        "crop_params_dict": {CAMERA: [0, 80, 480, 480]},
    },
    "seed": 1000,
    "batch_size": 64,
    "steps": 5000,
    "eval_freq": 250,
    "early_stopping": {"patience": 7},
    "colour_of_the_robot": "black",
}


def _read(tmp_path: Path, config: Any) -> LeRobotTraining:
    file = tmp_path / "train.json"
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return lerobot_config.read(file)


def _with(**changes: Any) -> dict[str, Any]:
    """The configuration with values at dotted keys changed; ``__`` for the dot."""
    config = copy.deepcopy(CONFIG)
    for key, value in changes.items():
        *above, last = key.split("__")
        node = config
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def test_what_has_a_counterpart_becomes_a_setting_of_the_trainer(tmp_path: Path) -> None:
    read = _read(tmp_path, CONFIG)
    settings = TrainerSettings(**read.values)
    assert (settings.camera, settings.crop, settings.size) == (CAMERA, (0, 80, 480, 480), (96, 96))
    assert (settings.learning_rate, settings.weight_decay, settings.dropout) == (3e-4, 0.02, 0.25)
    assert (settings.hidden, settings.latent, settings.embeddings) == (96, 128, 4)
    assert (settings.batch, settings.seed, settings.patience, read.steps) == (64, 1000, 7, 5000)
    assert read.origins["crop"] == f"{read.path}: dataset.crop_params_dict.{CAMERA}"


def test_the_views_differ_by_the_named_transforms_and_no_others(tmp_path: Path) -> None:
    augmentation = _read(tmp_path, CONFIG).values["augmentation"]
    named = {"brightness": (0.4, 1.6), "hue": (-0.1, 0.1), "sharpness": (0.5, 2.0)}
    assert augmentation == NEUTRAL | named
    assert set(NEUTRAL) == set(TrainerSettings().augmentation.model_dump())


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (_jitter("contrast", 0.25), {"contrast": (0.75, 1.25)}),
        (_jitter("brightness", 1.5), {"brightness": (0.0, 2.5)}),
        (_jitter("degrees", 5, kind="RandomAffine"), {"turn": 5.0}),
        (_jitter("translate", [0.02, 0.05], kind="RandomAffine"), {"shift": 0.05}),
        (_jitter("scale", [0.9, 1.2], kind="RandomAffine"), {"zoom": (0.9, 1.2)}),
        (_jitter("gamma", 2.0, kind="GammaCorrection"), {"gamma": (0.5, 2.0)}),
        (_jitter("std", [5, 25], kind="GaussianNoise"), {"noise": 25.0}),
        (_jitter("contrast", [0.7, 1.3], weight=0.0), {}),
    ],
)
def test_each_transform_has_torchvisions_meaning(
    tmp_path: Path, transform: dict[str, Any], expected: dict[str, Any]
) -> None:
    read = _read(tmp_path, _with(dataset__image_transforms__tfs={"it": transform}))
    assert read.values["augmentation"] == NEUTRAL | expected


def test_without_transforms_there_is_one_view(tmp_path: Path) -> None:
    read = _read(tmp_path, _with(dataset__image_transforms={"enable": False}))
    assert read.values["augmentation"] == NEUTRAL and read.values["views"] == 1
    plain = _with()
    del plain["dataset"]["image_transforms"]
    assert not {"augmentation", "views"} & _read(tmp_path, plain).values.keys()


def test_enabled_transforms_without_a_list_are_lerobots(tmp_path: Path) -> None:
    augmentation = _read(tmp_path, _with(dataset__image_transforms={"enable": True})).values["augmentation"]
    assert (augmentation["brightness"], augmentation["turn"]) == ((0.8, 1.2), 5.0)


def test_whatever_has_no_effect_is_named_with_the_reason(tmp_path: Path) -> None:
    config = _with(
        dataset__image_transforms__tfs__blur=_jitter("kernel_size", 3, kind="MotionBlur"),
        dataset__crop_params_dict__other=[0, 0, 10, 10],
        policy__normalization_mapping={"VISUAL": "MEAN_STD"},
    )
    read = _read(tmp_path, config)
    transforms = "dataset.image_transforms"
    for key, reason in {
        "colour_of_the_robot": "not known to gripwire",
        "eval_freq": "each epoch is followed by a validation",
        "policy.grad_clip_norm": "not clipped",
        "policy.push_to_hub": "the Hub is never contacted",
        "policy.normalization_mapping.VISUAL": "belongs to the backbone",
        "dataset.repo_id": "on the command line",
        "dataset.crop_params_dict.other": f"looks through {CAMERA}",
        f"{transforms}.tfs.blur.kwargs.kernel_size": "no MotionBlur by kernel_size",
        f"{transforms}.max_num_transforms": "changed by all 4",
        f"{transforms}.tfs.sharpness.weight": "changed by all of them",
        f"{transforms}.random_order": "in one order",
    }.items():
        assert reason in read.unheeded[key], key
    text = read.explain()
    assert "policy.learning_rate = 0.0003" in text and "colour_of_the_robot: not known" in text


def test_every_key_is_either_honoured_or_named(tmp_path: Path) -> None:
    read = _read(tmp_path, CONFIG)
    told = [*read.honoured, *read.unheeded]
    for key in lerobot_config._leaves(CONFIG):
        checked = key in ("policy.type", "policy.num_classes", "policy.num_cameras")  # as they have to be
        assert checked or any(key == t or key.startswith(f"{t}.") for t in told), key


def test_a_backbone_that_is_not_here_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    read = _read(tmp_path, CONFIG)
    assert "backbone" not in read.values
    assert "hf download someone/resnet10 --local-dir FOLDER" in read.unheeded["policy.model_name"]
    assert _read(tmp_path, _with(policy__model_name=str(tmp_path))).values["backbone"] == str(tmp_path)


def test_a_backbone_in_the_hubs_cache_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--someone--resnet10"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("c0ffee")
    snapshot = model / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    assert local_model.find("someone/resnet10") is None
    (snapshot / "config.json").write_text("{}")
    assert local_model.find("someone/resnet10") == snapshot
    assert local_model.find("no such: name") is None


def test_a_classifier_of_two_cameras_leaves_the_choice_open(tmp_path: Path) -> None:
    config = _with(policy__num_cameras=2)
    config["policy"]["input_features"]["observation.images.top"] = {"type": "VISUAL", "shape": [3, 96, 96]}
    read = _read(tmp_path, config)
    assert "camera" not in read.values
    assert "one camera, not observation.images.gripper_cam, observation.images.top" in read.unheeded[
        "policy.num_cameras"
    ]  # fmt: skip


def test_pictures_as_the_camera_has_them_are_not_taken_for_the_models_size(tmp_path: Path) -> None:
    config = _with(policy__image_size=None)
    config["policy"]["input_features"][CAMERA]["shape"] = [3, 480, 640]
    read = _read(tmp_path, config)
    assert "size" not in read.values
    assert "for nothing" in read.unheeded[f"policy.input_features.{CAMERA}.shape"]


def test_the_optimizer_counts_only_without_the_preset(tmp_path: Path) -> None:
    optimizer = {"type": "adamw", "lr": 5e-5, "weight_decay": 0.5}
    assert _read(tmp_path, _with(optimizer=optimizer)).values["learning_rate"] == 3e-4
    own = _read(tmp_path, _with(optimizer=optimizer, use_policy_training_preset=False)).values
    assert (own["learning_rate"], own["weight_decay"]) == (5e-5, 0.5)


def test_a_lerobot_configuration_is_told_from_other_files(tmp_path: Path) -> None:
    other = {"act": {"policy": {"type": "act"}}, "list": [1], "labels": {"episodes": {}}}
    for name, content in other.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        assert not is_lerobot_config(tmp_path / f"{name}.json")
    (tmp_path / "torn.json").write_text('{"policy": {"type": "reward_classifier"')
    (tmp_path / "gripwire.toml").write_text(json.dumps(CONFIG))
    assert not any(is_lerobot_config(tmp_path / n) for n in ("torn.json", "gripwire.toml", "none.json"))
    since = {("reward_model" if k == "policy" else k): v for k, v in CONFIG.items()} | {"policy": None}
    for content in (CONFIG, since):
        (tmp_path / "it.json").write_text(json.dumps(content))
        assert is_lerobot_config(tmp_path / "it.json")
        assert lerobot_config.read(tmp_path / "it.json").values["hidden"] == 96


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            _with(policy__learning_rate=-1),
            r"train\.json: policy\.learning_rate: input should be greater than 0",
        ),
        (_with(policy__dropout_rate="high"), r"policy\.dropout_rate: input should be a valid number"),
        (_with(batch_size=2.5), r"batch_size: "),
        (_with(policy__num_classes=3), r"policy\.num_classes: 3, but a reward says success or failure"),
        (_with(policy__image_size=128), r"96.* pixels, but policy\.image_size is 128"),
        (_with(policy__input_features={CAMERA: {"shape": [1, 9, 9]}}), r"gripper_cam\.shape: .*are due"),
        (_with(policy__input_features={CAMERA: {"shape": "big"}}), r"gripper_cam\.shape: 'big'"),
        (_with(policy__input_features=[1]), r"policy\.input_features: input should be a valid dictionary"),
        (_with(dataset__crop_params_dict={CAMERA: [0, 80, 480]}), r"crop_params_dict\.observation"),
        (_with(dataset__crop_params_dict={CAMERA: [0, -1, 480, 480]}), "top, left, height, width are due"),
        (_with(dataset__image_transforms=[]), r"dataset\.image_transforms: "),
        (_with(dataset__image_transforms__max_num_transforms=0), r"image_transforms\.max_num_transforms"),
        (
            _with(dataset__image_transforms__tfs={"b": _jitter("brightness", [1.6, 0.4])}),
            r"tfs\.b\.kwargs\.brightness = \[1\.6, 0\.4\]: two numbers between 0 and 1000",
        ),
        (_with(dataset__image_transforms__tfs={"h": _jitter("hue", 0.7)}), r"tfs\.h\.kwargs\.hue = 0\.7"),
        (_with(dataset__image_transforms__tfs={"h": _jitter("hue", "red")}), r"tfs\.h\.kwargs\.hue = 'red'"),
        ({"policy": {"type": "act"}}, r"`policy\.type` .* is not `reward_classifier`"),
        ("{", r"train\.json: not JSON"),
        ("[" * 100_000, r"train\.json: not JSON"),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_key(tmp_path: Path, config: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        _read(tmp_path, config)
