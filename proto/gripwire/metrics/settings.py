"""The ``[metrics]`` section of gripwire.toml."""

from pydantic import Field

from gripwire.settings import Section


class Metrics(Section):
    """Where the metrics are served, and whether `gripwire up` starts what serves them."""

    enabled: bool = Field(False, description="`gripwire up` starts it")
    port: int = Field(9464, ge=1, le=65535, description="HTTP; the same for every stack of a machine: choose")
    bind: str = Field("127.0.0.1", description="address; whoever reaches it can read, nobody can change")
