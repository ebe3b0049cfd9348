"""On a live bench whose arm is unplugged in mid-episode: the demo performs that episode again."""

import threading
from collections.abc import Callable, Iterator

import pytest

from gripwire import clock, control, settings
from gripwire.bus import Latest
from gripwire.messages import EpisodeState, Fault, Health, RobotAction
from gripwire.settings import Settings
from gripwire_sim.demo.bench import TRIES, Recording
from gripwire_sim.demo.plan import Planned
from gripwire_sim.demo.stack import Stack
from gripwire_sim.session import ArmError
from tests.conftest import free_port_base

GONE_S = 1.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    folder = tmp_path_factory.mktemp("bench")
    loaded = settings.load(flags={"data": folder / "data", "port_base": free_port_base()}, env={})
    stack = Stack(loaded, folder / "logs")
    try:
        with Latest(loaded.topics["health/recorder"], Health) as beats:  # the last to be ready
            while stack.waiting_for({"sim", "camera/gripper_cam", "robot", "recorder"}):
                assert beats.wait(60)
        yield loaded
    finally:
        stack.close()


@pytest.fixture
def recording(bench: Settings) -> Iterator[Recording]:
    opened = Recording(bench.topics, lambda: False)
    yield opened
    opened.close()


def unplug(bench: Settings, times: int) -> threading.Thread:
    """Pull the arm's cable for a moment whenever a script begins to move it, so many ``times``."""

    def pull() -> None:
        with Latest(bench.topics["robot/action"], RobotAction) as actions:
            for _ in range(times):
                seen = actions.wait(60)
                while seen and seen.message.source != "script":
                    seen = actions.wait(60, after=seen)
                fault = Fault(what="port-gone", value=GONE_S)
                control.request(bench.topics.control("sim"), "sim", fault)
                while seen and seen.message.source == "script":
                    seen = actions.wait(GONE_S / 2, after=seen)

    thread = threading.Thread(target=pull)
    thread.start()
    return thread


def saved(bench: Settings, act: Callable[[], object]) -> int:
    """How many episodes more the recorder has saved when it is idle after ``act``."""
    with Latest(bench.topics["episode"], EpisodeState) as episodes:
        before = now = episodes.wait(10)
        act()
        done = clock.monotonic_ns()
        while now and (now.message.t_publish < done or now.message.state != "idle"):
            now = episodes.wait(30, after=now)
        assert before and now, "the recorder says nothing"
        return now.message.saved - before.message.saved


def test_a_recorded_episode_is_discarded_and_performed_again(bench: Settings, recording: Recording) -> None:
    unplugging = unplug(bench, times=1)
    assert saved(bench, lambda: recording.record(Planned("grasp_hold", 1000, "again"))) == 1
    unplugging.join()
    assert recording.repeated == 1


def test_an_episode_that_nobody_records_is_timed_anew(bench: Settings, recording: Recording) -> None:
    unplugging = unplug(bench, times=1)
    began, ended = recording.play(Planned("close_on_air", 1001))
    unplugging.join()
    assert recording.repeated == 1
    assert 2.0 < (ended - began) / 1e9 < 15.0


def test_an_arm_that_fails_every_time_is_reported_and_leaves_no_episode(
    bench: Settings, recording: Recording
) -> None:
    def give_up() -> None:
        with pytest.raises(ArmError):
            recording.record(Planned("grasp_hold", 1002, "again"))

    unplugging = unplug(bench, times=TRIES)
    assert saved(bench, give_up) == 0
    unplugging.join()
    assert recording.repeated == TRIES - 1
