"""LeRobot's robot type `gripwire`: the arm behind the robot service, which keeps the serial port."""

import time
from contextlib import suppress
from functools import cached_property
from typing import Any

from lerobot.cameras import Camera
from lerobot.cameras.utils import make_cameras_from_configs
from lerobot.motors import Motor, MotorNormMode
from lerobot.robots import Robot
from lerobot.utils.decorators import check_if_already_connected, check_if_not_connected

from gripwire.bus import Latest
from gripwire.control import Client, process_name
from gripwire.errors import UserError
from gripwire.messages import JOINTS, Drive, Goal, Reset, RobotAction, RobotState, Sent, Underway, Yield
from gripwire_robot.client import wait_until_there
from lerobot_robot_gripwire import bus
from lerobot_robot_gripwire.camera import GripwireCamera
from lerobot_robot_gripwire.configs import GripwireCameraConfig, GripwireRobotConfig

SOURCE = "lerobot"
LEASE_S = 5.0
PAUSE_S = 0.4
"""After a longer pause between two goals the arm is asked for again: to the service silence is the end."""
CURRENT_MA = 6.5
"""One unit of an STS3215's Present_Current."""


class GripwireRobot(Robot):
    """An SO-101 with the features of LeRobot's own `so101_follower`, so that datasets fit together.

    What is not fresh or not valid is no observation, and raises ``TimeoutError``. At the end the arm is left
    where it is, held by the robot service.
    """

    config_class = GripwireRobotConfig
    name = "so_follower"
    """What SO101Follower is called in datasets; LeRobot continues and merges only those of one name."""

    def __init__(self, config: GripwireRobotConfig) -> None:
        super().__init__(config)
        self.config = config
        self._stack = bus.find(config.port_base)
        wanted = config.cameras
        if wanted is None:
            wanted = {name: GripwireCameraConfig() for name in self._stack.cameras}
        for key, camera in wanted.items():
            if isinstance(camera, GripwireCameraConfig):
                camera.name = camera.name or key
                camera.port_base = camera.port_base or config.port_base
        self.cameras: dict[str, Camera] = make_cameras_from_configs(wanted)
        self.bus = Motors(self)
        self.by = process_name()
        self._client = Client(self._stack.topics.control("robot"), "robot")
        self._states: Latest[RobotState] | None = None
        self._actions: Latest[RobotAction] | None = None
        self._last_goal = 0.0

    # --- what there is ----------------------------------------------------------------------------------

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        """Asks the cameras for their size where it was not given."""
        images = {}
        for name, camera in self.cameras.items():
            if isinstance(camera, GripwireCamera):
                camera.look()
            images[name] = (camera.height, camera.width, 3)
        return {**self.action_features, **images}

    @cached_property
    def action_features(self) -> dict[str, type]:
        return {f"{joint}.pos": float for joint in JOINTS}

    @property
    def is_connected(self) -> bool:
        return self._states is not None and all(camera.is_connected for camera in self.cameras.values())

    @property
    def is_calibrated(self) -> bool:
        """The robot service starts with no arm that is not."""
        return True

    def calibrate(self) -> None:
        raise RuntimeError(
            "the robot service has the arm's port: stop it, calibrate with `gripwire robot calibrate` or "
            "`lerobot-calibrate --robot.type=so101_follower`, and start it again"
        )

    def configure(self) -> None:
        """The robot service has done it."""

    # --- connecting -------------------------------------------------------------------------------------

    @check_if_already_connected
    def connect(self, calibrate: bool = True) -> None:
        """Wait for the arm's state and every camera, and take the arm.

        Raises:
            ConnectionError: one of them does not come, or somebody else drives the arm.
        """
        self._states = Latest(self._stack.topics["robot/state"], RobotState)
        self._actions = Latest(self._stack.topics["robot/action"], RobotAction)
        try:
            bus.fresh(self._states, bus.CONNECT_S, bus.whole)
            bus.fresh(self._actions, bus.CONNECT_S)
            for camera in self.cameras.values():
                camera.connect()
            if not self._led:
                self._take()
        except Exception as e:
            self.disconnect()
            raise ConnectionError(str(e)) from e

    def _take(self) -> None:
        self._client.ask(Drive(by=self.by, lease_s=LEASE_S))

    @property
    def _led(self) -> RobotAction | None:
        """What the leader arm sent last, while it teleoperates."""
        newest = self._actions.get() if self._actions else None
        if newest and newest.message.source == "leader" and not newest.message.intervention:
            return newest.message
        return None

    def disconnect(self) -> None:
        """Let go of the arm, which stays where it was sent, and of the cameras."""
        if self._states and not self._led:
            with suppress(UserError):  # it is another's by now, or the service is gone
                self._client.ask(Yield(by=self.by), timeout_s=2.0)
        for reader in (self._states, self._actions):
            if reader:
                reader.close()
        self._states = self._actions = None
        for camera in self.cameras.values():
            if camera.is_connected:
                camera.disconnect()
        self._client.close()

    # --- observing and acting ---------------------------------------------------------------------------

    @check_if_not_connected
    def get_observation(self) -> dict[str, Any]:
        """Joints (degrees; gripper 0..100) and pictures, all of now.

        Raises:
            TimeoutError: there is nothing fresh and valid.
        """
        position = self.state().position
        images = {
            name: camera.read_fresh() if isinstance(camera, GripwireCamera) else camera.read_latest()
            for name, camera in self.cameras.items()
        }
        return {**{f"{joint}.pos": position[joint] for joint in JOINTS}, **images}

    def state(self) -> RobotState:
        """The newest state, fresh and valid.

        Raises:
            TimeoutError: there is none.
        """
        assert self._states is not None
        return bus.fresh(self._states, bus.PATIENCE_S, bus.whole).message

    @check_if_not_connected
    def send_action(self, action: dict[str, Any]) -> dict[str, float]:
        """Send the arm there; where it is really sent, after the service's limits.

        While the service's own leader arm drives (the teleoperator `gripwire`), nothing is sent, and what the
        leader sends is returned; so it is while a person has taken over from a policy.

        Raises:
            UserError: the service refused, in its words: somebody else drives, a joint beyond its range, ...
        """
        if led := self._led:
            return _named(led.position)
        if time.monotonic() - self._last_goal > PAUSE_S:
            self._take()
        goal = {key.removesuffix(".pos"): float(at) for key, at in action.items() if key.endswith(".pos")}
        sent: Sent = self._client.ask(Goal(position=goal, source=SOURCE, by=self.by))
        self._last_goal = time.monotonic()
        return _named(sent.position)

    def move_to(self, position: dict[str, float], seconds: float = 2.0) -> None:
        """Bring the arm to a pose smoothly, as between two episodes; an intervention ends with it.

        Raises:
            UserError: the service refused.
            TimeoutError: the arm did not arrive.
        """
        assert self._states and self._actions
        move: Underway = self._client.ask(Reset(position=position, seconds=seconds, by=self.by))
        arrival = wait_until_there(self._states, self._actions, move)
        if arrival.problem:
            raise TimeoutError(f"the arm did not arrive: {arrival.problem}")


def _named(position: dict[str, float]) -> dict[str, float]:
    return {f"{joint}.pos": at for joint, at in position.items()}


class Motors:
    """What LeRobot's HIL-SERL environment asks of a robot's `bus` beside observations."""

    def __init__(self, robot: GripwireRobot) -> None:
        self._robot = robot
        norm = {joint: MotorNormMode.DEGREES for joint in JOINTS} | {"gripper": MotorNormMode.RANGE_0_100}
        self.motors = {joint: Motor(n, "sts3215", norm[joint]) for n, joint in enumerate(JOINTS, 1)}

    def sync_read(self, register: str) -> dict[str, float]:
        """Present_Position in LeRobot's units, or Present_Current in the motors'."""
        state = self._robot.state()
        if register == "Present_Position":
            return {joint: state.position[joint] for joint in JOINTS}
        if register == "Present_Current" and state.current:
            return {joint: state.current.get(joint, 0.0) / CURRENT_MA for joint in JOINTS}
        raise ValueError(f"gripwire's `robot/state` has no {register}")
