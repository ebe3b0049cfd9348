"""Classifiers given to LeRobot and taken from it give the same probabilities: its own classes judge."""

import json
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.envs.configs import HILSerlProcessorConfig
from lerobot.lerobot_types import TransitionKey
from lerobot.processor import PolicyProcessorPipeline
from lerobot.processor.hil_processor import ImageCropResizeProcessorStep, RewardClassifierProcessorStep
from lerobot.rewards.classifier.configuration_classifier import RewardClassifierConfig
from lerobot.rewards.classifier.modeling_classifier import Classifier
from lerobot.rewards.classifier.processor_classifier import make_classifier_processor
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetForImageClassification, ResNetModel, dynamic_module_utils

from gripwire.errors import UserError
from gripwire_reward import bundle as bundles
from gripwire_reward.bundle import Bundle, Manifest
from gripwire_reward.calibration import Calibration
from gripwire_reward.datasets import Dataset, open_dataset
from gripwire_reward.decision import DecisionRule
from gripwire_reward.preprocess import Crop, InputContract, crop_and_resize
from gripwire_reward.scorer import Scorer
from gripwire_trainer import bundle_out, drift, job, resnet
from gripwire_trainer.backbone import EfficientNetLite0
from gripwire_trainer.heads import Outcome
from gripwire_trainer.interop import classifier as lerobot_classifier
from gripwire_trainer.interop import training_config as lerobot_config
from gripwire_trainer.interop.export import Exported, export_lerobot
from gripwire_trainer.interop.importing import import_lerobot
from gripwire_trainer.model import Head, HeadShape, export_onnx, principal
from gripwire_trainer.resnet10 import ResNet10, ResNet10Config
from gripwire_trainer.settings import TrainerSettings
from gripwire_trainer.train import Trained
from tests.trainer import synthetic
from tests.trainer.synthetic import KEY

CROP = Crop(top=0, left=8, height=48, width=48)
CONTRACT = InputContract(key=KEY, frame=(48, 64), crop=CROP, size=(128, 128))
_COLOURS = {"mean": torch.tensor([0.5, 0.4, 0.3]), "std": torch.tensor([0.2, 0.25, 0.3])}
STATS = {KEY: {name: values[:, None, None] for name, values in _COLOURS.items()}}
WIDTHS = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 24]}
SHAPE = HeadShape(embeddings=3, latent=20, hidden=12, dropout=0.2)


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """No test may as much as ask for an address: the Hub is never contacted."""
    hosts: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: hosts.append(where) or [])
    yield hosts
    assert hosts == []


def _shaken[N: torch.nn.Module](network: N) -> N:
    """Weights and statistics of norms that have seen something."""
    torch.manual_seed(1)
    for name, values in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            values.copy_(torch.randn_like(values) * 0.3)
        elif name.endswith("running_var") or values.ndim == 1:
            values.copy_(torch.rand_like(values) + 0.5)
    return network.eval()


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread, which is quicker beside other tests; and code of exported backbones is copied here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A transformers ResNet and a ResNet-10, as their users have them."""
    root = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    plain = ResNetModel(ResNetConfig(depths=[1, 2, 1, 1], layer_type="basic", **WIDTHS))
    _shaken(plain).save_pretrained(root / "resnet")
    resnet.save(_shaken(ResNet10(ResNet10Config(**WIDTHS))), root / "resnet10")
    (root / "resnet10" / "preprocessor_config.json").unlink()
    return {"resnet": root / "resnet", "resnet10": root / "resnet10"}


@pytest.fixture(scope="module")
def dataset(coloured: tuple[Path, list[int | None]]) -> Dataset:
    return open_dataset(coloured[0])


def _pictures(count: int = 10) -> NDArray[np.uint8]:
    """Frames as the camera has them, (n, h, w, 3)."""
    rng = np.random.default_rng(0)
    return np.stack([synthetic.coloured(i % 2 == 0, rng) for i in range(count)])


def _unit(pictures: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module", params=["resnet", "resnet10"])
def trained(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A bundle as training leaves it, with either backbone: a head on projected features, calibrated."""
    return _bundle(folders[request.param], tmp_path_factory.mktemp("trained"))


def _bundle(folder: Path, place: Path) -> Bundle:
    backbone = resnet.read(folder)
    seen = np.stack([crop_and_resize(picture, CONTRACT) for picture in _pictures()])
    with torch.inference_mode():
        features = backbone(_unit(seen))
    head = Head(principal([features], 5), 16, SHAPE).eval()
    _spread(head.judge[8], lambda: head(features))
    manifest = Manifest(
        inputs=[CONTRACT], calibration=Calibration(temperature=0.6, bias=0.4),
        decision=DecisionRule(threshold=0.62), backbone=backbone.fingerprint,
    )  # fmt: skip
    outcome = Outcome(
        heads=[], served=[Trained(head, {}, 0)], held_out=[], selected={},
        drift=drift.fit(drift.pool(features)), shape=SHAPE, map_size=(4, 4),
    )  # fmt: skip
    return bundle_out.write(place, manifest, backbone, outcome, _pictures(), {})


@pytest.fixture(scope="module")
def exported(trained: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_lerobot(trained, tmp_path_factory.mktemp("exported") / "out")


@torch.no_grad()
def _spread(last: torch.nn.Linear, logits: Callable[[], torch.Tensor]) -> None:
    """Have the last layer spread its logits about 0, where differences show."""
    last.weight *= 1 / logits().std()
    last.bias -= logits().mean()


def _due(bundle: Bundle, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    scorer = Scorer(bundle)
    due = np.array([scorer.frame(picture).probability for picture in pictures])
    assert np.ptp(due) > 0.1, "probabilities that are all alike prove nothing"
    return due


def _seen(bundle: Bundle, pictures: NDArray[np.uint8]) -> torch.Tensor:
    contract = bundle.manifest.inputs[0]
    return _unit(np.stack([crop_and_resize(picture, contract) for picture in pictures]))


def test_stock_lerobot_gives_an_exported_bundles_probabilities(trained: Bundle, exported: Exported) -> None:
    stock = Classifier.from_pretrained(exported.path)
    pictures = _pictures()
    with torch.inference_mode():
        got = stock.predict([_seen(trained, pictures)]).probabilities.numpy()
    np.testing.assert_allclose(got, _due(trained, pictures), atol=1e-4)
    assert exported.same_picture < 1e-4 < exported.own_resize


def test_what_training_with_such_a_backbone_leaves_can_be_exported(
    folders: dict[str, Path], coloured: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    labels = synthetic.write_labels(tmp_path / "labels", *coloured)
    settings = TrainerSettings(backbone=str(folders["resnet10"]), views=2, epochs=2, build=False)
    bundle = job.run(job.Task(labels, tmp_path, settings), lambda *_: None).bundle
    out = export_lerobot(bundle, tmp_path / "out")
    stock = Classifier.from_pretrained(out.path)
    pictures = _pictures()
    with torch.inference_mode():
        got = torch.special.logit(stock.predict([_seen(bundle, pictures)]).probabilities.double())
    np.testing.assert_allclose(got, np.log((p := _due(bundle, pictures)) / (1 - p)), atol=1e-3)


def test_hil_serls_step_rewards_what_the_bundle_calls_success(trained: Bundle, exported: Exported) -> None:
    pictures = _pictures()
    due = _due(trained, pictures)
    threshold = float(np.mean([due.max(), due.min()]))
    step = RewardClassifierProcessorStep(pretrained_path=str(exported.path), success_threshold=threshold)
    rewards = [
        step({TransitionKey.OBSERVATION: {KEY: picture}, TransitionKey.REWARD: 0.0})[TransitionKey.REWARD]
        for picture in _seen(trained, pictures).split(1)
    ]
    assert rewards == (due > threshold).astype(float).tolist() and 0 < sum(rewards) < len(rewards)


def test_the_printed_lines_make_hil_serl_crop_and_resize_as_the_bundle_does(
    trained: Bundle, exported: Exported
) -> None:
    import draccus

    lines = exported.hil_serl["env"]["processor"]
    config = draccus.decode(HILSerlProcessorConfig, lines)
    images, classifier = config.image_preprocessing, config.reward_classifier
    assert (classifier.pretrained_path, classifier.success_threshold) == (str(exported.path), 0.62)
    resize = ImageCropResizeProcessorStep(images.crop_params_dict, images.resize_size)
    pictures = _pictures(3)
    theirs = resize.observation({KEY: _unit(pictures)})[KEY]
    # Enlarging 48 to 128 pixels, a box filter repeats them where LeRobot blends.
    assert theirs.shape == (3, 3, 128, 128)
    assert (theirs - _seen(trained, pictures)).abs().mean() < 0.02


def test_an_export_is_refused_where_lerobot_cannot_hold_the_bundle(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    bundle = _bundle(folders["resnet"], tmp_path / "bundles")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="exists already and is never overwritten"):
        export_lerobot(bundle, tmp_path / "mine")
    config = json.loads(bundle.file("config.json").read_text())
    changes = {
        "efficientnet-lite0.*train with `--backbone FOLDER`": {"backbone_config": None},
        "mean of 3 heads, LeRobot's classifier has one": {"heads": 3},
    }
    for reason, change in changes.items():
        other = _with_config(bundle, config | change, backbone=EfficientNetLite0.name)
        with pytest.raises(UserError, match=reason):
            export_lerobot(other, tmp_path / "out")
    assert not (tmp_path / "out").exists() and sorted(p.name for p in tmp_path.iterdir()) == [
        "bundles",
        "mine",
    ]


def _with_config(bundle: Bundle, config: dict[str, Any], backbone: str) -> Bundle:
    with bundles.staging(bundle.path.parent) as aside:
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.file(name), aside / name)
        (aside / "config.json").write_text(json.dumps(config))
        return bundles.seal(aside, bundle.manifest.model_copy(update={"backbone": backbone}))


def test_an_export_that_breaks_off_leaves_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    bundle = _bundle(folders["resnet"], tmp_path / "bundles")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, hard))  # bytes a file: the weights have more
    try:
        with pytest.raises(OSError, match="File too large"):
            export_lerobot(bundle, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["bundles"]


def _classifier(folder: Path, backbone: Path, stats: dict[str, Any] | None, **changes: Any) -> Classifier:
    """One as LeRobot's training leaves it."""
    features = {KEY: PolicyFeature(FeatureType.VISUAL, (3, 128, 128))}
    config = RewardClassifierConfig(
        model_name=str(backbone), num_cameras=1, device="cpu", latent_dim=20, hidden_dim=12,
        input_features=features,
        output_features={"next.reward": PolicyFeature(FeatureType.REWARD, (1,))}, **changes,
    )  # fmt: skip
    torch.manual_seed(5)
    made = Classifier(config).eval()
    preprocessor, postprocessor = make_classifier_processor(config, stats)
    x = preprocessor({KEY: _unit(np.stack([crop_and_resize(p, CONTRACT) for p in _pictures()]))})[KEY]
    _spread(made.classifier_head[4], lambda: made.predict([x]).logits)
    made.save_pretrained(folder)
    preprocessor.save_pretrained(folder)
    postprocessor.save_pretrained(folder)
    return made


@pytest.mark.parametrize("kind", ["resnet", "resnet10"])
@pytest.mark.parametrize("mode", ["MEAN_STD", "IDENTITY"])
def test_an_imported_classifier_scores_as_lerobot_does_with_its_preprocessor(
    folders: dict[str, Path], dataset: Dataset, tmp_path: Path, kind: str, mode: str
) -> None:
    folder = tmp_path / "classifier"
    made = _classifier(folder, folders[kind], STATS, normalization_mapping={"VISUAL": mode})
    bundle = import_lerobot(folder, dataset, tmp_path / "bundles", CROP)
    pictures = _pictures()
    preprocessor = PolicyProcessorPipeline.from_pretrained(folder, "classifier_preprocessor.json")
    with torch.inference_mode():
        got = made.predict([preprocessor({KEY: _seen(bundle, pictures)})[KEY]]).probabilities.numpy()
    np.testing.assert_allclose(got, _due(bundle, pictures), atol=1e-4)
    assert bundle.manifest.inputs[0].crop == CROP and "neither judged nor calibrated" in bundle.manifest.note


@pytest.mark.parametrize("kind", ["resnet", "resnet10"])
def test_a_classifiers_own_file_is_enough_where_its_backbone_is_not_on_this_machine(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    backbone = shutil.copytree(folders[kind], tmp_path / "gone")
    made = _classifier(tmp_path / "classifier", backbone, STATS)
    shutil.rmtree(backbone)
    read = lerobot_classifier.read(tmp_path / "classifier")
    x = torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        expected = made.predict([x]).logits
        np.testing.assert_allclose(read.head(read.backbone(x)), expected, atol=1e-5)


def test_statistics_that_older_lerobot_kept_with_the_weights_are_found(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "classifier"
    _classifier(folder, folders["resnet"], STATS)
    for file in folder.glob("classifier_*"):
        file.unlink()
    with pytest.raises(
        UserError, match="normalises by MEAN_STD, but mean and std of three colours are missing"
    ):
        lerobot_classifier.read(folder)
    old = {f"normalize_inputs.buffer_{KEY.replace('.', '_')}.{n}": v for n, v in STATS[KEY].items()}
    save_file(load_file(folder / "model.safetensors") | old, folder / "model.safetensors")
    assert lerobot_classifier.read(folder).mean == pytest.approx((0.5, 0.4, 0.3))


def test_an_export_comes_back_the_same_wherever_it_was_moved(
    trained: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    export_lerobot(trained, tmp_path / "out").path.rename(tmp_path / "moved")
    back = import_lerobot(tmp_path / "moved", dataset, tmp_path / "bundles")
    pictures = _pictures()
    np.testing.assert_allclose(_due(back, pictures), _due(trained, pictures), atol=1e-4)
    assert back.manifest.inputs == trained.manifest.inputs
    assert back.manifest.decision.threshold == 0.62


def test_normalisation_outside_the_backbone_is_exported_where_the_backbone_can_take_it_in(
    folders: dict[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    pictures = _pictures()
    for kind in ("resnet10", "resnet"):
        _classifier(tmp_path / kind, folders[kind], STATS)
        bundle = import_lerobot(tmp_path / kind, dataset, tmp_path / "bundles", CROP)
        if kind == "resnet":
            with pytest.raises(UserError, match="normalised before they enter a backbone that pads"):
                export_lerobot(bundle, tmp_path / "out")
            continue
        stock = Classifier.from_pretrained(export_lerobot(bundle, tmp_path / "exported").path)
        with torch.inference_mode():
            got = stock.predict([_seen(bundle, pictures)]).probabilities.numpy()
        np.testing.assert_allclose(got, _due(bundle, pictures), atol=1e-4)


def test_the_crop_is_asked_for_where_nothing_tells_it(
    folders: dict[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "classifier"
    _classifier(folder, folders["resnet"], STATS)
    with pytest.raises(UserError, match=r"which part of the 64x48 pictures .*--crop TOP LEFT HEIGHT WIDTH"):
        import_lerobot(folder, dataset, tmp_path / "bundles")
    said = {"dataset": {"crop_params_dict": {KEY: [4, 10, 40, 40]}}}
    (folder / "train_config.json").write_text(json.dumps(said))
    bundle = import_lerobot(folder, dataset, tmp_path / "bundles")
    assert bundle.manifest.inputs[0].crop == Crop(top=4, left=10, height=40, width=40)
    (folder / "train_config.json").write_text(json.dumps(said).replace("40, 40", "40, 400"))
    with pytest.raises(UserError, match=r"train_config.json: dataset.crop_params_dict: .* does not fit"):
        import_lerobot(folder, dataset, tmp_path / "bundles")


def _two_cameras(config: dict[str, Any]) -> None:
    config["input_features"]["observation.images.top"] = {"type": "VISUAL", "shape": [3, 128, 128]}


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "looks through 2 cameras": _two_cameras,
    r"num_cameras is 2\)": lambda c: c.pop("num_cameras"),
    "num_classes is 3": lambda c: c.update(num_classes=3),
    "'act', but a LeRobot `reward_classifier` is due": lambda c: c.update(type="act"),
    "input_features: input should be a valid dictionary": lambda c: c.update(input_features=[1]),
    r"shape is \[3\]; \[3, height, width\] is due": lambda c: c["input_features"].update(
        {KEY: {"shape": [3]}}
    ),
    "makes a 3x3 map of 96x96 pictures, its head wants 4x4": lambda c: c["input_features"].update(
        {KEY: {"shape": [3, 96, 96]}}
    ),
}


def test_what_is_no_classifier_for_one_camera_is_refused_in_a_sentence(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    good = tmp_path / "classifier"
    _classifier(good, folders["resnet"], STATS)
    for number, (reason, breaks) in enumerate(BROKEN.items()):
        folder = shutil.copytree(good, tmp_path / str(number))
        config = json.loads((folder / "config.json").read_text())
        breaks(config)
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=f"(?i){reason}"):
            lerobot_classifier.read(folder)
    (good / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"model\.safetensors: not readable as safetensors"):
        lerobot_classifier.read(good)
    (good / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        lerobot_classifier.read(good)


def test_resnet10_computes_what_is_published(folders: dict[str, Path]) -> None:
    """Its arithmetic once more, with the padding written out: at stride 2 only to the right and below."""
    from torch.nn.functional import conv2d, group_norm, max_pool2d, pad, relu

    w = load_file(folders["resnet10"] / "model.safetensors")

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return group_norm(x, 4, w[f"{name}.weight"], w[f"{name}.bias"])

    x = torch.rand(2, 3, 128, 128)
    network = resnet.build({"model_type": "resnet10", **WIDTHS}, w, folders["resnet10"])
    with torch.inference_mode():
        got = network(x).last_hidden_state
        x = relu(norm(conv2d(x, w["embedder.0.weight"], stride=2, padding=3), "embedder.1"))
        x = max_pool2d(pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)
        for i in range(4):
            at, beside = f"encoder.stages.{i}", (0, 1, 0, 1) if i else (1, 1, 1, 1)
            y = conv2d(pad(x, beside), w[f"{at}.conv1.conv.weight"], stride=2 if i else 1)
            y = conv2d(relu(norm(y, f"{at}.norm1")), w[f"{at}.conv2.conv.weight"], padding=1)
            if i:
                x = norm(conv2d(x, w[f"{at}.shortcut.0.conv.weight"], stride=2), f"{at}.shortcut.1")
            x = relu(norm(y, f"{at}.norm2") + x)
        np.testing.assert_allclose(got, x, atol=1e-5)
    assert sum(p.numel() for p in ResNet10(ResNet10Config()).parameters()) == 4_905_792  # 19.6 MB, as there


def test_a_backbone_takes_plain_pictures_and_normalises_by_itself(folders: dict[str, Path]) -> None:
    x = torch.rand(2, 3, 128, 128)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (x - mean[:, None, None]) / std[:, None, None]
    published = ResNet10.from_pretrained(folders["resnet10"], local_files_only=True).eval()
    plain = ResNetModel.from_pretrained(folders["resnet"], local_files_only=True).eval()
    with torch.inference_mode():
        same = published(normalised).last_hidden_state
        np.testing.assert_allclose(resnet.read(folders["resnet10"])(x), same, atol=1e-5)
        # Plain weights cannot pad with the mean: away from the edge the first layer gives the same.
        inner = resnet.read(folders["resnet"]).network.embedder.embedder(x)[..., 2:-2, 2:-2]
        np.testing.assert_allclose(inner, plain.embedder.embedder(normalised)[..., 2:-2, 2:-2], atol=1e-5)


@pytest.mark.parametrize("kind", ["resnet", "resnet10"])
def test_a_backbone_never_changes_and_its_graph_gives_the_same(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    import onnxruntime

    backbone = resnet.read(folders[kind])
    x = torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        before = backbone(x)
        backbone.train()
        backbone(x + 3)
        assert torch.equal(backbone(x), before)
    assert before.shape == (2, backbone.channels, 4, 4) and backbone.stride == 32
    assert resnet.read(folders[kind]).fingerprint == backbone.fingerprint
    graph = export_onnx(backbone, (128, 128), ["features"])
    (got,) = onnxruntime.InferenceSession(graph).run(None, {"image": x.numpy()})
    np.testing.assert_allclose(got, before, atol=1e-4)
    resnet.save(backbone.network, tmp_path / "again")
    assert resnet.read(tmp_path / "again").fingerprint.split("-")[0] == backbone.fingerprint.split("-")[0]


def test_a_resnet_with_a_classification_layer_is_read_without_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    whole = ResNetForImageClassification(ResNetConfig(depths=[1, 2, 1, 1], layer_type="basic", **WIDTHS))
    whole.resnet.load_state_dict(ResNetModel.from_pretrained(folders["resnet"]).state_dict())
    whole.save_pretrained(tmp_path / "resnet")
    assert resnet.read(tmp_path / "resnet").fingerprint == resnet.read(folders["resnet"]).fingerprint


def test_code_that_a_folder_brings_is_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for kind in ("resnet", "resnet10"):
        folder = shutil.copytree(folders[kind], tmp_path / kind)
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
        (folder / "config.json").write_text(json.dumps(config))
        for name in ("evil.py", "resnet10.py"):
            (folder / name).write_text(trap)
    with pytest.raises(
        UserError, match=r"'resnet' with Python code of its own \(auto_map\), which is never run"
    ):
        resnet.read(tmp_path / "resnet")
    assert resnet.read(tmp_path / "resnet10").fingerprint == resnet.read(folders["resnet10"]).fingerprint
    assert not (tmp_path / "ran").exists()


def test_every_key_of_a_configuration_that_lerobot_writes_is_known(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    model = RewardClassifierConfig(
        model_name=str(folders["resnet10"]), num_cameras=1, device="cpu",
        input_features={KEY: PolicyFeature(FeatureType.VISUAL, (3, 128, 128))},
    )  # fmt: skip
    whole = TrainPipelineConfig(DatasetConfig("me/reward"), reward_model=model, batch_size=32, steps=100)
    whole.optimizer = model.get_optimizer_preset()
    whole.save_pretrained(tmp_path)
    read = lerobot_config.read(tmp_path / "train_config.json")
    assert {key for key, why in read.unheeded.items() if "not known" in why} == set()
    assert read.values["backbone"] == str(folders["resnet10"]) and read.values["camera"] == KEY
    assert (read.values["size"], read.values["batch"], read.steps) == ((128, 128), 32, 100)
    assert read.values["learning_rate"] == 1e-4 and read.values["views"] == 1
    assert TrainerSettings(**read.values).hidden == 256


def _weights_less_one(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("embedder.embedder.convolution.weight")
    save_file(weights, folder / "model.safetensors")


def _configured(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (_weights_less_one, r"not the weights of its config\.json: 1 are missing.*convolution\.weight"),
        (_configured(hidden_sizes=[8, 12, 16, 32]), r"not the weights of its config\.json"),
        (_configured(hidden_sizes="wide"), r"config\.json describes no network"),
        (_configured(num_channels=1), "not the weights|wants pictures of 1 channels; RGB is due"),
        (_configured(model_type="vit"), "a model of type 'vit'; a transformers ResNet"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "a .bin file can run code"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "not readable as safetensors"),
        (lambda f: (f / "config.json").write_text("[]"), "an object is due, not a list"),
        (lambda f: (f / "config.json").unlink(), r"config\.json: cannot be read"),
        (
            lambda f: (f / "preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": 1}'),
            "image_mean and image_std are to be three numbers each",
        ),
    ],
)
def test_a_folder_that_is_no_such_backbone_is_refused_in_a_sentence(
    folders: dict[str, Path], tmp_path: Path, breaks: Callable[[Path], object], reason: str
) -> None:
    folder = shutil.copytree(folders["resnet"], tmp_path / "resnet")
    breaks(folder)
    with pytest.raises(UserError, match=reason):
        resnet.read(folder)
