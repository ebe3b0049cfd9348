"""Asks the reward service for another bundle and waits for what becomes of it."""

import time

from gripwire import control
from gripwire.bus import Latest, Received
from gripwire.errors import UserError
from gripwire.messages import ModelState, Offer, Rollback, Swap
from gripwire.settings import Settings

_SETTLED = ("serving", "refused", "waiting", "rolled_back")


def ask(settings: Settings, command: Offer | Swap | Rollback, timeout_s: float) -> ModelState:
    """Send the command and wait until `model` tells what became of it.

    Raises:
        UserError: the service is not there, it refused the bundle (with its reason), or it did not say
            within ``timeout_s``.
    """
    with Latest(settings.topics["model"], ModelState) as model:
        before = model.wait(2.0)
        control.request(settings.topics.control("reward"), "reward", command)
        deadline, seen = time.monotonic() + timeout_s, before
        while (left := deadline - time.monotonic()) > 0:
            seen = model.wait(left, after=seen) or seen
            if seen and _answers(seen, before, command):
                return _accepted(seen.message)
    raise UserError(f"no outcome within {timeout_s:g} s; `gripwire reward status` shows what serves")


def _answers(seen: Received[ModelState], before: Received[ModelState] | None, command: object) -> bool:
    message = seen.message
    if before and message.boot == before.message.boot and message.seq <= before.message.seq:
        return False
    return message.event in _SETTLED and message.offer == getattr(command, "bundle", message.offer)


def _accepted(state: ModelState) -> ModelState:
    if state.event == "refused":
        raise UserError(
            f"bundle {state.offer} was refused, {state.serving or 'no bundle'} goes on serving: "
            f"{state.reason}"
        )
    return state
