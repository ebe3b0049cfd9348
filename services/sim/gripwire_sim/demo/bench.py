"""One scripted episode on the bench, through the services' commands like any client."""

import time
from collections.abc import Callable

from gripwire.bus import Latest
from gripwire.control import Client
from gripwire.errors import UserError
from gripwire.messages import (
    Bench,
    EpisodeState,
    Goal,
    Reset,
    ResetBench,
    RobotState,
    StartEpisode,
    StopEpisode,
)
from gripwire.topics import Topics
from gripwire_sim import demonstrator
from gripwire_sim.demo.plan import TASK, Planned
from gripwire_sim.kinematics import Arm

RESET_S = 1.0
NEAR_DEG = 4.0
"""A pose counts as reached within this much of every joint: servos sag a little under load."""


class Hand:
    """Sets the scene, brings the arm to its start, plays scripts, and has episodes recorded."""

    def __init__(self, topics: Topics, stopped: Callable[[], bool]) -> None:
        self._robot = Client(topics.control("robot"), "robot")
        self._sim = Client(topics.control("sim"), "sim")
        self._recorder = Client(topics.control("recorder"), "recorder")
        self._state = Latest(topics["robot/state"], RobotState)
        self._episode = Latest(topics["episode"], EpisodeState)
        self._stopped = stopped
        self._arm = Arm()

    def prepare(self, planned: Planned) -> demonstrator.Script:
        """Start pose first, so that a cube still held is dropped, then the scene of this seed."""
        pose = demonstrator.start_pose(self._arm, planned.seed)
        self._robot.ask(Reset(position=pose, seconds=RESET_S))
        self._wait_until_at(pose)
        bench: Bench = self._sim.ask(ResetBench(seed=planned.seed))
        return demonstrator.script(self._arm, planned.kind, bench.cube, bench.cube_yaw, planned.seed)

    def _wait_until_at(self, pose: dict[str, float]) -> None:
        deadline = time.monotonic() + RESET_S + 4.0
        seen = self._state.get()
        while time.monotonic() < deadline and not self._stopped():
            seen = self._state.wait(0.2, after=seen) or seen
            if seen and all(abs(seen.message.position.get(j, 1e9) - q) < NEAR_DEG for j, q in pose.items()):
                return
        if not self._stopped():
            raise UserError(
                "the arm did not reach its start pose: `gripwire echo robot/state` shows where it is, "
                "and its service's log why"
            )

    def play(self, script: demonstrator.Script) -> None:
        """Play a prepared script through the robot's `Goal` command."""
        demonstrator.play(
            script, lambda q: self._robot.ask(Goal(position=q, source="script")), cancelled=self._stopped
        )

    def record(self, planned: Planned) -> None:
        """Record one episode. It is saved while the next is prepared; see :meth:`wait_saved`."""
        script = self.prepare(planned)
        self._recorder.ask(StartEpisode(task=TASK, dataset=planned.dataset), timeout_s=30)
        self.play(script)
        self._recorder.ask(StopEpisode(), timeout_s=30)

    @property
    def episode(self) -> EpisodeState | None:
        received = self._episode.get()
        return received.message if received else None

    def wait_saved(self, count: int, timeout_s: float) -> EpisodeState:
        """Block until the recorder has made ``count`` episodes durable.

        Raises:
            UserError: it has not within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        seen = self._episode.get()
        while seen is None or seen.message.saved < count:
            if time.monotonic() > deadline or self._stopped():
                found = seen.message if seen else None
                raise UserError(
                    f"the recorder has saved {found.saved if found else 0} of {count} episodes"
                    f"{': ' + found.problem if found and found.problem else ''}; see its log"
                )
            seen = self._episode.wait(0.2, after=seen) or seen
        return seen.message

    def close(self) -> None:
        for closable in (self._robot, self._sim, self._recorder, self._state, self._episode):
            closable.close()
