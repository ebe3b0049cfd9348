"""LeRobot's teleoperator type `gripwire`: the leader drives inside the robot service, LeRobot looks on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gripwire.messages import Intervene, RobotAction
from tests.helpers import wait_for
from tests.lerobot.conftest import Running


@pytest.fixture
def make(bench: Running, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A robot or teleoperator as LeRobot makes them of their configurations."""
    from lerobot.robots import make_robot_from_config
    from lerobot.teleoperators import make_teleoperator_from_config

    from lerobot_robot_gripwire import GripwireRobotConfig, GripwireTeleopConfig

    made: list[Any] = []

    def build(what: str, **given: Any) -> Any:
        where = {"port_base": bench.port_base, "calibration_dir": tmp_path / what}
        if what == "robot":
            made.append(make_robot_from_config(GripwireRobotConfig(cameras={}, **where, **given)))
        else:
            made.append(make_teleoperator_from_config(GripwireTeleopConfig(**where, **given)))
        made[-1].connect()
        return made[-1]

    yield build
    for one in made:
        if one.is_connected:
            one.disconnect()


def test_the_leader_drives_and_an_action_is_what_it_really_sent(
    make: Callable[..., Any], bench: Running
) -> None:
    teleop = make("teleop")
    robot = make("robot")  # it does not fight the leader for the arm
    before = teleop.get_action()
    assert set(before) == set(teleop.action_features) == set(robot.action_features)
    target = 70.0 if before["gripper.pos"] < 50.0 else 30.0
    bench.move_leader(gripper=target)
    bench.until(lambda: abs(teleop.get_action()["gripper.pos"] - target) < 1.0)
    action = teleop.get_action()
    sent = robot.send_action({key: 0.0 for key in action})  # whatever it is asked: nothing is sent
    assert sent == pytest.approx(action, abs=1.5)
    wait_for(bench.states, lambda s: abs(s.position["gripper"] - target) < 5.0)
    teleop.disconnect()
    ended = wait_for(bench.actions, lambda a: a.source != "leader")
    assert (ended.source, ended.driver) == ("hold", "")


def test_a_leader_that_is_gone_ends_the_actions_with_the_reason(
    make: Callable[..., Any], mended: Running
) -> None:
    teleop = make("teleop")
    mended.fault("leader-gone")
    with pytest.raises(TimeoutError, match=r"is not valid: the leader does not drive: .*leader"):
        mended.until_it_raises(teleop.get_action)
    teleop.disconnect()
    mended.fault("clear")

    def connects() -> bool:
        try:
            teleop.connect()
        except ConnectionError:  # the service looks for it now and then
            return False
        return True

    mended.until(connects)
    assert teleop.get_action()


def test_for_hil_serl_a_policy_drives_and_a_person_takes_over(
    make: Callable[..., Any], bench: Running
) -> None:
    from lerobot.teleoperators.utils import TeleopEvents

    def driven(teleop: Any) -> bool:
        return bool(teleop.get_teleop_events()[TeleopEvents.IS_INTERVENTION])

    teleop = make("teleop", step_sizes={"x": 0.05, "y": 0.05, "z": 0.05})
    robot = make("robot")
    assert set(teleop.action_features["names"]) == set(teleop.get_action())
    here = bench.here()
    assert robot.send_action(here) == pytest.approx(here, abs=3.0)
    assert not driven(teleop)
    pan = bench.state().position["shoulder_pan"]
    bench.move_leader(0.1, **{joint: at for joint, at in bench.state().position.items()})
    bench.ask("robot", Intervene(on=True))

    def taken_over(action: RobotAction) -> bool:
        robot.send_action(here)  # the policy goes on, and keeps its lease
        return action.intervention and action.source == "leader" and driven(teleop)

    wait_for(bench.actions, taken_over)
    teleop.get_action()
    bench.move_leader(0.3, shoulder_pan=pan + 15.0)

    def turned(action: RobotAction) -> bool:
        sent = robot.send_action(here)
        return sent["shoulder_pan.pos"] > pan + 12.0 and action.intervention

    wait_for(bench.actions, turned)
    wait_for(bench.states, lambda s: s.position["shoulder_pan"] > pan + 8.0)
    way = teleop.get_action()
    assert abs(way["delta_y"]) > 0.1 and all(abs(way[f"delta_{axis}"]) <= 1.0 for axis in "xyz")
    assert way["gripper"] == 1.0
    robot.send_action(here)
    bench.ask("robot", Intervene(on=False))
    wait_for(bench.actions, lambda a: not a.intervention and not driven(teleop))


def test_steps_that_are_not_lengths_by_axis_are_refused(tmp_path: Path) -> None:
    from lerobot_robot_gripwire import GripwireTeleop, GripwireTeleopConfig

    for steps in ({"x": 0.02, "y": 0.02}, {"x": 0.0, "y": 0.02, "z": 0.02}):
        with pytest.raises(ValueError, match="`step_sizes` are metres by axis"):
            GripwireTeleop(GripwireTeleopConfig(step_sizes=steps, calibration_dir=tmp_path))
