"""LeRobot's teleoperator type `gripwire`: the leader arm that the robot service reads at its own rate."""

from contextlib import suppress
from typing import Any

import numpy as np
from lerobot.teleoperators import Teleoperator
from lerobot.teleoperators.utils import TeleopEvents
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

from gripwire.bus import Latest
from gripwire.control import Client, process_name
from gripwire.errors import UserError
from gripwire.messages import JOINTS, RobotAction, RobotState, Teleoperate
from lerobot_robot_gripwire import bus
from lerobot_robot_gripwire.configs import GripwireTeleopConfig

AXES = ("x", "y", "z")
OPENS, STAYS, CLOSES = 0.0, 1.0, 2.0
"""By what LeRobot 0.6 makes of the number (GripperVelocityToJoint): 0 raises the gripper's position, 2 lowers
it, whatever they are called there."""
GRIPPER_MOVES = 2.0
"""Per cent within a step above which the gripper is said to move."""


class GripwireTeleop(Teleoperator):
    """The leader drives the follower inside the robot service, whatever the rate of LeRobot's loop.

    Without ``step_sizes``, connecting begins teleoperation and disconnecting ends it, and an action is the
    goal that was really sent, by joint. With them, for HIL-SERL, a policy drives and a person takes over by
    the leader: an action is the way of the tip since the last one, in steps, and the events say who drives.
    """

    config_class = GripwireTeleopConfig
    name = "gripwire"

    def __init__(self, config: GripwireTeleopConfig) -> None:
        super().__init__(config)
        self.config = config
        self._steps = config.step_sizes
        if self._steps is not None and (set(self._steps) != set(AXES) or min(self._steps.values()) <= 0):
            raise ValueError(
                f"`step_sizes` are metres by axis, such as {{x: 0.02, y: 0.02, z: 0.02}}: {self._steps}"
            )
        self._stack = bus.find(config.port_base)
        self._client = Client(self._stack.topics.control("robot"), "robot")
        self._actions: Latest[RobotAction] | None = None
        self._states: Latest[RobotState] | None = None
        self._began = False
        self._before: tuple[np.ndarray, float] | None = None

    @property
    def action_features(self) -> dict[str, Any]:
        if self._steps is None:
            return {f"{joint}.pos": float for joint in JOINTS}
        names = {**{f"delta_{axis}": n for n, axis in enumerate(AXES)}, "gripper": 3}
        return {"dtype": "float32", "shape": (4,), "names": names}

    @property
    def feedback_features(self) -> dict[str, Any]:
        return {}

    @property
    def is_connected(self) -> bool:
        return self._actions is not None

    @property
    def is_calibrated(self) -> bool:
        """The robot service reads no leader that is not."""
        return True

    def calibrate(self) -> None:
        raise RuntimeError("the robot service has the leader's port: stop it, and calibrate the leader then")

    def configure(self) -> None:
        """The robot service has done it."""

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        raise NotImplementedError("the leader of an SO-101 feels nothing")

    # --- connecting -------------------------------------------------------------------------------------

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Have the leader drive (not with ``step_sizes``).

        Raises:
            ConnectionError: the service does not answer, has no leader, or somebody else drives.
        """
        self._actions = Latest(self._stack.topics["robot/action"], RobotAction)
        self._states = Latest(self._stack.topics["robot/state"], RobotState)
        try:
            newest = bus.fresh(self._actions, bus.CONNECT_S).message
            if self._steps is None:
                if _leads(newest):  # it drives for somebody else, and shall go on when we leave
                    self._client.ask(Teleoperate(on=True, by=process_name()))
                    self._began = True
                bus.fresh(self._actions, bus.CONNECT_S, _leads)
        except Exception as e:
            self.disconnect()
            raise ConnectionError(str(e)) from e

    def disconnect(self) -> None:
        """Teleoperation that began with us ends; the arm holds."""
        if self._began:
            with suppress(UserError):  # the service is gone
                self._client.ask(Teleoperate(on=False, by=process_name()), timeout_s=2.0)
        for reader in (self._actions, self._states):
            if reader:
                reader.close()
        self._actions = self._states = None
        self._began, self._before = False, None
        self._client.close()

    # --- actions and events -----------------------------------------------------------------------------

    @check_if_not_connected
    def get_action(self) -> dict[str, float]:
        """What the leader sent last, by joint; with ``step_sizes``, LeRobot's `delta_x`, `delta_y`, `delta_z`
        (-1..1) and `gripper` (0, 1, 2).

        Raises:
            TimeoutError: the leader does not drive any more, or nothing fresh is there.
        """
        if self._steps is not None:
            return self._way(self._steps)
        assert self._actions is not None
        action = bus.fresh(self._actions, bus.PATIENCE_S, _leads).message
        return {f"{joint}.pos": action.position[joint] for joint in JOINTS}

    def _way(self, steps: dict[str, float]) -> dict[str, float]:
        """Between two calls lies one step of the environment, and the observations of a transition are taken
        when it calls: what the tip did meanwhile is the action that led from one to the other."""
        assert self._states is not None
        state = bus.fresh(self._states, bus.PATIENCE_S, bus.whole).message
        tip, gripper = np.array(state.tip or (np.nan,) * 3), state.position["gripper"]
        before, self._before = self._before or (tip, gripper), (tip, gripper)
        way = np.nan_to_num((tip - before[0]) / [steps[axis] for axis in AXES]).clip(-1, 1)
        turned = gripper - before[1]
        hand = STAYS if abs(turned) < GRIPPER_MOVES else OPENS if turned > 0 else CLOSES
        return {**{f"delta_{axis}": float(by) for axis, by in zip(AXES, way, strict=True)}, "gripper": hand}

    @check_if_not_connected
    def get_teleop_events(self) -> dict[Any, bool]:
        """For HIL-SERL: whether a person has taken over from the policy, by the leader."""
        assert self._actions is not None
        action = bus.fresh(self._actions, bus.PATIENCE_S).message
        return {
            TeleopEvents.IS_INTERVENTION: action.intervention,
            TeleopEvents.TERMINATE_EPISODE: False,
            TeleopEvents.SUCCESS: False,
            TeleopEvents.RERECORD_EPISODE: False,
        }


def _leads(action: RobotAction) -> str:
    """Why an action is not the leader's."""
    if action.source == "leader" and action.valid:
        return ""
    return f"the leader does not drive: {action.reason or f'`{action.source}` was sent last'}"
