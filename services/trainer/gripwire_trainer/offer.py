"""Offers a bundle to the reward service and waits for its verdict."""

from gripwire.errors import UserError
from gripwire.messages import Offer
from gripwire.settings import Settings
from gripwire_reward.ask import ask

_OUTCOME_S = 30.0


def offer(settings: Settings, bundle: str) -> str:
    """As `gripwire reward swap` does. Why it waits, where a consumer holds the model; empty when it serves.

    Raises:
        UserError: it is not taken, and why; with the command that offers it again.
    """
    try:
        state = ask(settings, Offer(bundle=bundle), _OUTCOME_S)
    except UserError as e:
        raise UserError(f"{e}; `gripwire reward swap {bundle}` offers it again") from e
    return state.reason if state.event == "waiting" else ""
