"""Who may drive the arm. Pure: times are seconds of one monotonic clock.

One drives at a time. Who asks with `Drive` has the arm for a lease that each goal renews; who just sends
goals has it until ``watchdog_s`` after the last one, and who resets it until the move is over. Anybody may
stop it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gripwire.errors import UserError
from gripwire.messages import JOINTS


@dataclass
class _Holder:
    by: str
    until: float
    lease_s: float
    """Each goal renews it for so long."""
    last_goal: float | None = None
    joints: frozenset[str] = frozenset()
    """What the last goal named."""
    streaming: bool = False
    """Two goals came within ``watchdog_s``: their silence means something."""
    stopped_by: str = ""
    """Who held or released the arm over this driver's head."""


class Lease:
    """Who drives, and whether their goals have stopped."""

    def __init__(self, watchdog_s: float) -> None:
        self._watchdog_s = watchdog_s
        self._held: _Holder | None = None

    def driver(self, now: float) -> str:
        """Who may drive now; empty: nobody does."""
        held = self._current(now)
        return held.by or "somebody without a name" if held else ""

    def _current(self, now: float) -> _Holder | None:
        # A stream that ends is not forgotten before fell_silent() has told it.
        if self._held and now >= self._held.until and not self._held.streaming:
            self._held = None
        return self._held

    # --- taking and giving ------------------------------------------------------------------------------

    def drive(self, by: str, lease_s: float, force: bool, now: float) -> str:
        """Take the arm, or take it anew; from whom it was taken by force (empty: nobody).

        Raises:
            UserError: somebody else has it.
        """
        if not by:
            raise UserError("give a name to drive by: `by` is empty")
        held = self._current(now)
        taken_from = held.by if held and held.by != by else ""
        if taken_from and not force:
            raise self._refusal(now)
        self._held = _Holder(by, now + lease_s, lease_s)
        return taken_from

    def give(self, by: str, now: float) -> None:
        """Let go of the arm. Harmless for who does not have it.

        Raises:
            UserError: somebody else has it.
        """
        held = self._current(now)
        if held and held.by != by:
            raise self._refusal(now)
        self._held = None

    def end(self) -> None:
        """Nobody drives any more."""
        self._held = None

    # --- what needs the arm -----------------------------------------------------------------------------

    def admit(self, by: str, now: float) -> None:
        """May ``by`` move the arm?

        Raises:
            UserError: somebody else has it, or it was stopped over this driver's head.
        """
        held = self._current(now)
        if held is None:
            return
        if held.by != by:
            raise self._refusal(now)
        if held.stopped_by:
            # Goals that go on coming are no consent: the stop lasts as long as they do.
            held.until = max(held.until, now + self._watchdog_s)
            raise UserError(
                f"{held.stopped_by}: ask for the arm again with `Drive` (`gripwire robot drive --by {by}`), "
                f"or send no goal for {self._watchdog_s:g} s, before you go on"
            )

    def check_joints(self, by: str, joints: Iterable[str], now: float) -> None:
        """A stream of whole goals that begins to lack joints is a mistake in who sends it.

        Raises:
            UserError: this driver's last goal named all joints, and this one does not.
        """
        held = self._current(now)
        recent = held and held.by == by and held.last_goal is not None
        if not held or not recent or now - (held.last_goal or 0.0) > self._watchdog_s:
            return
        missing = [joint for joint in JOINTS if joint in held.joints and joint not in set(joints)]
        if missing and len(held.joints) == len(JOINTS):
            raise UserError(
                f"the goal lacks {', '.join(missing)}, and the one before it named all six joints: "
                "name all of them, or pause before you move single ones"
            )

    def goal(self, by: str, joints: Iterable[str], now: float) -> None:
        """``by`` has sent a goal that was admitted: the lease begins anew, and the watchdog watches."""
        held = self._current(now)
        if held is None:
            held = self._held = _Holder(by, now, self._watchdog_s)
        held.streaming = held.last_goal is not None and now - held.last_goal <= self._watchdog_s
        held.last_goal, held.joints = now, frozenset(joints)
        held.until = max(held.until, now + held.lease_s)

    def reset(self, by: str, until: float, now: float) -> None:
        """``by`` has begun a move that lasts ``until``: no goals are expected meanwhile."""
        held = self._current(now)
        if held is None:
            held = self._held = _Holder(by, until, self._watchdog_s)
        held.last_goal, held.streaming = None, False
        held.until = max(held.until, until + (held.lease_s if held.lease_s > self._watchdog_s else 0.0))

    def resume(self, now: float) -> None:
        """The driver gets the arm back from a person: its goals are expected from now on."""
        if held := self._current(now):
            held.last_goal, held.streaming = now, True

    # --- stopping ---------------------------------------------------------------------------------------

    def stopped(self, how: str, by: str, now: float) -> None:
        """``by`` stopped the arm (``how``: a sentence's beginning): another's goals are void from then on."""
        held = self._current(now)
        if held is None:
            return
        held.last_goal, held.streaming = None, False
        held.until = min(held.until, now + held.lease_s)  # the move that it may have been for is over
        if held.by != by:
            held.stopped_by = how
            held.until = max(held.until, now + self._watchdog_s)

    def fell_silent(self, now: float) -> str:
        """Who sent goals in a stream and stopped, told once; their lease is over."""
        held = self._held
        if held and held.streaming and now - (held.last_goal or now) > self._watchdog_s:
            self._held = None
            return held.by or "somebody without a name"
        return ""

    def _refusal(self, now: float) -> UserError:
        held = self._held
        left = f" for another {held.until - now:.1f} s unless it is renewed" if held else ""
        if held and held.until == float("inf"):
            left = ""
        who = self.driver(now)
        return UserError(
            f"{who} drives the arm{left}: wait until it ends, stop it with `gripwire robot hold`, "
            "or take the arm with `gripwire robot drive --by NAME --force`"
        )
