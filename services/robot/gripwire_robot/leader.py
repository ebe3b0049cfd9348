"""The leader arm, read as fast as its bus allows, in a thread of its own: its trouble delays nobody."""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from gripwire import clock
from gripwire.errors import UserError
from gripwire.messages import JOINTS
from gripwire_robot import checks, connect, driver, ports
from gripwire_robot.servos import MotorError, PortLost, Servos
from gripwire_robot.settings import Robot

log = logging.getLogger("gripwire.robot")

RETRY_S = 1.0
IDLE_S = 0.03
"""Between two readings while nobody follows the leader: enough to see a hand."""
_POLL_S = 0.001
"""The driver sleeps for so long at most before it looks for an answer again."""
_ATTEMPTS = 5


@dataclass(frozen=True)
class Sample:
    """Where the leader was."""

    position: dict[str, float]
    t_read: int
    """CLOCK_MONOTONIC ns at the middle of the transfer."""


class Leader:
    """Keeps the leader arm connected, limp, and read."""

    def __init__(self, settings: Robot) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._sample: Sample | None = None
        self._trouble = ""
        self._past: deque[Sample] = deque()
        self._followed = threading.Event()
        self._stop = threading.Event()
        self._driver = driver.so101_leader()  # imported here: it would hold up the loop for a second
        self._thread = threading.Thread(target=self._run, name="leader", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why it cannot be read; empty while it can."""
        return self._trouble

    @property
    def sample(self) -> Sample | None:
        """The newest reading, however old."""
        return self._sample

    def wait(self, after: Sample | None, timeout_s: float) -> Sample | None:
        """The first reading newer than ``after``; None when none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._sample is not after, max(timeout_s, 0.0))
            return self._sample if self._sample is not after else None

    def follow(self, followed: bool) -> None:
        """Read as fast as the bus allows, or just often enough to see a hand."""
        if followed:
            self._followed.set()
        else:
            self._followed.clear()

    def moved(self) -> float:
        """How far its farthest joint has moved within the last second, degrees (gripper: per cent)."""
        with self._changed:
            past = list(self._past)
        if len(past) < 2:
            return 0.0
        first, last = past[0].position, past[-1].position
        return max(abs(last[joint] - first[joint]) for joint in last if joint in first)

    # --- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            servos = None
            try:
                servos = _connect(self._settings, self._driver)
                self._read(servos)
            except (PortLost, UserError) as e:
                self._say(str(e))
            except Exception as e:  # whatever LeRobot raises must not end this thread
                self._say(f"the leader arm failed: {type(e).__name__}: {e}")
            finally:
                if servos:
                    servos.close()
            self._stop.wait(RETRY_S)

    def _say(self, trouble: str) -> None:
        with self._changed:
            self._trouble = trouble
            self._past.clear()

    def _read(self, servos: Servos) -> None:
        """Until it is gone. One bad packet is nothing, half a second of them is silence."""
        well = time.monotonic()
        while not self._stop.is_set():
            begin = clock.monotonic_ns()
            try:
                with servos.short_timeout():
                    position = servos.positions(list(JOINTS))
            except MotorError as e:
                if time.monotonic() - well > self._settings.watchdog_s:
                    self._say(f"the leader on {self._settings.leader_port}: a motor {e}; check its cables")
                self._stop.wait(0.005)
                continue
            well = time.monotonic()
            self._keep(Sample(position, (begin + clock.monotonic_ns()) // 2))
            if not self._followed.is_set():
                self._followed.wait(IDLE_S)

    def _keep(self, sample: Sample) -> None:
        with self._changed:
            self._sample, self._trouble = sample, ""
            if not self._past or sample.t_read - self._past[-1].t_read > IDLE_S * 1e9 / 2:
                self._past.append(sample)
            while self._past and self._past[0].t_read < sample.t_read - 1e9:
                self._past.popleft()
            self._changed.notify_all()

    def close(self) -> None:
        self._stop.set()
        self._followed.set()
        self._thread.join(3.0)


def _connect(settings: Robot, driver_classes: tuple[Any, Any]) -> Servos:
    """Open the leader's port, find its motors, let it go limp.

    Raises:
        PortLost: the port is not there or taken, or a motor is missing.
        UserError: its calibration cannot be used.
    """
    device = connect.leader(settings)
    path = ports.find(str(settings.leader_port))
    file = checks.calibration(device.calibration, device.remedy)
    leader, config = driver_classes
    arm = leader(config(port=path, id=settings.leader_id, calibration_dir=device.calibration.parent))
    servos = Servos(arm, path, device.what)
    try:
        connect.open_port(arm.bus, path, device.what)
        arm.bus.port_handler.ser.timeout = _POLL_S
        connect.refuse_unfit(connect.read_motors(servos, 0.5), file, f"{device.what} on {path}")
        _prepare(servos, path)
    except BaseException:
        servos.close()
        raise
    log.info("the leader on %s is there", path)
    return servos


def _prepare(servos: Servos, path: str) -> None:
    """The file's calibration in the motors, and no torque; again where a packet was bad."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            servos.ask(lambda: _configure(servos.robot))
            return
        except MotorError as e:
            if not left:
                raise PortLost(f"the leader on {path} cannot be set up: {e}; check its cables") from e


def _configure(arm: Any) -> None:
    if not arm.is_calibrated:
        arm.bus.disable_torque()
        arm.bus.write_calibration(arm.calibration)
    arm.configure()
