"""A bundle as a directory that LeRobot's own reward classifier loads, with the same probabilities.

What LeRobot's HIL-SERL step feeds it are plain pictures from 0 to 1, so that normalisation and calibration
lie in the weights, and its preprocessor is written as the identity.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save

from gripwire.errors import UserError
from gripwire.files import folder_whole
from gripwire_reward import calibration
from gripwire_reward.bundle import Bundle
from gripwire_reward.preprocess import InputContract, crop_and_resize, preprocess
from gripwire_reward.scorer import Scorer, read_golden
from gripwire_trainer import resnet
from gripwire_trainer.interop import head as lerobot_head
from gripwire_trainer.json_object import read_json
from gripwire_trainer.model import Basis, Head, HeadShape

BACKBONE = "backbone"
HIL_SERL = "hil_serl.json"
_MAP = (4, 4)
"""What LeRobot's classifier pools, whatever its configuration."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its probabilities lie from the bundle's on the golden frames.

    ``same_picture``: for the very input that the bundle's model gets. ``own_resize``: with LeRobot's own
    crop and resize of the camera's frames.
    """

    path: Path
    same_picture: float
    own_resize: float
    hil_serl: dict[str, Any]


def export_lerobot(bundle: Bundle, out: Path) -> Exported:
    """Write ``out``, load it with LeRobot's own classes, and compare before it gets its name.

    The backbone lies in ``out/backbone``; LeRobot finds it by the path in ``config.json``, so an export that
    is moved needs ``model_name`` there corrected.

    Raises:
        UserError: ``out`` exists, the disk is full, the bundle has what LeRobot's classifier cannot hold, or
            the probabilities differ.
    """
    out = out.expanduser().absolute()
    if out.exists():
        raise UserError(f"{out} exists already and is never overwritten; choose another name")
    network, head = _parts(bundle)
    contract = bundle.manifest.inputs[0]
    lines = hil_serl(contract, bundle.manifest.decision.threshold, out)
    with folder_whole(out) as aside:
        resnet.save(network, aside / BACKBONE)
        _save_classifier(bundle, head, contract, aside, out)
        (aside / HIL_SERL).write_text(json.dumps(lines, indent=2) + "\n")
        same, own = _compare(bundle, aside)
        if not same <= _TOLERANCE:
            raise UserError(
                f"{bundle.path}: in LeRobot's classifier the golden frames get probabilities that differ by "
                f"{same:.4f}; nothing was written: report this with the bundle"
            )
    return Exported(out, same, own, lines)


def hil_serl(contract: InputContract, threshold: float, classifier: Path) -> dict[str, Any]:
    """The part of a HIL-SERL configuration that makes its environment see and judge as the bundle does."""
    crop = contract.crop
    return {
        "env": {
            "processor": {
                "image_preprocessing": {
                    "crop_params_dict": {contract.key: [crop.top, crop.left, crop.height, crop.width]},
                    "resize_size": list(contract.size),
                },
                "reward_classifier": {
                    "pretrained_path": str(classifier),
                    "success_threshold": threshold,
                    "success_reward": 1.0,
                },
            }
        }
    }


def explain(exported: Exported) -> str:
    """What to do with it, for a terminal."""
    return (
        f"{exported.path}\n"
        f"on the golden frames its probabilities are the bundle's to {exported.same_picture:.1g}; with "
        f"LeRobot's own crop and resize they move by {exported.own_resize:.2g} at most\n"
        "into the HIL-SERL configuration (it judges single frames, without window, gate and drift limit):\n"
        f"{json.dumps(exported.hil_serl, indent=2)}\n"
        f"`model_name` in its config.json is {exported.path / BACKBONE}: correct that if you move it"
    )


def _parts(bundle: Bundle) -> tuple[Any, Head]:
    """Network and head of a bundle that LeRobot's classifier can hold."""
    config = read_json(bundle.file("config.json"), "train again")
    contract = bundle.manifest.inputs[0]
    described = config.get("backbone_config")
    if described is None:
        raise UserError(
            f"{bundle.path}: its backbone is {bundle.manifest.backbone or 'unknown'}; LeRobot's classifier "
            "holds only what transformers' AutoModel loads: train with `--backbone FOLDER`, the folder of a "
            "transformers ResNet or of lerobot/resnet10"
        )
    if config["heads"] != 1:
        raise UserError(
            f"{bundle.path}: it serves the mean of {config['heads']} heads, LeRobot's classifier has one; "
            "train again with the same backbone"
        )
    if contract.colour != "rgb":
        raise UserError(f"{bundle.path}: its model takes BGR pictures, LeRobot's classifier RGB; train again")
    weights = load_file(bundle.file("model.safetensors"))
    network = resnet.build(described, _below("backbone.network.", weights), bundle.path)
    _normalise(network, contract, bundle)
    parts = _below("heads.0.", weights)
    head = Head(
        Basis(parts["centre"], parts["columns"]), parts["maps"].shape[1], HeadShape(**config["shape"])
    )
    head.load_state_dict(parts)
    with torch.inference_mode():
        size = network(torch.zeros(1, 3, *contract.size)).last_hidden_state.shape[2:]
    if tuple(size) != _MAP:
        raise UserError(
            f"{bundle.path}: its backbone makes a {size[0]}x{size[1]} map of {contract.size[0]}x"
            f"{contract.size[1]} pictures, and LeRobot's classifier holds 4x4 only; train with pictures of "
            "128x128 and a backbone of four stages"
        )
    return network, head.eval()


def _below(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): values for name, values in weights.items() if name.startswith(prefix)}


def _normalise(network: Any, contract: InputContract, bundle: Bundle) -> None:
    """Have the network itself do what the contract does beyond scaling to 0..1."""
    unit = 255 * contract.scale
    mean, std = (tuple(v / unit for v in values) for values in (contract.mean, contract.std))
    if (*mean, *std) == (0.0, 0.0, 0.0, 1.0, 1.0, 1.0):
        return
    if network.config.model_type != "resnet10":
        raise UserError(
            f"{bundle.path}: its pictures are normalised before they enter a backbone that pads with zeros, "
            "which LeRobot's HIL-SERL step does not do and the weights cannot; train again with that backbone"
        )
    resnet.normalise_inside(network, mean, std)


def _save_classifier(bundle: Bundle, head: Head, contract: InputContract, aside: Path, out: Path) -> None:
    from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.rewards.classifier.configuration_classifier import RewardClassifierConfig
    from lerobot.rewards.classifier.modeling_classifier import Classifier
    from lerobot.rewards.classifier.processor_classifier import make_classifier_processor

    shape = read_json(bundle.file("config.json"), "train again")["shape"]
    config = RewardClassifierConfig(
        model_name=str(aside / BACKBONE),
        num_cameras=1,
        image_embedding_pooling_dim=_MAP[0] * _MAP[1],
        latent_dim=shape["latent"],
        hidden_dim=shape["hidden"],
        dropout_rate=shape["dropout"],
        device="cpu",
        normalization_mapping={"VISUAL": NormalizationMode.IDENTITY},
        input_features={contract.key: PolicyFeature(FeatureType.VISUAL, (3, *contract.size))},
        output_features={"next.reward": PolicyFeature(FeatureType.REWARD, (1,))},
    )
    with _quiet():
        classifier = Classifier(config)
    given = lerobot_head.to_lerobot(head, _MAP, bundle.manifest.calibration, contract.key)
    classifier.load_state_dict(classifier.state_dict() | given)
    config.model_name = str(out / BACKBONE)
    config._save_pretrained(aside)
    # By hand: LeRobot's own saving no longer says that the disk is full. It, too, keeps the backbone once.
    second = f"{lerobot_head.encoder_of(contract.key)}.0."
    weights = {k: v.contiguous() for k, v in classifier.state_dict().items() if not k.startswith(second)}
    (aside / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    for processor in make_classifier_processor(config):
        processor.save_pretrained(aside)


def _compare(bundle: Bundle, aside: Path) -> tuple[float, float]:
    """Largest differences of probability on the golden frames, see :class:`Exported`."""
    from lerobot.configs.rewards import RewardModelConfig
    from lerobot.processor.hil_processor import ImageCropResizeProcessorStep
    from lerobot.rewards.classifier.modeling_classifier import Classifier

    scorer = Scorer(bundle)
    contract = scorer.contract
    (frames,) = read_golden(bundle.file("golden.npz"))[0]
    logits = scorer.batch(np.stack([preprocess(frame, contract) for frame in frames]))[0]
    due = calibration.apply(logits, bundle.manifest.calibration)
    config = RewardModelConfig.from_pretrained(aside)
    config.model_name = str(aside / BACKBONE)
    with _quiet():
        classifier = Classifier.from_pretrained(aside, config=config)
    crop = contract.crop
    resize = ImageCropResizeProcessorStep(
        {contract.key: (crop.top, crop.left, crop.height, crop.width)}, contract.size
    )
    seen = np.stack([crop_and_resize(frame, contract) for frame in frames])
    with torch.inference_mode():
        same = classifier.predict([_unit(seen)]).probabilities
        resized = resize.observation({contract.key: _unit(frames)})[contract.key]
        own = classifier.predict([resized]).probabilities
    return float(np.abs(same.numpy() - due).max()), float(np.abs(own.numpy() - due).max())


def _unit(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) from 0 to 1, as LeRobot's environment gives them."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LeRobot and transformers tell of their loading, on standard output too, which is ours to write on.

    What would matter in it, weights that are missing, shows in the probabilities.
    """
    from transformers.utils import logging as progress

    shown, level = progress.is_progress_bar_enabled(), logging.root.manager.disable
    progress.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(level)
        if shown:
            progress.enable_progress_bar()
