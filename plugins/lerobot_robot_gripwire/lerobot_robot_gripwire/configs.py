"""What can be said of the three on LeRobot's command lines. The stack itself is found as gripwire's commands
find it: ./gripwire.toml, `GRIPWIRE_*`, and here ``port_base``, where several run."""

from dataclasses import dataclass

from lerobot.cameras import CameraConfig
from lerobot.robots import RobotConfig
from lerobot.teleoperators import TeleoperatorConfig


@CameraConfig.register_subclass("gripwire")
@dataclass(kw_only=True)
class GripwireCameraConfig(CameraConfig):
    """A camera of the stack. ``width``, ``height`` and ``fps``: what it must give; unset: what it does."""

    name: str | None = None
    """Its slot, [cameras.<name>]; unset: the key under the robot `gripwire`, else the stack's only one."""
    port_base: int | None = None


@RobotConfig.register_subclass("gripwire")
@dataclass(kw_only=True)
class GripwireRobotConfig(RobotConfig):
    """The arm behind the robot service."""

    port_base: int | None = None
    cameras: dict[str, CameraConfig] | None = None
    """Unset: every camera of the stack, under its own name."""

    def __post_init__(self) -> None:
        """LeRobot wants every camera's size and rate spelt out; one that is on the bus can be asked."""
        for name, camera in (self.cameras or {}).items():
            if isinstance(camera, GripwireCameraConfig):
                continue
            if None in (camera.width, camera.height, camera.fps):
                raise ValueError(f"camera `{name}`: give its `width`, `height` and `fps`")


@TeleoperatorConfig.register_subclass("gripwire")
@dataclass(kw_only=True)
class GripwireTeleopConfig(TeleoperatorConfig):
    """The leader arm behind the robot service."""

    port_base: int | None = None
    step_sizes: dict[str, float] | None = None
    """For HIL-SERL: metres by axis, the same as its `end_effector_step_sizes`. Then a policy drives, a person
    takes over by the leader, and actions are steps of the tip. Unset: the leader drives, by joints."""
