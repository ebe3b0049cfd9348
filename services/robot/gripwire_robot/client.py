"""Watching a reset from outside: has the arm arrived?"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gripwire.bus import Latest, Received
from gripwire.messages import RobotAction, RobotState, Underway
from gripwire.topics import Topics
from gripwire_robot import kinematics

SETTLED = 3.0
"""Degrees (gripper: per cent) within which a joint has arrived: servos sag a little under load."""
STILL = 5.0
"""Units per second below which a joint stands still; one encoder step within the window is 1.8."""
STILL_S = 0.15
PATIENCE_S = 3.0
"""After the end of a move, for an arm that lags behind or swings."""
SILENT_S, GONE_S = 1.0, 3.0
"""Without a state for so long there is something to say; and nothing more to wait for."""


@dataclass(frozen=True)
class Arrival:
    """What became of a reset. ``problem`` is empty only if the arm is there: a sentence's part otherwise."""

    problem: str
    position: dict[str, float] = field(default_factory=dict)
    """The newest joints known; with a problem they may be old."""
    tip: tuple[float, float, float] | None = None
    off: dict[str, float] = field(default_factory=dict)
    """By joint how far it is off, where that is more than ``SETTLED``."""


@contextmanager
def readers(topics: Topics) -> Iterator[tuple[Latest[RobotState], Latest[RobotAction]]]:
    """The newest state and action."""
    with (
        Latest(topics["robot/state"], RobotState) as states,
        Latest(topics["robot/action"], RobotAction) as actions,
    ):
        yield states, actions


def wait_until_there(
    states: Latest[RobotState], actions: Latest[RobotAction], move: Underway, patience_s: float = PATIENCE_S
) -> Arrival:
    """Follow a reset to its end.

    The arm has arrived when valid states that were captured after the last goal of the move was sent, by the
    same process, with torque on, show it standing still where it was sent. Whatever else there is (silence, a
    state that is repeated, a restarted service, somebody else's goal) is a reason why nobody knows.
    """
    watch = _Watch(move)
    deadline = time.monotonic() + move.seconds + patience_s
    state: Received[RobotState] | None = None
    problem = "no `robot/state` arrives"
    while time.monotonic() < deadline:
        state = states.wait(0.1, after=state) or state
        problem = watch.problem(state, actions.get())
        if not problem or watch.lost:
            break
    return watch.arrival(problem)


class _Watch:
    """The states and actions of one move, judged as they come."""

    def __init__(self, move: Underway) -> None:
        self._move = move
        self._boot = ""
        self._state: RobotState | None = None
        self._still_since: int | None = None
        self._known = False
        """Whether the newest state says where the arm is now."""
        self.lost = False
        """Whether it cannot arrive any more."""

    def problem(self, state: Received[RobotState] | None, action: Received[RobotAction] | None) -> str:
        """Why the arm is not known to be there, by now; empty when it is."""
        if state is None or action is None:
            return f"no `robot/{'state' if state is None else 'action'}` arrives"
        sent = action.message
        self._known = False
        self._state = state.message
        self._boot = self._boot or sent.boot
        if {sent.boot, state.message.boot} != {self._boot}:
            self.lost = True
            return "the robot service was restarted in mid-move"
        if (silent := (time.monotonic_ns() - state.t_receive) / 1e9) > SILENT_S:
            self.lost = silent > GONE_S
            return f"`robot/state` has been silent for {silent:.0f} s, as if the service had died"
        if not state.message.valid:
            return f"its state is not valid ({state.message.reason or 'no reason is given'})"
        self._known = True
        if not (state.message.torque and sent.valid):
            return "its torque is off"
        if sent.t_capture < self._move.t_begin:
            return "the move has not begun"
        target = self._move.position
        if sent.source != "reset" or any(sent.asked.get(joint) != at for joint, at in target.items()):
            self.lost = True
            return f"{'another reset' if sent.source == 'reset' else f'`{sent.source}`'} has taken over"
        return self._judge(state.message, sent)

    def _judge(self, state: RobotState, sent: RobotAction) -> str:
        target = self._move.position
        if any(abs(sent.position.get(joint, 1e9) - at) > 1e-6 for joint, at in target.items()):
            return "it was not sent all the way: something blocks it, or the time was too short"
        if state.t_capture <= sent.t_capture:
            return "no state came after the move's end"
        if unknown := [joint for joint in target if joint not in state.position]:
            return f"nobody knows where {', '.join(unknown)} is"
        if self.off or any(abs(speed) > STILL for speed in state.velocity.values()):
            self._still_since = None
            return "it does not stand still" if not self.off else "it stands elsewhere"
        if self._still_since is None:
            self._still_since = state.t_capture
        return "" if state.t_capture - self._still_since >= STILL_S * 1e9 else "it does not stand still"

    @property
    def off(self) -> dict[str, float]:
        if self._state is None:
            return {}
        here = self._state.position
        by = {joint: here[joint] - at for joint, at in self._move.position.items() if joint in here}
        return {joint: value for joint, value in by.items() if not abs(value) <= SETTLED}

    def arrival(self, problem: str) -> Arrival:
        if self._state is None:
            return Arrival(problem)
        off = self.off
        if problem and off and self._known:
            problem += ": " + ", ".join(f"{joint} is {by:+.1f} off" for joint, by in off.items())
        return Arrival(problem, dict(self._state.position), self._state.tip, off)


# --- for the command line -----------------------------------------------------------------------------


def error_mm(move: Underway, arrival: Arrival) -> float | None:
    """How far the tip is from where it was to go."""
    if move.tip is None or arrival.tip is None:
        return None
    return 1000 * math.dist(move.tip, arrival.tip)


def report(move: Underway, arrival: Arrival) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "there": not arrival.problem,
        "problem": arrival.problem,
        "target": {"position": move.position, "tip": move.tip},
        "reached": arrival.position,
        "tip": arrival.tip,
        "error_mm": error_mm(move, arrival),
        "off": arrival.off,
        "seconds": move.seconds,
    }


def words(move: Underway, arrival: Arrival) -> str:
    """Where the arm really is at the end."""
    joints = ", ".join(f"{joint} {at:.1f}" for joint, at in arrival.position.items())
    error, where = error_mm(move, arrival), ""
    if arrival.tip and error is not None:
        where = f"; its tip at {kinematics.millimetres(arrival.tip)} mm, {error:.1f} mm off"
    return f"there: {joints}{where}"
