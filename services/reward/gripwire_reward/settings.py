"""`[reward]` of gripwire.toml."""

from pydantic import Field

from gripwire.settings import Section


class RewardSettings(Section):
    """What the reward service can be told. From ``threshold`` on: what it shall decide by in place of the
    bundle's own rule; every reward shows it."""

    camera: str = Field("", description="camera slot to judge; empty: the first one of [cameras]")
    rate_hz: float | None = Field(
        None, gt=0, le=1000, description="rewards per second; none: one for every frame of the camera"
    )
    shadow_s: float = Field(
        0.5,
        ge=0,
        le=600,
        description="how long a new bundle is compared with the serving one before it serves",
    )
    threshold: float | None = Field(None, gt=0, lt=1)
    release: float | None = Field(None, gt=0, lt=1)
    window_s: float | None = Field(None, gt=0)
    needed_s: float | None = Field(None, gt=0)
    min_steps_s: float | None = Field(None, ge=0)
    gate: str | None = Field(None, description="e.g. `5 < gripper < 60`; empty: no gate")
    latch: bool | None = None

    def overrides(self) -> dict[str, float | bool | str]:
        """What was set of the decision rule."""
        return self.model_dump(exclude={"camera", "rate_hz", "shadow_s"}, exclude_none=True)
