"""`[trainer]` of gripwire.toml, and what `train` can be told."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from gripwire.errors import UserError
from gripwire.settings import Section
from gripwire_reward import gate

AUTO = "auto"
BACKBONES = ("efficientnet-lite0", "scratch")
"""Those that have a name. Any other is a folder."""
OF_THE_MACHINE = ("run_in", "image")
"""What its owner sets, and no command."""
Range = tuple[float, float]


class Augmentation(Section):
    """`[trainer.augmentation]`: how far views differ from the picture. Factors unless said otherwise."""

    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.65, 1.35)
    saturation: Range = (0.5, 1.5)
    hue: Range = Field((-0.06, 0.06), description="turns of the colour circle, for the whole picture")
    temperature: Range = Field((-0.2, 0.2), description="what red gains and blue loses")
    gamma: Range = (0.7, 1.4)
    sharpness: Range = Field((0.3, 1.0), description="below 1 blurs, above 1 sharpens, as torchvision's")
    shift: float = Field(0.05, ge=0, le=0.5, description="of the picture's width and height, either way")
    turn: float = Field(4.0, ge=0, le=180, description="degrees, either way")
    zoom: Range = (0.94, 1.06)
    noise: float = Field(10.0, ge=0, description="grey levels of 255; most views get less than half")
    shadows: float = Field(0.5, ge=0, le=1, description="share of views with a shadow's edge across them")
    slope: float = Field(0.8, ge=0, description="how much brighter one side is than the other, at most")
    recolour: float = Field(0.4, ge=0, le=1, description="share of views with one colour exchanged")


class TrainerSettings(Section):
    """How datasets are built and classifiers trained."""

    camera: str = Field("", description="camera key of the datasets; empty: the only one they have")
    crop: tuple[int, int, int, int] | None = Field(
        None, description="top, left, height, width in pixels; none: the largest centred square"
    )
    size: tuple[int, int] = Field((128, 128), description="height and width of the model's input")
    interpolation: Literal["area", "linear", "cubic", "nearest"] = "area"
    backbone: str = Field(
        "efficientnet-lite0",
        description="`efficientnet-lite0`; `scratch`: a small network without pretrained weights; or the "
        "folder of a transformers ResNet, which LeRobot's classifier can hold as well",
    )
    views: int = Field(
        8, ge=1, le=32, description="cached views of each frame; the first is the frame itself"
    )
    augmentation: Augmentation = Field(Augmentation(), description="how the other views differ from it")
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="auto: as many as make 300 batches, 8 at least"
    )
    steps: int | None = Field(None, ge=1, description="batches to train for, in place of the 300")
    patience: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="epochs without a better validation loss before stopping; auto: half of them"
    )
    batch: int = Field(128, ge=1)
    learning_rate: float = Field(3e-3, gt=0, description="the largest; it rises first and falls to the end")
    weight_decay: float = Field(0.02, ge=0)
    dropout: float = Field(0.3, ge=0, lt=1)
    embeddings: int = Field(8, ge=1, description="learned maps by which each channel is pooled")
    latent: int = Field(64, ge=1, description="width of the layer behind the pooling")
    hidden: int = Field(64, ge=1, description="width of the next")
    budget: str = Field(
        "1 false success in 100 failed episodes",
        pattern=r"^\d+ false success(es)? in [1-9]\d* failed episodes?$",
        description="what the decision rule may cost; it is as quick as this allows",
    )
    gate: str = Field(
        "",
        description="condition on the robot's state that success needs, e.g. `5 < gripper < 60`; auto: the "
        "range that the gripper has in the frames labelled success",
    )
    min_steps_s: float = Field(0.0, ge=0, description="seconds of an episode before success can count")
    latch: bool = Field(False, description="once decided, success stays for the rest of an episode")
    seed: int = Field(0, ge=0, lt=2**32)
    split: str = Field(
        "auto",
        description="what is held out whole: episode, session (as the recorder wrote it, else each source "
        "file is one), or auto: sessions where the recorder wrote several",
    )
    label_every: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="labels were read off every so many frames; what lies between at an edge is left out. "
        "auto: as the labels themselves show",
    )
    threads: int = Field(0, ge=0, description="episodes worked on at a time; 0: as many as cores, 4 at most")
    cache_gb: float = Field(
        20.0, gt=0, description="bound on cache/, in 10^9 bytes; the least used goes first"
    )
    build: bool = Field(True, description="whether training from label files also writes the reward dataset")
    # Where the service works, not what comes out: neither in a bundle nor to be told by a command.
    run_in: Literal["process", "container"] = Field(
        "process",
        exclude=True,
        repr=False,
        description="container: the service runs each training in a container of its own (docs/compose.md)",
    )
    image: str = Field(
        "gripwire/trainer", exclude=True, repr=False, description="of that container; gripwire/trainer-gpu"
    )

    @property
    def false_success_budget(self) -> float:
        """The share of failed episodes that may be taken for success."""
        wrong, failed = (int(number) for number in re.findall(r"\d+", self.budget))
        return wrong / failed

    @field_validator("gate")
    @classmethod
    def _is_a_gate(cls, text: str) -> str:
        if text not in ("", AUTO):
            try:
                gate.parse(text)
            except UserError as e:
                raise ValueError(str(e)) from e
        return text
