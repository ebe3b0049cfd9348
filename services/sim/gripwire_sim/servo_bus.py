"""A serial port that is not there: a chain of servos behind a pseudo-terminal with a lasting name."""

import contextlib
import logging
import os
import select
import threading
import time
import tty
from pathlib import Path

from gripwire.errors import UserError
from gripwire_sim.feetech import Chain

log = logging.getLogger("gripwire.sim")

SILENCE_S = 0.05
"""A packet that was begun and then paused for so long is dropped."""


class ServoBus:
    """Answers on ``link``, a symlink to the pseudo-terminal, for as long as it is open.

    Clients come and go as on a real port: one that closes leaves nothing behind for the next.
    """

    def __init__(self, chain: Chain, link: Path) -> None:
        self.chain = chain
        self.link = link
        self._master, self._slave = os.openpty()
        # We keep the far end open too: with no client left a read would otherwise fail instead of waiting.
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device = os.ttyname(self._slave)
        self._wake_read, self._wake_write = os.pipe()
        try:
            point(link, self.device)
        except OSError as e:
            self._close_files()
            raise UserError(
                f"cannot create the serial port's name {link}: {e.strerror}; "
                "choose a writable folder with --data (GRIPWIRE_DATA)"
            ) from e
        self._thread = threading.Thread(target=self._serve, name=f"servos-{link.name}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        heard = 0.0
        while True:
            ready, _, _ = select.select([self._master, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            data = os.read(self._master, 4096)
            now = time.monotonic()
            if now - heard > SILENCE_S:
                self.chain.forget()
            heard = now
            answer = self.chain.feed(data)
            # Nobody reads and the line is full: the bytes are lost, as they are on a wire.
            with contextlib.suppress(BlockingIOError):
                os.write(self._master, answer)

    def close(self) -> None:
        os.write(self._wake_write, b"x")
        self._thread.join()
        # A bench that took over the name meanwhile keeps it.
        with contextlib.suppress(OSError):
            if os.readlink(self.link) == self.device:
                self.link.unlink()
        self._close_files()

    def _close_files(self) -> None:
        for fd in (self._master, self._slave, self._wake_read, self._wake_write):
            os.close(fd)


def point(link: Path, device: str) -> None:
    """Make ``link`` lead to ``device``, in one step, whatever a killed bench left there."""
    link.parent.mkdir(parents=True, exist_ok=True)
    aside = link.with_name(f".{link.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    aside.symlink_to(device)
    aside.replace(link)
