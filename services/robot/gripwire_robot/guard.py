"""The guard: a process that cuts the arm's torque when the robot service dies without a word, or hangs.

    python guard.py PORT SECONDS text|json      (started by sentry.py; its stdin is the tie)

The service writes a beat into the pipe at every tick. The guard acts when the pipe ends without a goodbye
(the service was killed, or crashed beyond its own care), or when no beat came for SECONDS. It knows Feetech's
packets and nothing of LeRobot, and lives in a session of its own, so that neither Ctrl+C nor a supervisor's
signals reach it. It ends with the service, or after it has acted.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

import serial

BEAT, WAIT, GOODBYE = b".", b"w", b"q"
"""WAIT: what comes may take long (connecting); the next beat ends it."""
CUT = 10
"""Exit code: it has cut the torque of a service that may still live."""

MOTORS = (1, 2, 3, 4, 5, 6)
BAUD = 1_000_000
BROADCAST, WRITE, SYNC_WRITE, TORQUE_ENABLE = 0xFE, 0x03, 0x83, 40
ANSWER_S = 0.015
"""A servo answers in 1 to 2 ms."""
DYING_S = 0.5
PAUSE_S, GIVE_UP_S = 0.05, 30.0
"""Between two rounds over the motors that have not answered, and when to stop trying."""


def packet(number: int, instruction: int, parameters: bytes) -> bytes:
    """Feetech's: FF FF id length instruction parameters checksum."""
    body = bytes([number, len(parameters) + 2, instruction]) + parameters
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


ALL_OFF = packet(BROADCAST, SYNC_WRITE, bytes([TORQUE_ENABLE, 1, *(b for n in MOTORS for b in (n, 0))]))


def off(number: int) -> bytes:
    """Torque off for one motor, which acknowledges it."""
    return packet(number, WRITE, bytes([TORQUE_ENABLE, 0]))


# --- the guard's process ------------------------------------------------------------------------------


def watch(seconds: float) -> str:
    """Wait until the service needs help; why, or empty when it said goodbye."""
    patience: float | None = None  # before the first beat, only the end of the pipe means something
    while True:
        ready, _, _ = select.select([0], [], [], patience)
        if not ready:
            return f"has not turned for {seconds:g} s"
        data = os.read(0, 4096)
        if not data:
            return "died without a word"
        if data.endswith(GOODBYE):
            return ""
        patience = None if data.endswith(WAIT) else seconds


def cut(port: str, hung: bool, say: "Say") -> bool | None:
    """Cut torque at every motor, in rounds, until each has acknowledged it; whether all have. None: another
    service has the arm, and nothing was done.

    Whoever has the port's lock at first is the service that dies: the pipe ends a moment before the kernel
    takes the lock away. Later it is a new one, which is in charge. One that hangs is not asked.
    """
    left, began, told = list(MOTORS), time.monotonic(), ""
    while left and time.monotonic() - began < GIVE_UP_S:
        try:
            with _open(port, respect=not hung) as line:
                left = _round(line, left)
        except BlockingIOError:
            if time.monotonic() - began < DYING_S:
                time.sleep(ANSWER_S / 5)
                continue
            return None
        except (OSError, serial.SerialException) as e:
            if str(e) != told:
                say(f"the arm's port {port} cannot be used ({e}); trying again")
            told = str(e)
        if left:
            time.sleep(PAUSE_S)
    return not left


@contextlib.contextmanager
def _open(port: str, respect: bool) -> Iterator[serial.Serial]:
    """The port; ``respect`` the lock of another service, which is not disturbed by being asked for it: opened
    as a serial port, the line would be flushed.

    Raises:
        BlockingIOError: another has it.
    """
    lock = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        if respect:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise BlockingIOError from e
                raise
        with serial.Serial(port, BAUD, timeout=ANSWER_S, write_timeout=0.1) as line:
            yield line
    finally:
        os.close(lock)


def _round(line: serial.Serial, left: list[int]) -> list[int]:
    """One packet to all, then one to each motor that has not acknowledged; those that still have not.

    The service may have died within a packet, and the first bytes here are taken for its rest: the second
    packet to all comes after those to each.
    """
    line.reset_input_buffer()
    line.write(ALL_OFF)
    silent = [number for number in left if not _acknowledges(line, number)]
    line.write(ALL_OFF)
    line.flush()
    return silent


def _acknowledges(line: serial.Serial, number: int) -> bool:
    line.reset_input_buffer()
    line.write(off(number))
    answer, deadline = b"", time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        answer += line.read(max(1, line.in_waiting))
        # FF FF id 02 error checksum; a motor with an alarm obeys and says so in the error byte
        at = answer.find(bytes([0xFF, 0xFF, number, 2]))
        if at >= 0 and len(answer) >= at + 6:
            return ~sum(answer[at + 2 : at + 5]) & 0xFF == answer[at + 5]
    return False


class Say:
    """A line of the robot service's log."""

    def __init__(self, style: str) -> None:
        self._text = style == "text"

    def __call__(self, text: str, level: str = "warning") -> None:
        now = time.time()
        entry = {"t": round(now, 3), "level": level, "service": "robot", "logger": "gripwire.robot.guard"}
        line = f"{time.strftime('%H:%M:%S', time.localtime(now))} {'robot':<10} {level}: guard: {text}"
        with contextlib.suppress(OSError):  # nobody reads it any more
            print(line if self._text else json.dumps(entry | {"message": text}), file=sys.stderr, flush=True)


def main(port: str, seconds: float, style: str) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    why = watch(seconds)
    if not why:
        return 0
    began, say = time.monotonic(), Say(style)
    everywhere = cut(port, why.startswith("has not"), say)
    took = f"{1000 * (time.monotonic() - began):.0f} ms"
    if everywhere is None:
        say(f"the robot service {why}, and another has the arm by now: it is in charge")
    elif everywhere:
        say(f"the robot service {why}: torque is off at all motors, after {took}")
    else:
        say(f"the robot service {why}, and not every motor acknowledged: switch the arm's power off", "error")
    return CUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
