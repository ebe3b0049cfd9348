"""The keys of a LeRobot training configuration: which have a counterpart here, and why others have none.

``MODEL`` stands for where the classifier is: ``policy`` up to LeRobot 0.5, ``reward_model`` since.
"""

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

NUMBERS: dict[str, tuple[str, Any]] = {
    "MODEL.learning_rate": ("learning_rate", PositiveFloat),
    "MODEL.weight_decay": ("weight_decay", Annotated[float, Field(ge=0)]),
    "MODEL.dropout_rate": ("dropout", Annotated[float, Field(ge=0, lt=1)]),
    "MODEL.latent_dim": ("latent", PositiveInt),
    "MODEL.hidden_dim": ("hidden", PositiveInt),
    "MODEL.image_embedding_pooling_dim": ("embeddings", PositiveInt),
    "batch_size": ("batch", PositiveInt),
    "seed": ("seed", Annotated[int, Field(ge=0)]),
    "epochs": ("epochs", PositiveInt),
    "num_epochs": ("epochs", PositiveInt),
    "patience": ("patience", PositiveInt),
    "early_stopping_patience": ("patience", PositiveInt),
    "early_stopping.patience": ("patience", PositiveInt),
    "MODEL.patience": ("patience", PositiveInt),
    "MODEL.early_stopping_patience": ("patience", PositiveInt),
}
"""LeRobot's key (and those that forks have for what LeRobot has not) to ours, and what it may be."""
_FOUND = "the episodes are those of the dataset or label file on the command line"
_GPU = "a GPU is used when there is one, without being asked"
_HUB = "the Hub is never contacted"
_CACHE = "pictures are decoded once, into a cache"
_FOLDS = "episodes are held out by fold, and each epoch is followed by a validation"
_FILES = "bundles, curves and the best and last weights have their places under the data folder"
_BACKBONE = "normalisation belongs to the backbone"
_PRESET = "heads are trained by AdamW with a rate that rises and falls"
REASONS = {
    "MODEL.push_to_hub": _HUB, "MODEL.repo_id": _HUB, "MODEL.private": _HUB, "MODEL.tags": _HUB,
    "MODEL.name": "a bundle has the name of its labels",
    "MODEL.license": "the bundle's licence is that of its backbone and datasets",
    "save_checkpoint_to_hub": _HUB, "MODEL.pretrained_revision": _HUB,
    "MODEL.pretrained_path": "training starts anew; `trainer import-lerobot` takes a trained classifier over",
    "MODEL.path": "training starts anew; `trainer import-lerobot` takes a trained classifier over",
    "MODEL.grad_clip_norm": "the gradients of heads this small are not clipped",
    "MODEL.device": _GPU, "MODEL.use_amp": _GPU, "cudnn_deterministic": _GPU,
    "MODEL.normalization_mapping": _BACKBONE, "dataset.use_imagenet_stats": _BACKBONE,
    "MODEL.output_features": "success comes from the labels or from next.reward",
    "dataset.repo_id": _FOUND, "dataset.root": _FOUND, "dataset.episodes": _FOUND, "dataset.revision": _FOUND,
    "dataset.repo_type": _FOUND, "dataset.streaming": _FOUND, "rename_map": _FOUND,
    "dataset.video_backend": _CACHE, "dataset.return_uint8": _CACHE, "dataset.depth_output_unit": _CACHE,
    "num_workers": _CACHE, "prefetch_factor": _CACHE, "persistent_workers": _CACHE,
    "dataloader_multiprocessing_context": _CACHE, "tolerance_s": _CACHE,
    "dataset.eval_split": _FOLDS, "eval_freq": _FOLDS, "eval_steps": _FOLDS, "max_eval_samples": _FOLDS,
    "env_eval_freq": _FOLDS, "eval": _FOLDS,
    "log_freq": _FILES, "save_freq": _FILES, "save_checkpoint": _FILES, "output_dir": _FILES,
    "job_name": _FILES, "wandb": _FILES,
    "optimizer": _PRESET, "scheduler": _PRESET, "use_policy_training_preset": _PRESET,
    "sample_weighting": "success and failure weigh the same", "peft": "the backbone stays as it is",
    "job": "training runs here", "resume": "what was interrupted is always resumed",
    "checkpoint_path": "what was interrupted is always resumed",
    "env": "the robot and its loop are not the trainer's",
}  # fmt: skip
"""Keys, or what they start with, that say something which has no counterpart here."""
