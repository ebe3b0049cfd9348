"""The whole bus on one screen: every topic, its message, rate, port, queue depth, and who publishes it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from gripwire import messages as m
from gripwire.keys import Keys

KIB, MIB = 1024, 1024 * 1024


class Endpoint(str):
    """An address as ZeroMQ writes it, and the keys that its sockets need; None, and nothing is encrypted."""

    host: str
    port: int
    keys: Keys | None

    def __new__(cls, host: str, port: int, keys: Keys | None = None) -> Self:
        made = super().__new__(cls, f"tcp://{host}:{port}")
        made.host, made.port, made.keys = host, port, keys
        return made

    def __getnewargs__(self) -> tuple[str, int, Keys | None]:  # type: ignore[override]
        return self.host, self.port, self.keys  # what a copy is made from

    @property
    def server(self) -> str:
        """The public key, in hexadecimal, that whoever binds to it must show to those who connect."""
        return self.keys.server(self.host) if self.keys else ""


@dataclass(frozen=True)
class Topic:
    """A declared topic.

    ``rate_hz`` is what the publisher aims at (None: on change); ``depth`` is how many messages are kept for
    a reader that is behind, before the newest are dropped; a larger message than ``max_bytes`` is refused
    by ZeroMQ itself; ``latched``: a new reader gets the last message at once. Its owner binds to ``binds``,
    readers connect to ``endpoint``.
    """

    name: str
    message: type[m.Message]
    owner: str
    rate_hz: float | None
    port: int
    endpoint: Endpoint
    binds: Endpoint
    depth: int
    max_bytes: int
    journalled: bool
    latched: bool = False


# name, message, owner, rate, port offset, depth, largest message, journalled, latched
_FIXED = (
    ("robot/state",  m.RobotState,   "robot",    60.0, 1, 2000,  16 * KIB, True,  False),
    ("robot/action", m.RobotAction,  "robot",    60.0, 2, 2000,  16 * KIB, True,  False),
    ("reward",       m.Reward,       "reward",   30.0, 3, 1000,  16 * KIB, True,  False),
    ("episode",      m.EpisodeState, "recorder", None, 4,  200,  16 * KIB, True,  True),
    ("label",        m.Label,        "console",  None, 5,  200,  16 * KIB, True,  False),
    ("model",        m.ModelState,   "reward",   None, 6,  200,  64 * KIB, True,  True),
    ("trainer",      m.TrainerState, "trainer",  None, 7,  200,  64 * KIB, False, True),
)  # fmt: skip
_CAMERA = (10, 30.0, 60, 16 * MIB)  # first port offset, rate, depth (2 s), a 16 MiB frame at most
SERVICES = {
    "robot": 0, "reward": 1, "recorder": 2, "trainer": 3, "sim": 4, "console": 5, "capsule": 6, "metrics": 7,
}  # fmt: skip
_HEALTH, _CONTROL, SIM_CAMERA, SIM_TRUTH = 20, 40, 60, 61
MAX_CAMERAS = 8
PORT_SPAN = 64
"""A stack uses ports ``port_base`` to ``port_base + PORT_SPAN - 1``."""


LOOPBACK = "127.0.0.1"
WILDCARDS = ("0.0.0.0", "*")
"""Addresses that mean "all of this machine's": one can bind to them, and connect to none."""


class Topics:
    """Every topic of one stack, given where it binds, which camera slots it has, and where it is found.

    ``hosts``: service -> the host at which others find it; ``camera`` stands for all cameras, ``default`` for
    all services that are not named. Without either: ``bind``, or loopback where that is a wildcard. ``keys``:
    this machine's; with them every endpoint is encrypted.
    """

    def __init__(
        self, port_base: int, cameras: Iterable[str] = ("gripper_cam",), bind: str = LOOPBACK,
        hosts: Mapping[str, str] | None = None, keys: Keys | None = None,
    ) -> None:  # fmt: skip
        self.port_base, self.bind, self.cameras = port_base, bind, tuple(cameras)
        self._hosts, self._keys = dict(hosts or {}), keys
        self._topics: dict[str, Topic] = {}
        for name, message, owner, rate, offset, depth, size, journalled, latched in _FIXED:
            self._add(name, message, owner, rate, offset, depth, size, journalled, latched)
        offset, rate, depth, size = _CAMERA
        for i, camera in enumerate(self.cameras):
            self._add(f"camera/{camera}", m.Frame, f"camera/{camera}", rate, offset + i, depth, size, True)
        self.services = SERVICES | {f"camera/{camera}": 8 + i for i, camera in enumerate(self.cameras)}
        for service, i in self.services.items():
            self._add(
                f"health/{service}", m.Health, service, 1.0, _HEALTH + i, 100, 64 * KIB, False, latched=True
            )

    def _add(
        self, name: str, message: type[m.Message], owner: str, rate: float | None, offset: int,
        depth: int, size: int, journalled: bool, latched: bool = False,
    ) -> None:  # fmt: skip
        endpoint, binds = self._found(owner, offset), self._binds(offset)
        self._topics[name] = Topic(
            name, message, owner, rate, self.port_base + offset, endpoint, binds, depth, size, journalled,
            latched,
        )  # fmt: skip

    def _binds(self, offset: int) -> Endpoint:
        return Endpoint(self.bind, self.port_base + offset, self._keys)

    def _found(self, service: str, offset: int) -> Endpoint:
        return Endpoint(self.host(service), self.port_base + offset, self._keys)

    def host(self, service: str) -> str:
        """The host at which ``service`` is found."""
        here = LOOPBACK if self.bind in WILDCARDS else self.bind
        return self._hosts.get(service.split("/")[0]) or self._hosts.get("default") or here

    def __getitem__(self, name: str) -> Topic:
        try:
            return self._topics[name]
        except KeyError:
            raise KeyError(f"no topic `{name}`; there are: {', '.join(sorted(self._topics))}") from None

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def __contains__(self, name: str) -> bool:
        return name in self._topics

    def control(self, service: str) -> Endpoint:
        """The endpoint at which ``service`` (e.g. ``robot`` or ``camera/gripper_cam``) is asked."""
        return self._found(service, _CONTROL + self.services[service])

    def control_binds(self, service: str) -> Endpoint:
        """What ``service`` itself binds to, to be asked there."""
        return self._binds(_CONTROL + self.services[service])

    def sim_camera_port(self) -> int:
        """Where the bench serves its camera over HTTP."""
        return self.port_base + SIM_CAMERA

    def sim_truth_port(self) -> int:
        """Where the bench serves its truth, for evaluation only."""
        return self.port_base + SIM_TRUTH
