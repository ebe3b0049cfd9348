"""The near end of the bench's serial cables, for a robot service in a container of its own.

A pseudo-terminal cannot cross into another container: each has a /dev/pts of its own, and the kernel opens a
terminal only through the /dev/pts it belongs to. Bytes can. So the bench offers each serial line as a socket
(:mod:`gripwire_sim.servo_socket`), and here a pseudo-terminal is made beside the robot service, which opens
it as it opens any serial port, with LeRobot's own driver.

A cable whose far end goes away is an unplugged one: the port is gone until the bench is back.
"""

import contextlib
import os
import select
import signal
import socket
import threading
import time
import tty
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gripwire.errors import UserError
from gripwire_sim.servo_bus import point

RETRY_S = 0.1
"""Between two looks for a bench that is not there."""


def plug(cables: Mapping[Path, Path], command: Sequence[str], patience_s: float) -> NoReturn:
    """Become ``command``, with a child that carries the ``cables`` (socket -> serial port's name) for as long
    as that runs. It begins when all ports are there, or after ``patience_s``.

    Raises:
        UserError: there is no such command.
    """
    # The child learns of our end, whoever we are by then, when nobody holds the pipe's other end any more.
    over, alive = os.pipe()
    if os.fork() == 0:
        os.close(alive)
        _child(cables, over)
    os.close(over)
    os.set_inheritable(alive, True)
    deadline = time.monotonic() + patience_s
    while not all(link.exists() for link in cables.values()) and time.monotonic() < deadline:
        time.sleep(RETRY_S)
    try:
        os.execvp(command[0], list(command))
    except OSError as e:
        raise UserError(f"cannot run {command[0]}: {e.strerror}; name a command after `--`") from e


def _child(cables: Mapping[Path, Path], over: int) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the robot needs its port until it has come to rest
    threads = [threading.Thread(target=carry, args=(*cable, over)) for cable in cables.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)


def carry(far: Path, link: Path, over: int) -> None:
    """Hold one cable until ``over``, a pipe, has ended: a serial port named ``link`` while something listens
    at ``far``."""
    while line := _reach(far, over):
        master, slave = os.openpty()
        # We keep the port open too: with no client left a read would otherwise fail instead of waiting.
        tty.setraw(slave)
        os.set_blocking(master, False)
        try:
            point(link, os.ttyname(slave))
            _carry(line, master, over)
        finally:
            link.unlink(missing_ok=True)
            for fd in (master, slave):
                os.close(fd)
            line.close()


def _reach(far: Path, over: int) -> socket.socket | None:
    """A connection to the bench, once there is one; None: it is over."""
    wait_s = 0.0
    while not select.select([over], [], [], wait_s)[0]:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.connect(str(far))
            return line
        except OSError:
            line.close()
        wait_s = RETRY_S
    return None


def _carry(line: socket.socket, master: int, over: int) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            ready, _, _ = select.select([line, master, over], [], [])
            if over in ready:
                return
            if master in ready:
                line.sendall(os.read(master, 4096))
            if line in ready:
                data = line.recv(4096)
                if not data:
                    return
                # Nobody reads and the line is full: the bytes are lost, as they are on a wire.
                with contextlib.suppress(BlockingIOError):
                    os.write(master, data)
