"""`[trainer]` of gripwire.toml, and what `train` can be told."""

from typing import Literal

from pydantic import Field

from gripwire.settings import Section


class TrainerSettings(Section):
    """How datasets are built and classifiers trained."""

    camera: str = Field("", description="camera key of the datasets; empty: the only one they have")
    crop: tuple[int, int, int, int] | None = Field(
        None, description="top, left, height, width in pixels; none: the largest centred square"
    )
    size: tuple[int, int] = Field((128, 128), description="height and width of the model's input")
    interpolation: Literal["area", "linear", "cubic", "nearest"] = "area"
    views: int = Field(
        4, ge=1, le=32, description="cached views of each frame; the first is the frame itself"
    )
    epochs: int = Field(60, ge=1)
    patience: int = Field(10, ge=1, description="epochs without a better validation loss before stopping")
    batch: int = Field(128, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.02, ge=0)
    seed: int = 0
    split: str = Field("episode", description="episode, or session: then each source file is one session")
    label_every: int = Field(
        1,
        ge=1,
        description="labels were read off every so many frames; what lies between at an edge is left out",
    )
    threads: int = Field(0, ge=0, description="episodes worked on at a time; 0: as many as cores, 4 at most")
    build: bool = Field(True, description="whether training from label files also writes the reward dataset")
