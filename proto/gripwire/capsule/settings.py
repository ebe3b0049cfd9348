"""The ``[capsule]`` section of gripwire.toml."""

from pydantic import ConfigDict, Field

from gripwire.settings import Section


class Capsule(Section):
    """How much is kept, and of what."""

    minutes: float = Field(2.0, gt=0, le=120, description="of the bus that are kept")
    megabytes: int = Field(500, ge=10, description="of disk that they may take; the oldest goes first")
    leave_out: list[str] = Field(
        default_factory=list, description="topics, by name or pattern, that are not kept"
    )
    auto: bool = Field(True, description="save a capsule when a service dies, at most every ten minutes")


class Floor(Section):
    """What the capsule has to know of the recorder's section: episodes come first on the disk."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    min_free_mb: int = 500
