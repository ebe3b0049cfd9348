"""``[sim]`` in gripwire.toml."""

from pathlib import Path

from pydantic import Field

from gripwire.settings import Section


class SimSettings(Section):
    """The virtual bench."""

    rate_hz: float = Field(30.0, gt=0, le=60, description="pictures per second, if the machine can")
    seed: int = Field(0, ge=0, description="the scene at the start: cube, lamp, table")
    sockets: Path | None = Field(
        None,
        description="offer the arms' serial lines as sockets in this folder, for `gripwire sim plug` in "
        "another container; none: as pseudo-terminals",
    )
