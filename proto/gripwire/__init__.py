"""gripwire: a live, trustworthy success signal for robot arms.

This package is the wire contract, the bus, the client and the command. An RL process needs only it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gripwire.client import AsyncRewardStream, RewardStream, RewardTimeout

__all__ = ["AsyncRewardStream", "RewardStream", "RewardTimeout", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The client on first use: a service or `gripwire --help` should not wait for it."""
    if name in __all__:
        from gripwire import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
