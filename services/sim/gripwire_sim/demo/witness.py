"""Watches the bus as any client would and keeps what the judgement needs."""

import threading
from dataclasses import dataclass, field

from gripwire.bus import Queued, Received
from gripwire.messages import Frame, ModelState, Reward
from gripwire.topics import Topics


@dataclass
class Record:
    """What was seen, in order of arrival. Pictures only while :attr:`Witness.keep_pictures`."""

    rewards: list[Reward] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    pictures: dict[int, bytes] = field(default_factory=dict)  # exposure number -> JPEG
    models: list[ModelState] = field(default_factory=list)
    lost: int = 0


class Witness:
    """A thread that subscribes to the camera, the reward and the model topic."""

    def __init__(self, topics: Topics) -> None:
        self.record = Record()
        self.keep_pictures = False
        self._topics = topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        camera = f"camera/{self._topics.cameras[0]}"
        with (
            Queued(self._topics[camera], Frame, depth=1000) as frames,
            Queued(self._topics["reward"], Reward, depth=10_000) as rewards,
            Queued(self._topics["model"], ModelState) as models,
        ):
            while not self._stop.is_set():
                if first := frames.receive(0.02):
                    self._frame(first)
                for received in frames.drain():
                    self._frame(received)
                self.record.rewards += [r.message for r in rewards.drain()]
                self.record.models += [r.message for r in models.drain()]
                self.record.lost = frames.gaps.lost + rewards.gaps.lost

    def _frame(self, received: Received[Frame]) -> None:
        frame = received.message
        self.record.frames.append(frame)
        if self.keep_pictures and received.payload is not None:
            self.record.pictures[frame.exposure_seq] = bytes(received.payload)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
