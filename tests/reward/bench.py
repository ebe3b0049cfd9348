"""A reward service on real sockets, driven tick by tick."""

import time
from collections.abc import Callable
from typing import Any

from gripwire import bus, clock
from gripwire.bus import Publisher, Queued
from gripwire.messages import Command, Frame, ModelState, Offer, Reward
from gripwire.service import Runtime
from gripwire.settings import Settings
from gripwire_reward.service import RewardService
from tests.reward import tiny

WAIT_S = 20.0


class Bench:
    """A camera, the service driven tick by tick, and a reader of what it says."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.camera: Publisher[Frame] = bus.Publisher(settings.topics["camera/gripper_cam"])
        self.shot_at = clock.monotonic_ns()
        self.started: list[tuple[Runtime, RewardService]] = []
        self.start()

    def start(self) -> None:
        """(Re)start the service."""
        self.runtime = Runtime("reward", self.settings)
        self.service = RewardService(self.runtime)
        self.started.append((self.runtime, self.service))
        self.rewards = Queued(self.settings.topics["reward"], Reward)
        self.models = Queued(self.settings.topics["model"], ModelState)
        self.said: list[Reward] = []
        self.states: list[ModelState] = []
        assert self.service._reward.wait_for_subscriber(WAIT_S)
        assert self.service._serving._model.wait_for_subscriber(WAIT_S)
        self.service.setup()
        # The service subscribes like anyone; what is sent before that is lost to it.
        assert self.camera.wait_for_subscriber(WAIT_S)

    def stop(self) -> None:
        runtime, service = self.started.pop()
        service.close(False)
        runtime.close()
        self.rewards.close()
        self.models.close()

    def send(self, success: bool, number: int = 0, **changes: Any) -> Frame:
        payload = changes.pop("payload", None) or tiny.jpeg(tiny.picture(success, number))
        self.shot_at += 33_333_333  # the declared rate, however busy the machine is
        header = {"valid": True, "camera": "gripper_cam", "width": tiny.WIDTH, "height": tiny.HEIGHT,
                  "encoding": "jpeg", "t_capture": self.shot_at}  # fmt: skip
        return self.camera.publish(Frame(**(header | changes)), payload)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Tick until the condition holds."""
        deadline = time.monotonic() + WAIT_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"never; said {self.said[-3:]}, states {self.states[-3:]}"
            self.service.update()
            self.said += [r.message for r in self.rewards.drain()]
            self.states += [r.message for r in self.models.drain()]
        return value

    def verdict(self, frame: Frame) -> Reward:
        """What was said about this frame."""
        return self.until(lambda: next((r for r in self.said if r.frame_seq == frame.seq), None))

    def state(self, event: str, offer: str = "") -> ModelState:
        """The announcement of this event."""
        return self.until(
            lambda: next((s for s in self.states if s.event == event and offer in ("", s.offer)), None)
        )

    def ask(self, command: Command) -> str:
        """Give a command; what the service answers."""
        return self.service.commands[type(command)](command).text

    def serve(self, **changes: Any) -> str:
        """Make a bundle and have it served; its id."""
        made = tiny.make(self.settings.data / "bundles", **changes)
        self.service.commands[Offer](Offer(bundle=made.id))
        self.state("serving", made.id)
        return made.id
