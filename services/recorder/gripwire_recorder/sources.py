"""What is recorded: one reader per topic, whether it is alive, and what of it may enter an episode."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gripwire import clock
from gripwire.bus import Queued, Received
from gripwire.errors import UserError
from gripwire.messages import Frame, Label, Message, ModelState, Reward, RobotAction, RobotState
from gripwire.service import Runtime
from gripwire_recorder.take import Take, has_all_joints

SILENT_S = 1.0
"""A topic faster than 10 Hz that says nothing for so long is not alive."""
_HELD_UP_S = 0.25
"""More than this between two looks of a loop that takes 20 ms: the machine gave us no time."""
_DEPTH = 600
"""Messages kept for us while the loop cannot drain (20 s of a camera: LeRobot's import holds the GIL)."""

_HEADER_BYTES = 500
"""Of a message in a journal, beside its picture."""

Sizes = dict[str, tuple[int, int]]
"""Height and width of each camera's pictures."""


@dataclass
class Source:
    """One topic: its reader, its last good message, and what is wrong with the newest."""

    topic: str
    reader: Queued[Any]
    needed: bool
    last: Received[Any] | None = None
    silent_s: float = 0.0  # how long we have listened since the last good message
    refusal: str = ""

    def heard_lately(self) -> bool:
        return self.last is not None and self.silent_s <= SILENT_S


@dataclass(frozen=True)
class Arrived:
    """A message, and why it must not become part of an episode; empty when it may."""

    topic: str
    received: Received[Any]
    refusal: str


class Sources:
    """All journalled topics: camera slots and ``robot/state``, which are needed, and the others."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._listened = time.monotonic()
        self.bytes = 0
        """Roughly what recording all that has arrived so far would have taken."""
        models: dict[str, tuple[type[Message], bool]] = {
            f"camera/{camera}": (Frame, True) for camera in runtime.settings.cameras
        }
        models |= {"robot/state": (RobotState, True), "robot/action": (RobotAction, False)}
        models |= {"reward": (Reward, False), "model": (ModelState, False), "label": (Label, False)}
        self._all = []
        for topic, (model, needed) in models.items():
            depth = max(_DEPTH, runtime.topics[topic].depth)
            self._all.append(Source(topic, runtime.queued(topic, model, depth), needed))

    def __iter__(self) -> Iterator[Source]:
        return iter(self._all)

    def needed(self) -> list[Source]:
        """Those without which there is no row."""
        return [source for source in self._all if source.needed]

    def lost(self) -> dict[str, int]:
        """Messages lost on the way so far, by topic."""
        return {source.topic: source.reader.gaps.lost for source in self._all}

    def drain(self, sizes: Sizes | None) -> Iterator[Arrived]:
        """Every message that has arrived; ``sizes``: of the pictures of the episode under way."""
        host = clock.host_id()
        self._listen()
        for source in self._all:
            lost = source.reader.gaps.lost
            for received in source.reader.drain():
                self._runtime.count(source.topic)
                self.bytes += len(received.payload or b"") + _HEADER_BYTES
                source.refusal = refusal(source.topic, received, sizes or {}, host)
                text = f"{source.topic} is not recorded: {source.refusal}" if source.refusal else ""
                self._runtime.problem(f"refused {source.topic}", text)
                if isinstance(received.message, RobotAction) and not in_force(received.message, host):
                    source.last = None  # an older goal must not be taken for the action
                elif not source.refusal:
                    source.last, source.silent_s = received, 0.0
                yield Arrived(source.topic, received, source.refusal)
            if source.reader.gaps.lost > lost:
                self._runtime.count(f"lost {source.topic}", source.reader.gaps.lost - lost)

    def _listen(self) -> None:
        """Time passes for all; not while the machine was held up or suspended: we did not listen then."""
        now = time.monotonic()
        passed, self._listened = min(now - self._listened, _HELD_UP_S), now
        for source in self._all:
            source.silent_s += passed

    def missing(self) -> bool:
        """Whether nothing is heard from someone without whom there is no row; perhaps for a moment only: we
        have just begun to listen, or the machine was held up."""
        return any(not source.refusal and not source.heard_lately() for source in self.needed())

    def check(self) -> Sizes:
        """The sizes of the pictures, when every needed topic is there and usable.

        Raises:
            UserError: one is not, and why.
        """
        sizes: Sizes = {}
        for source in self.needed():
            if source.refusal or not source.heard_lately():
                service = self._runtime.topics[source.topic].owner.split("/")[0]
                why = source.refusal or f"nothing arrives on it; does `gripwire {service} run` run?"
                raise UserError(f"no episode can begin without {source.topic}: {why}")
            if isinstance(frame := source.last.message, Frame):
                if frame.width % 2 or frame.height % 2:  # H.264 keeps colour for every second pixel only
                    size = f"{frame.width}x{frame.height}"
                    raise UserError(
                        f"{source.topic}: video cannot have the odd size {size}; set another size"
                    )
                sizes[frame.camera] = (frame.height, frame.width)
        return sizes


def refusal(topic: str, received: Received[Any], sizes: Sizes, host: str) -> str:
    """Why this message must not become part of an episode recorded on ``host``; empty when it may."""
    message = received.message
    if isinstance(message, Label | ModelState):
        return ""
    if message.host != host:
        return (
            "it comes from another machine, whose capture times cannot be compared with this one's; "
            "run the recorder on the machine of its cameras and robot"
        )
    if isinstance(message, RobotAction | Reward) and not message.valid:
        return ""  # an arm that is limp, e.g. guided by hand, is no fault, nor is a reward that knows nothing
    if not message.valid:
        return getattr(message, "reason", "") or "its publisher does not vouch for it"
    if isinstance(message, RobotState | RobotAction):
        return "" if has_all_joints(message.position) else "a joint is missing or not a number"
    return _refused_picture(topic, message, received, sizes) if isinstance(message, Frame) else ""


def _refused_picture(topic: str, message: Frame, received: Received[Any], sizes: Sizes) -> str:
    if received.payload is None:
        return "its messages carry no picture"
    if topic != f"camera/{message.camera}":
        return f"its pictures say that they are camera `{message.camera}`'s"
    if (message.height, message.width) != sizes.get(message.camera, (message.height, message.width)):
        return f"its pictures became {message.width}x{message.height} during the episode"
    return ""


def in_force(action: RobotAction, host: str) -> bool:
    """Whether the arm is meant to hold this goal now; not, for example, once it was made limp."""
    return action.valid and action.host == host and has_all_joints(action.position)


def offer(take: Take, received: Received[Any], host: str, with_pictures: bool = True) -> None:
    """Give a message that was not refused to an episode under way on ``host``."""
    message = received.message
    if isinstance(message, Frame):
        if message.camera in take.cameras:
            take.frame(message, bytes(received.payload or b"") if with_pictures else b"")
    elif isinstance(message, RobotState):
        take.state(message)
    elif isinstance(message, RobotAction):
        if in_force(message, host):
            take.action(message)
        else:
            take.no_action(message.t_publish if message.host == host else received.t_receive)
    elif isinstance(message, Reward):
        take.reward(message)
    elif isinstance(message, Label) and message.now and message.host == host:
        take.verdict(message.t_capture, message.success)
