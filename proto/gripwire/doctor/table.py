"""All checks, in the order in which a person wants to know."""

import logging
from collections.abc import Callable, Iterable, Iterator

from gripwire.doctor import (
    clock,
    devices,
    disk,
    egl,
    gpu,
    keys,
    leftovers,
    limits,
    ports,
    python,
    settings,
    stack,
    usb,
)  # fmt: skip
from gripwire.doctor.finding import Finding, Here

log = logging.getLogger(__name__)

CHECKS: dict[str, Callable[[Here], Iterable[Finding]]] = {
    "python": python.check,
    "settings": settings.check,
    "stack": stack.check,
    "ports": ports.check,
    "cameras": devices.cameras,
    "usb": usb.check,
    "serial": devices.serial,
    "disk": disk.check,
    "leftovers": leftovers.check,
    "keys": keys.check,
    "clock": clock.check,
    "gpu": gpu.check,
    "egl": egl.check,
    "limits": limits.check,
}


def examine(here: Here) -> Iterator[Finding]:
    """Every check's findings, as they come. A check that breaks is a finding, and the next one follows."""
    for name, check in CHECKS.items():
        try:
            yield from check(here)
        except Exception as e:
            log.debug("check %s", name, exc_info=True)
            yield Finding(
                name, "warn", f"could not be looked at: {type(e).__name__}: {e}",
                "this is a bug in gripwire, please report it",
            )  # fmt: skip
