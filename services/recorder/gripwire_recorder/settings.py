"""The ``[recorder]`` section of gripwire.toml."""

from pydantic import Field

from gripwire.settings import Section


class Recorder(Section):
    """How episodes are recorded."""

    fps: int = Field(10, ge=1, le=120, description="rows per second of the datasets")
    crf: float = Field(18, ge=0, le=51, description="video quality (H.264 CRF): lower is better and larger")
    max_episode_s: float = Field(300.0, gt=0, description="an episode ends by itself after so many seconds")
    hole_s: float = Field(0.5, gt=0, description="a longer silence of camera or robot marks the episode")
    give_up_s: float = Field(5.0, gt=0, description="after such a silence the episode ends by itself")
    buffer_mb: int = Field(256, ge=16, description="memory for pictures that wait for a slow disk")
    min_free_mb: int = Field(
        500,
        ge=0,
        description="an episode is not begun with less free disk than this, and ended with half of it",
    )
