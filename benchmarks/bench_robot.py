"""The arm's bus: what a reading costs, and how fast and how late the follower follows the leader.

Two chains of simulated servos answer behind pseudo-terminals in a process of their own, as fast as they can:
what remains is the cost of LeRobot's driver, the service and the system. A real bus adds its bytes at 1
Mbaud, which is worked out beside. One JSON line per figure.
"""

import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gripwire import settings
from gripwire.bus import Latest
from gripwire.messages import JOINTS, Health
from gripwire_robot import connect
from gripwire_robot.settings import Robot
from gripwire_sim import joints
from gripwire_sim.arms import Leader
from gripwire_sim.servo_bus import ServoBus

BASE = 26100
READINGS, SECONDS = 2000, 10.0
BYTE_S = 10 / 1_000_000


def _servos(folder: Path, ready: Any) -> None:
    start = joints.to_radians(dict.fromkeys(JOINTS, 0.0) | {"gripper": 50.0})
    # A leader's servos go where they are told at once, which is all that a follower's must do here.
    buses = [ServoBus(Leader(start).chain, folder / name) for name in ("follower", "leader")]
    ready.set()
    signal.pause()
    del buses


def _tell(metric: str, **figures: Any) -> None:
    print(json.dumps({"metric": metric, **figures}), flush=True)


def _time(metric: str, read: Callable[[], Any], on_the_wire: int) -> None:
    took = []
    for _ in range(READINGS):
        begin = time.perf_counter()
        read()
        took.append(1000 * (time.perf_counter() - begin))
    cuts = statistics.quantiles(took, n=100)
    _tell(
        metric, median_ms=round(statistics.median(took), 3), p99_ms=round(cuts[98], 3),
        bytes_at_1mbaud_ms=round(1000 * BYTE_S * on_the_wire, 2),
    )  # fmt: skip


def _readings(folder: Path) -> None:
    robot = Robot(port=str(folder / "follower"), id="bench", calibration_dir=folder)
    servos = connect.connect(robot, lambda: None, first=True)
    _time("read_positions", lambda: servos.positions(list(JOINTS)), 14 + 6 * 8)
    _time("read_positions_temperatures_currents", lambda: servos.present(list(JOINTS)), 14 + 6 * 21)
    goal = dict.fromkeys(JOINTS, 1.0)
    _time("write_goals", lambda: servos.write_goals(goal), 8 + 6 * 3)
    servos.cut_all()
    servos.close()


def _teleoperation(folder: Path) -> None:
    flags = ["--port-base", str(BASE), "--data", str(folder)]
    gripwire = [sys.executable, "-m", "gripwire", "robot"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GRIPWIRE_")}
    arms = ["--port", str(folder / "follower"), "--id", "bench", "--calibration-dir", str(folder)]
    arms += ["--leader-port", str(folder / "leader"), "--leader-id", "bench"]
    arms += ["--leader-calibration-dir", str(folder)]
    service = subprocess.Popen([*gripwire, "run", *flags, *arms], env=env, stderr=subprocess.DEVNULL)
    topics = settings.load(flags={"port_base": BASE}, env={}).topics
    try:
        with Latest(topics["health/robot"], Health) as beats:
            while not (beat := beats.wait(1.0)) or beat.message.uptime_s < 6 or beat.message.state != "ready":
                pass
            teleop = subprocess.Popen(
                [*gripwire, "teleop", "--port-base", str(BASE), "--json"],
                env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            time.sleep(SECONDS)
            beat = beats.get()
            assert beat
            _tell("robot_state_during_teleoperation", rate_hz=beat.message.rates["states"])
            teleop.send_signal(signal.SIGINT)
            out, _ = teleop.communicate(timeout=20)
        told = json.loads(out.splitlines()[-1])
        _tell("teleoperation", rate_hz=told["rate_hz"], latency_ms=told["latency_ms"])
    finally:
        service.terminate()
        service.wait(20)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        joints.write_calibration(folder)
        ready = multiprocessing.Event()
        servos = multiprocessing.Process(target=_servos, args=(folder, ready), daemon=True)
        servos.start()
        ready.wait(20)
        _readings(folder)
        _teleoperation(folder)
        servos.terminate()


if __name__ == "__main__":
    main()
