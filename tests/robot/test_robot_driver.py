"""The driver comes without PyTorch, and PyTorch works all the same for whoever needs it."""

import subprocess
import sys


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=280, check=True
    ).stdout


def test_the_driver_is_lerobots_and_brings_neither_torch_nor_pandas() -> None:
    out = run(
        "import sys; from gripwire_robot.driver import so101_follower\n"
        "robot, config = so101_follower()\n"
        "print(robot.__module__, robot.__name__, 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    assert out.split() == ["lerobot.robots.so_follower.so_follower", "SOFollower", "False", "False"]


def test_torch_is_the_real_one_for_everything_that_uses_it_later() -> None:
    out = run(
        "from gripwire_robot.driver import so101_follower; so101_follower()\n"
        "from lerobot.utils.device_utils import get_safe_torch_device\n"
        "device = get_safe_torch_device('cpu')\n"
        "import torch\n"
        "print(isinstance(device, torch.device), torch.ones(2).sum().item())"
    )
    assert out.split() == ["True", "2.0"]
