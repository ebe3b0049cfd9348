"""A demonstrator at a running bench: it lays out the scene and works the robot service like any client."""

import time
from collections.abc import Callable

from gripwire import bus, control
from gripwire.errors import UserError
from gripwire.messages import Bench, Command, Goal, Reset, ResetBench, RobotState, Yield
from gripwire.topics import Topics
from gripwire_sim import demonstrator
from gripwire_sim.demonstrator import Kind, Script
from gripwire_sim.kinematics import Arm

SETTLE_S = 1.0
"""The move to a start pose takes so long."""
_NEAR = 4.0
"""A pose is reached within so much of every joint: servos sag a little under load."""


class ArmError(UserError):
    """The robot service refused or did not answer, or the arm did not get where it should: an episode that
    is under way is worth nothing, and may be tried again."""


class Session:
    """Connections to the bench and the robot service, and the kinematics to plan with.

    ``cancelled`` is asked all the time; once it says so, whatever is under way ends early.
    """

    def __init__(self, topics: Topics, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._cancelled = cancelled
        self._arm = Arm()
        self._bench = control.Client(topics.control("sim"), "sim")
        self._robot = control.Client(topics.control("robot"), "robot")
        self._state = bus.Latest(topics["robot/state"], RobotState)

    def prepare(self, kind: Kind, seed: int) -> Script:
        """Bring the arm to the episode's start pose, lay out the scene of ``seed``, and plan.

        In this order: a cube that is still held is dropped before the scene is laid out.

        Raises:
            ArmError: the robot service does not answer or refuses, or the arm does not get there.
            UserError: the bench does not answer or refuses.
        """
        start = demonstrator.start_pose(self._arm, seed)
        self._ask(Reset(position=start, seconds=SETTLE_S), timeout_s=SETTLE_S + 5)
        self._arrive(start)
        bench: Bench = self._bench.ask(ResetBench(seed=seed))
        return demonstrator.script(self._arm, kind, bench.cube, bench.cube_yaw, seed)

    def perform(self, script: Script) -> float:
        """Play the script in real time; the worst lateness of a waypoint in seconds.

        Raises:
            ArmError: the robot service does not answer or refuses.
        """
        late_s = demonstrator.play(
            script,
            lambda position: self._ask(Goal(position=position, source="script")),
            cancelled=self._cancelled,
        )
        self._ask(Yield())  # the goals end here on purpose: the watchdog must not complain
        return late_s

    def await_arm(self, timeout_s: float) -> None:
        """Block until the arm tells where it is, for at most ``timeout_s``."""
        deadline, seen = time.monotonic() + timeout_s, self._state.get()
        while time.monotonic() < deadline and not self._cancelled():
            received = self._state.wait(0.2, after=seen)
            if received is not None and received.message.valid:
                return
            seen = received or seen

    def _ask(self, command: Command, timeout_s: float = 5.0) -> None:
        try:
            self._robot.ask(command, timeout_s)
        except UserError as e:
            raise ArmError(str(e)) from e

    def _arrive(self, pose: dict[str, float]) -> None:
        deadline = time.monotonic() + SETTLE_S + 4
        far, seen = "", None
        while time.monotonic() < deadline:
            if self._cancelled():
                return
            received = self._state.wait(0.2, after=seen)
            if received is None:
                continue
            seen = received
            off = {name: abs(received.message.position[name] - goal) for name, goal in pose.items()}
            far = max(off, key=lambda name: off[name])
            if received.message.valid and off[far] < _NEAR:
                return
        reason = f"`{far}` is {off[far]:.0f} off" if far else "no robot/state arrives"
        raise ArmError(
            f"the arm did not reach the start pose ({reason}); "
            "see `gripwire robot status`, and mend the bench with `gripwire sim fault clear`"
        )

    def close(self) -> None:
        self._bench.close()
        self._robot.close()
        self._state.close()
