"""Watching a move from outside: has the arm arrived?"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gripwire.bus import Latest
from gripwire.messages import RobotAction, RobotState
from gripwire.topics import Topics

SETTLED = 3.0
"""Degrees (gripper: per cent)."""


@contextmanager
def readers(topics: Topics) -> Iterator[tuple[Latest[RobotState], Latest[RobotAction]]]:
    """The newest state and action."""
    with (
        Latest(topics["robot/state"], RobotState) as states,
        Latest(topics["robot/action"], RobotAction) as actions,
    ):
        yield states, actions


def wait_until_there(
    states: Latest[RobotState], actions: Latest[RobotAction], since_ns: int, timeout_s: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Follow a reset asked for at ``since_ns`` until valid, fresh states show the pose that was asked for.

    Returns the pose really reached, and by joint how far off it is where that is more than ``SETTLED``
    (every joint, if no valid state came: a stale reading proves nothing).
    """
    deadline = time.monotonic() + timeout_s
    position: dict[str, float] = {}
    off: dict[str, float] = {}
    state, action = None, None
    while time.monotonic() < deadline:
        state = states.wait(0.2, after=state) or state
        action = actions.get()
        if state is None or action is None or action.message.t_capture < since_ns:
            continue
        target, sent = action.message.asked, action.message.position
        fresh = state.message.valid and state.message.t_capture > action.message.t_capture
        position = dict(state.message.position)
        off = {j: position.get(j, 0.0) - t for j, t in target.items()}
        if fresh and all(abs(sent.get(j, 1e9) - t) < 1e-6 for j, t in target.items()):
            off = {j: by for j, by in off.items() if abs(by) > SETTLED}
            if not off:
                return position, {}
    return position, off or {"every joint": 0.0}
