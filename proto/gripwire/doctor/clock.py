"""The wall clock: kept by somebody, and not set while the stack ran.

Ages and delays are measured on CLOCK_MONOTONIC, which nobody sets; the wall clock stands in logs, names of
sessions and recordings, and tells what happened when on two machines.
"""

import ctypes
import sys
import time
from collections.abc import Iterator, Mapping

from gripwire import clock
from gripwire.doctor.finding import Finding, Here
from gripwire.messages import Message

EARLIEST = 1735689600.0  # 2025-01-01: older than any release
JUMP_S = 0.5
_STA_UNSYNC, _STATUS_AT = 0x40, 40


def check(here: Here) -> Iterator[Finding]:
    """Now, and against what the running stack's messages say of their own moments."""
    yield wall(time.time(), unsynchronised())
    messages = {**{f"health/{name}": beat for name, beat in here.beats.items()}, **here.latest}
    yield from jumps(messages, clock.host_id(), time.time_ns() - clock.monotonic_ns())


def wall(now: float, unsynchronised: bool | None) -> Finding:
    """``now`` in seconds since 1970; ``unsynchronised``: None where the system does not say. Pure."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now))
    remedy = "`sudo timedatectl set-ntp true`, or install chrony"
    if now < EARLIEST:
        return Finding("clock", "fail", f"the wall clock says {stamp}", f"set it: {remedy}")
    if unsynchronised:
        return Finding(
            "clock", "warn", f"{stamp}; by the kernel's word nobody keeps the wall clock right: logs of two "
            "machines will not agree", remedy,
        )  # fmt: skip
    return Finding(
        "clock", "ok", f"{stamp}" + ("" if unsynchronised is None else ", kept right by NTP or the host")
    )


def jumps(messages: Mapping[str, Message], host: str, offset_ns: int) -> Iterator[Finding]:
    """Whether the wall clock was set since messages of this machine were published.

    ``offset_ns``: what the wall clock is ahead of CLOCK_MONOTONIC now. Pure.
    """
    worst, topic = 0.0, ""
    for name, message in messages.items():
        if message.host == host and message.t_publish:
            moved = (offset_ns - (message.t_wall - message.t_publish)) / 1e9
            if abs(moved) > abs(worst):
                worst, topic = moved, name
    if abs(worst) > JUMP_S:
        yield Finding(
            "clock", "warn", f"the wall clock was set by {worst:+.1f} s since `{topic}` was last published",
            "no age or delay suffers, but times in logs and recordings before and after do not fit together: "
            "have it kept right (`sudo timedatectl set-ntp true`)",
        )  # fmt: skip


def unsynchronised() -> bool | None:
    """What the kernel says (adjtimex(2)); None where it cannot be asked."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    timex = ctypes.create_string_buffer(512)  # all zero: change nothing
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(timex) < 0:
            return None
    except (OSError, AttributeError):
        return None
    status = int.from_bytes(timex.raw[_STATUS_AT : _STATUS_AT + 4], sys.byteorder)
    return bool(status & _STA_UNSYNC)
