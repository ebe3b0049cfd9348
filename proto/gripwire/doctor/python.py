"""The interpreter, what is installed, and whether the installed parts belong together."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import zmq

from gripwire import __version__
from gripwire.doctor.finding import Finding, Here

NEEDED = (3, 12)
SERVICES = ("camera", "robot", "reward", "recorder", "trainer", "sim")


def check(here: Here) -> Iterator[Finding]:
    """Python and libzmq as they run here, and the distributions of the services."""
    yield interpreter(sys.version_info[:2], platform.platform())
    yield installed(_versions(), __version__)
    if not zmq.has("curve"):
        yield Finding(
            "libzmq", "fail", f"libzmq {zmq.zmq_version()} was built without CURVE: nothing can be encrypted",
            "take pyzmq's own wheel: `pip install --force-reinstall --no-binary=:none: pyzmq`",
        )  # fmt: skip


def interpreter(running: tuple[int, ...], system: str) -> Finding:
    text = f"Python {platform.python_version()} at {sys.executable}, libzmq {zmq.zmq_version()}, {system}"
    if running < NEEDED:
        return Finding("python", "fail", text, f"gripwire needs Python {NEEDED[0]}.{NEEDED[1]} or newer")
    return Finding("python", "ok", text)


def installed(versions: dict[str, str], ours: str) -> Finding:
    """``versions``: of the services that are installed, by name."""
    others = {name: v for name, v in versions.items() if v != ours}
    if others:
        told = ", ".join(f"{name} {version}" for name, version in others.items())
        return Finding(
            "packages", "fail", f"gripwire is {ours}, but {told}: they were installed at different times",
            "install all of them from one release (in the repository: `make install`)",
        )  # fmt: skip
    names = ", ".join(versions) or "none: this machine can look at a stack, record and replay"
    return Finding("packages", "ok", f"gripwire {ours}; services installed here: {names}")


def _versions() -> dict[str, str]:
    found = {}
    for service in SERVICES:
        try:
            found[service] = version(f"gripwire-{service}")
        except PackageNotFoundError:
            continue
    return found
