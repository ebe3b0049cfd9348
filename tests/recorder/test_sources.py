"""What of the bus may enter an episode: a goal only while it is in force."""

import time

import pytest

from gripwire import clock
from gripwire.bus import Publisher
from gripwire.messages import JOINTS, Frame, RobotAction, RobotState
from gripwire.service import Runtime
from gripwire_recorder.sources import Sources, offer
from gripwire_recorder.take import Take

GOAL, HERE = dict.fromkeys(JOINTS, 50.0), dict.fromkeys(JOINTS, 7.0)


@pytest.fixture
def told(stack):
    """Publishes an action; what the recorder's readers then give, and the action's source."""
    runtime = Runtime("recorder", stack)
    publisher = Publisher[RobotAction](runtime.topics["robot/action"])
    sources = Sources(runtime)
    (source,) = [source for source in sources if source.topic == "robot/action"]
    assert publisher.wait_for_subscriber(10)

    def tell(**fields):
        publisher.publish(RobotAction(position=GOAL, **fields))
        deadline, came = time.monotonic() + 10, []
        while not came:
            assert time.monotonic() < deadline
            source.reader.socket.poll(100)
            came = [arrived.received for arrived in sources.drain(None)]
        return came, source

    yield tell, runtime
    publisher.close()
    runtime.close()


def actions(messages):
    """The actions of an episode's rows that begins with these messages and takes half a second more."""
    now = clock.monotonic_ns()
    take = Take(("gripper_cam",), 10, now)
    for received in messages:
        offer(take, received, clock.host_id())
    for t in (now, now + 500_000_000):
        take.state(RobotState(position=HERE, t_capture=t))
        take.frame(Frame(camera="gripper_cam", width=4, height=2, encoding="jpeg", t_capture=t), b"")
    return [row.action[0] for row in take.settle(now + 10**9)]


def test_the_goal_in_force_is_offered_to_an_episode_that_begins(told):
    tell, _ = told
    came, source = tell(valid=True, t_capture=clock.monotonic_ns())
    assert source.last is came[0]
    assert actions([source.last]) == [50.0] * 6


def test_once_the_arm_is_limp_its_last_goal_is_no_action_any_more(told):
    tell, runtime = told
    sent = clock.monotonic_ns()
    before, source = tell(valid=True, t_capture=sent)
    after, _ = tell(valid=False, t_capture=sent)  # as the robot service says it after `release`
    assert source.last is None, "an episode that begins now must not be given the old goal"
    assert actions([*before, *after]) == [7.0] * 6  # nor one that is under way
    assert runtime.problems == "", "an arm that is guided by hand is no fault"
    again, _ = tell(valid=True, t_capture=sent)
    assert source.last is again[0]
