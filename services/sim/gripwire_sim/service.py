"""`gripwire sim run`: the bench as devices, and the commands that lay out a scene or break something."""

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gripwire.errors import UserError
from gripwire.messages import JOINTS, Bench, Command, Done, Fault, MoveLeader, Reply, ResetBench
from gripwire.service import Runtime
from gripwire_sim.settings import SimSettings

if TYPE_CHECKING:
    from gripwire_sim.feetech import Chain
    from gripwire_sim.picture import Camera
    from gripwire_sim.servo_bus import ServoBus
    from gripwire_sim.servo_socket import ServoSocket
    from gripwire_sim.web import Web

log = logging.getLogger("gripwire.sim")

FOLDER = "sim"
"""Below the data root: ``follower`` and ``leader`` (serial ports) and ``calibration/bench.json``."""
FOLLOWER, LEADER = "follower", "leader"
HOT_C = 85.0
_JUDGE_EVERY_S = 3.0


class SimService:
    """One bench: a follower and a leader arm on serial ports, a camera and the truth over HTTP."""

    rate_hz: float | None = 10.0

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.section("sim", SimSettings)
        self._folder = runtime.settings.data / FOLDER
        self._stop = threading.Event()
        self._open: list[Web | Camera] = []
        self._buses: dict[str, ServoBus | ServoSocket] = {}
        self._plug_at: dict[str, float] = {}
        """When a port that is gone comes back, by name (monotonic s)."""
        self._judged = (0.0, 0)

    @property
    def commands(self) -> dict[type[Command], Callable[[Any], Reply]]:
        return {ResetBench: self._reset, MoveLeader: self._move_leader, Fault: self._fault}

    def setup(self) -> None:
        try:
            import mujoco
        except Exception as e:  # its OpenGL backend is loaded with it, and each fails in its own way
            raise UserError(
                f"MuJoCo does not load with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} ({e}); unset it, "
                "or set it to `disable` and the bench paints its pictures without OpenGL"
            ) from e
        self._runtime.versions["mujoco"] = mujoco.__version__
        # Servos answer within a millisecond or two; the camera's thread must not keep them from it for 5.
        sys.setswitchinterval(0.001)
        self._power_on()
        self._runtime.versions["drawn_by"] = self._camera.drawn_by
        self._serve()
        self._physics = threading.Thread(
            target=self._world.run, args=(self._stop,), name="physics", daemon=True
        )
        self._physics.start()
        self._judged = (time.monotonic(), self._camera.exposures)

    def _power_on(self) -> None:
        from gripwire_sim.arms import Follower, Leader
        from gripwire_sim.picture import Camera
        from gripwire_sim.truth import Ledger
        from gripwire_sim.world import World

        self._world = World(self._settings.seed)
        self._follower = Follower(self._world)
        self._leader = Leader()
        self._ledger = Ledger(self._settings.rate_hz)
        self._camera = Camera(self._world, self._settings.rate_hz, self._ledger.record)
        self._open.append(self._camera)
        self._camera.ready.wait()
        if self._camera.failure:
            raise self._camera.failure

    def _serve(self) -> None:
        from gripwire_sim import joints, mjpeg, truth

        topics = self._runtime.topics
        self._open.append(mjpeg.serve(self._camera, topics.bind, topics.sim_camera_port()))
        self._open.append(truth.serve(self._ledger, topics.bind, topics.sim_truth_port()))
        joints.write_calibration(self._folder / "calibration")
        follower = self._connect(FOLLOWER, self._follower.chain)
        leader = self._connect(LEADER, self._leader.chain)
        log.info(
            "camera http://%s:%d/, follower %s, leader %s, calibration in %s (id `bench`)",
            topics.bind, topics.sim_camera_port(), follower, leader, self._folder / "calibration",
        )  # fmt: skip

    def _connect(self, name: str, chain: "Chain") -> Path:
        """Plug an arm in; where."""
        from gripwire_sim.servo_bus import ServoBus
        from gripwire_sim.servo_socket import ServoSocket

        if folder := self._settings.sockets:
            self._buses[name] = ServoSocket(chain, folder / name)
        else:
            self._buses[name] = ServoBus(chain, self._folder / name)
        return self._buses[name].link

    def update(self) -> None:
        if self._camera.failure:
            raise self._camera.failure
        if not self._physics.is_alive():
            raise RuntimeError("the simulation has stopped by itself")
        self._plug()
        counts, chain = self._runtime.counts, self._follower.chain
        counts["exposures"] = self._camera.exposures
        counts["exposures_late"] = self._camera.late
        counts["servo_packets"] = chain.packets
        counts["servo_packets_refused"] = chain.bad_packets
        counts["slipped_ms"] = round(self._world.slipped_s * 1000)
        self._judge_rate()

    def _judge_rate(self) -> None:
        """Say so when the machine cannot draw as many pictures as were asked for."""
        since, before = self._judged
        seconds = time.monotonic() - since
        if seconds < _JUDGE_EVERY_S:
            return
        rate = (self._camera.exposures - before) / seconds
        self._judged = (time.monotonic(), self._camera.exposures)
        healthy = self._camera.dropped or self._camera.frozen or rate >= 0.8 * self._settings.rate_hz
        self._runtime.problem(
            "rate",
            ""
            if healthy
            else f"the bench draws {rate:.0f} of {self._settings.rate_hz:g} pictures a second: "
            "the machine is busy; end other programs or lower `rate_hz` in [sim]",
        )

    def _reset(self, command: ResetBench) -> Bench:
        from gripwire_sim.scene import Scene

        if command.seed < 0:
            raise UserError(f"a scene's seed is 0 or more, not {command.seed}")
        scene = Scene.draw(command.seed)
        self._world.reset(scene)
        return Bench(seed=scene.seed, cube=scene.cube, cube_yaw=scene.cube_yaw)

    def _move_leader(self, command: MoveLeader) -> Done:
        if unknown := [joint for joint in command.position if joint not in JOINTS]:
            raise UserError(f"no joint `{unknown[0]}`; there are: {', '.join(JOINTS)}")
        if not all(math.isfinite(value) for value in command.position.values()):
            raise UserError("a position is a finite number for each joint")
        self._leader.move(command.position, command.seconds)
        return Done(text=f"a hand moves the leader, {command.seconds:g} s")

    def _fault(self, command: Fault) -> Done:
        faults: dict[str, Callable[[Fault], str]] = {
            "camera-drop": self._camera_drop,
            "camera-freeze": self._camera_freeze,
            "servo-silent": self._servo_silent,
            "servo-hot": self._servo_hot,
            "servo-jam": self._servo_jam,
            "port-gone": self._port_gone,
            "leader-gone": self._leader_gone,
            "corrupt": self._corrupt,
            "lamp": self._lamp,
            "supply": self._supply,
            "clear": self._clear,
        }
        if command.what not in faults:
            raise UserError(f"no fault `{command.what}`; there are: {', '.join(faults)}")
        text = faults[command.what](command)
        log.info("%s", text)
        return Done(text=text)

    def _camera_drop(self, _: Fault) -> str:
        self._camera.dropped = True
        return "the camera is unplugged"

    def _camera_freeze(self, _: Fault) -> str:
        self._camera.frozen = True
        return "the camera repeats its last picture"

    def _servo_silent(self, command: Fault) -> str:
        servo = _servo(command.joint)
        self._follower.chain.silent |= {servo}
        return f"servo {servo} ({JOINTS[servo - 1]}) is silent"

    def _servo_hot(self, command: Fault) -> str:
        servo = _servo(command.joint)
        celsius = command.value or HOT_C
        if not 20 <= celsius <= 120:
            raise UserError(f"`servo-hot` takes degrees Celsius from 20 to 120, not {celsius:g}")
        self._follower.heat(self._follower.hot | {servo: celsius})
        gone = " and has let go" if celsius > 70 else ""
        return f"servo {servo} ({JOINTS[servo - 1]}) is at {celsius:g} C{gone}"

    def _servo_jam(self, command: Fault) -> str:
        servo = _servo(command.joint)
        self._follower.jam(self._world.jammed | {servo - 1})
        return f"something blocks servo {servo} ({JOINTS[servo - 1]})"

    def _port_gone(self, command: Fault) -> str:
        return self._unplug(FOLLOWER, command)

    def _leader_gone(self, command: Fault) -> str:
        return self._unplug(LEADER, command)

    def _unplug(self, name: str, command: Fault) -> str:
        """Pull a USB cable, for ``value`` seconds or until `clear`."""
        if not 0 <= command.value <= 3600:
            raise UserError(f"`{command.what}` takes seconds from 0 (until `clear`) to 3600")
        if bus := self._buses.pop(name, None):
            bus.close()
        self._plug_at[name] = time.monotonic() + (command.value or math.inf)
        return f"the {name}'s port is gone" + (f" for {command.value:g} s" if command.value else "")

    def _plug(self) -> None:
        """Put the cables back in for which it is time."""
        for name, at in list(self._plug_at.items()):
            if time.monotonic() >= at:
                arm = self._follower if name == FOLLOWER else self._leader
                self._connect(name, arm.chain)
                del self._plug_at[name]

    def _corrupt(self, command: Fault) -> str:
        self._follower.chain.corrupt = _share(command)
        return f"{command.value:.0%} of the servos' packets are corrupt"

    def _lamp(self, command: Fault) -> str:
        self._world.dim(_share(command))
        return f"the lamp gives {command.value:.0%} of its light"

    def _supply(self, command: Fault) -> str:
        if not 0 <= command.value <= 25:
            raise UserError(f"`supply` takes volts between 0 and 25, not {command.value:g}")
        self._follower.feed(command.value)
        return f"the follower's power supply gives {command.value:.1f} V"

    def _clear(self, _: Fault) -> str:
        self._camera.dropped = self._camera.frozen = False
        self._follower.chain.silent = set()
        self._follower.chain.corrupt = 0.0
        self._follower.heat({})
        self._follower.jam(set())
        self._plug_at = dict.fromkeys(self._plug_at, 0.0)
        self._plug()
        self._follower.feed()
        self._world.dim(1.0)
        return "nothing is broken"

    def close(self, failed: bool) -> None:
        self._stop.set()
        for opened in [*self._buses.values(), *reversed(self._open)]:
            opened.close()


def _servo(joint: str) -> int:
    """A joint's name or number (1 to 6) -> its servo's id."""
    if joint in JOINTS:
        return JOINTS.index(joint) + 1
    if joint in {str(number) for number in range(1, len(JOINTS) + 1)}:
        return int(joint)
    raise UserError(f"which servo? Give a joint (1 to 6, or {', '.join(JOINTS)}), not `{joint}`")


def _share(command: Fault) -> float:
    if not 0 <= command.value <= 1:
        raise UserError(f"`{command.what}` takes a share between 0 and 1, not {command.value:g}")
    return command.value
