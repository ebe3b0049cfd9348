"""A real serial device for LeRobot's own driver: six simulated servos behind a pseudo-terminal."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gripwire import settings
from gripwire.messages import JOINTS
from gripwire.service import Runtime
from gripwire.settings import Settings
from gripwire_robot.service import RobotService
from gripwire_sim import joints as sim_joints
from gripwire_sim.feetech import Chain, Servo
from gripwire_sim.servo_bus import ServoBus

SPEED = 300.0 * sim_joints.STEPS_PER_DEGREE  # encoder steps per second


class Device:
    """Six servos that turn at a servo's speed, and everything that was written to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = folder / "follower"
        self.servos = {
            joint.name: Servo(
                joint.id,
                Homing_Offset=joint.homing_offset,
                Min_Position_Limit=joint.range_min,
                Max_Position_Limit=joint.range_max,
            )
            for joint in sim_joints.TABLE
        }
        self.at = dict.fromkeys(JOINTS, 2047.0)
        self.temperature = dict.fromkeys(JOINTS, 31.0)
        self.blocked: set[str] = set()
        self.load: dict[str, float] = {}
        """Share of its torque that a motor gives, -1..1, where a test says so."""
        self.moved_by = dict.fromkeys(JOINTS, 0.0)
        self.refuses_torque_off: set[str] = set()
        self.off_at: dict[str, float] = {}
        """When torque went off at each servo that has none now, monotonic seconds."""
        self.goal_at = 0.0
        """When a goal register changed last while torque was on."""
        self._goals: dict[str, int] = {}
        self.turned = threading.Condition()
        """Notified after each step of the servos; they step whenever something is read or written."""
        self._then = time.monotonic()
        self._bus: ServoBus | None = None
        self.chain = Chain(list(self.servos.values()), self._turn, self._turn)
        sim_joints.write_calibration(folder, "follower")
        self._turn()

    def _turn(self) -> None:
        with self.turned:
            self._step()
            self.turned.notify_all()

    def wait_until(self, what: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Until ``what`` is true of the servos, which someone must be reading or writing meanwhile."""
        with self.turned:
            assert self.turned.wait_for(what, timeout_s), "it never came true"

    def _step(self) -> None:
        now = time.monotonic()
        self._note(now)
        step, self._then = SPEED * (now - self._then), now
        for name, servo in self.servos.items():
            if name in self.refuses_torque_off:
                servo.set("Torque_Enable", 1)
            if servo.torque and name not in self.blocked:
                by = min(max(servo.get("Goal_Position") - self.at[name], -step), step)
                self.at[name] += by
                self.moved_by[name] += abs(by)
            encoder = round(self.at[name]) + servo.get("Homing_Offset")
            servo.sense(encoder, 0.0, self.load.get(name, 0.0), self.temperature[name])

    def _note(self, now: float) -> None:
        goals = {name: servo.get("Goal_Position") for name, servo in self.servos.items() if servo.torque}
        if any(self._goals.get(name, goal) != goal for name, goal in goals.items()):
            self.goal_at = now
        self._goals = goals
        for name, on in self.torque.items():
            if on:
                self.off_at.pop(name, None)
            else:
                self.off_at.setdefault(name, now)

    def plug(self) -> None:
        self._bus = ServoBus(self.chain, self.port)

    def unplug(self) -> None:
        """Pull the USB cable: the port is gone at once, and with it whoever reads from it."""
        if self._bus:
            self._bus.close()
            self._bus = None

    def silence(self, *names: str) -> None:
        self.chain.silent = {JOINTS.index(name) + 1 for name in names}

    def power_cycle(self, name: str) -> None:
        """What a loose connector does: torque off, goal forgotten."""
        self.servos[name].set("Torque_Enable", 0)
        self.servos[name].set("Goal_Position", 0)

    @property
    def torque(self) -> dict[str, bool]:
        return {name: bool(servo.get("Torque_Enable")) for name, servo in self.servos.items()}

    def goal(self, name: str) -> float:
        """The goal register, in LeRobot's units."""
        return self._units(name, self.servos[name].get("Goal_Position"))

    def position(self, name: str) -> float:
        return self._units(name, self.at[name])

    def place(self, name: str, value: float) -> None:
        """Put a joint somewhere, as a hand does with a limp arm."""
        joint = sim_joints.TABLE[JOINTS.index(name)]
        if name == "gripper":
            self.at[name] = joint.range_min + value / 100 * (joint.range_max - joint.range_min)
        else:
            self.at[name] = 2047 + value * sim_joints.STEPS_PER_DEGREE
        self._turn()

    def _units(self, name: str, steps: float) -> float:
        joint = sim_joints.TABLE[JOINTS.index(name)]
        if name == "gripper":
            return 100 * (steps - joint.range_min) / (joint.range_max - joint.range_min)
        return (steps - 2047) / sim_joints.STEPS_PER_DEGREE


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """The arm, plugged in."""
    built = Device(tmp_path)
    built.plug()
    yield built
    built.unplug()


@pytest.fixture
def robot_settings(stack: Settings, device: Device) -> Callable[..., Settings]:
    """Settings for a robot service on the device."""

    def make(**robot: object) -> Settings:
        flags = {"port": str(device.port), "calibration_dir": device.folder, **robot}
        dotted = {f"robot.{key}": value for key, value in flags.items()}
        return settings.load(flags={"data": stack.data, "port_base": stack.bus.port_base, **dotted}, env={})

    return make


class Driven:
    """The robot service, its loop turned by the test."""

    def __init__(self, configured: Settings) -> None:
        self.runtime = Runtime("robot", configured)
        self.service = RobotService(self.runtime)

    def turn(self, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.service.update()

    def turn_until(self, what: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Turn at the service's own rate until something is true."""
        deadline = time.monotonic() + timeout_s
        due = time.monotonic()
        while not what():
            assert time.monotonic() < deadline, "it never came true"
            self.turn()
            due = max(due + 1 / 60, time.monotonic() - 1)
            self.runtime.stopping.wait(max(0.0, due - time.monotonic()))


@pytest.fixture
def drive(robot_settings: Callable[..., Settings]) -> Iterator[Callable[..., Driven]]:
    """Make and set up a robot service in this process; it is closed at the end."""
    made: list[Driven] = []

    def make(**robot: object) -> Driven:
        made.append(Driven(robot_settings(**robot)))
        made[-1].service.setup()
        return made[-1]

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield make
    for driven in made:
        driven.service.close(failed=True)
        driven.runtime.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def robot_process(device: Device, port_base: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `gripwire robot run` on the device; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")}
    env |= {"OMP_NUM_THREADS": "1"}

    def start(*flags: str) -> subprocess.Popen[str]:
        command = [
            sys.executable, "-m", "gripwire", "robot", "run", "--port-base", str(port_base),
            "--port", str(device.port), "--calibration-dir", str(device.folder), *flags,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=device.folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)
