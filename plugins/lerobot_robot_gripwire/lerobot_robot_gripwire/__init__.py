"""LeRobot's own tools on a running gripwire, instead of beside it at the same port and camera.

Installed, it is found by `lerobot-record`, `lerobot-teleoperate`, `lerobot-replay` and the rest, which then
know the types `gripwire`: a robot, a camera and a teleoperator. LeRobot looks for the classes here, by name.
"""

from lerobot_robot_gripwire.camera import GripwireCamera
from lerobot_robot_gripwire.configs import GripwireCameraConfig, GripwireRobotConfig, GripwireTeleopConfig
from lerobot_robot_gripwire.robot import GripwireRobot
from lerobot_robot_gripwire.teleop import GripwireTeleop

__all__ = [
    "GripwireCamera",
    "GripwireCameraConfig",
    "GripwireRobot",
    "GripwireRobotConfig",
    "GripwireTeleop",
    "GripwireTeleopConfig",
]
