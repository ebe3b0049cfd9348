"""A servo bus for another container: a chain of servos behind a socket in a folder that both can see."""

import contextlib
import os
import select
import socket
import threading
import time
from pathlib import Path

from gripwire.errors import UserError
from gripwire_sim.feetech import Chain
from gripwire_sim.servo_bus import SILENCE_S


class ServoSocket:
    """Answers whoever is connected to the UNIX socket ``link``, one client at a time, for as long as it is
    open. `gripwire sim plug` makes a serial port of it (:mod:`gripwire_sim.plug`).

    The socket is its owner's alone (mode 600): who may open it may move the arm, as with a serial port.
    """

    def __init__(self, chain: Chain, link: Path) -> None:
        self.chain = chain
        self.link = link
        self._wake_read, self._wake_write = os.pipe()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        aside = link.with_name(f".{link.name}.{os.getpid()}")
        try:
            aside.unlink(missing_ok=True)
            self._listener.bind(str(aside))
            aside.chmod(0o600)
            self._listener.listen(1)
            aside.replace(link)  # in one step, whatever a killed bench left there
        except OSError as e:
            self._close_files()
            raise UserError(
                f"cannot offer the serial port as a socket at {link}: {e.strerror or e}; choose a writable "
                "folder of a short name with `sockets` in [sim] (GRIPWIRE_SIM__SOCKETS)"
            ) from e
        self._inode = link.stat().st_ino
        self._thread = threading.Thread(target=self._serve, name=f"servos-{link.name}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._readable(self._listener):
            client, _ = self._listener.accept()
            with client, contextlib.suppress(OSError):  # a client that goes away in the middle
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        heard = 0.0
        while self._readable(client):
            data = client.recv(4096)
            if not data:
                return
            now = time.monotonic()
            if now - heard > SILENCE_S:
                self.chain.forget()
            heard = now
            client.sendall(self.chain.feed(data))

    def _readable(self, waited_for: socket.socket) -> bool:
        """Wait for something to read; False: the end has come."""
        ready, _, _ = select.select([waited_for, self._wake_read], [], [])
        return self._wake_read not in ready

    def close(self) -> None:
        os.write(self._wake_write, b"x")
        self._thread.join()
        # A bench that took over the name meanwhile keeps it.
        with contextlib.suppress(OSError):
            if self.link.stat().st_ino == self._inode:
                self.link.unlink()
        self._close_files()

    def _close_files(self) -> None:
        self._listener.close()
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)
