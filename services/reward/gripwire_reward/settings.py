"""`[reward]` of gripwire.toml."""

from pydantic import Field

from gripwire.settings import Section


class RewardSettings(Section):
    """What the reward service can be told."""

    camera: str = Field("", description="camera slot to judge; empty: the first one of [cameras]")
