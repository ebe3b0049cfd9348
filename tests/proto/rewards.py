"""The other end of a reward stream: rewards about one frame after the other, on a real socket."""

from gripwire import bus, clock
from gripwire.bus import Publisher
from gripwire.messages import Reward
from gripwire.settings import Settings


class Rewards:
    """Publishes them."""

    def __init__(self, settings: Settings) -> None:
        self.publisher: Publisher[Reward] = bus.Publisher(settings.topics["reward"])
        self.frame = -1

    def send(self, success: bool = True, **changes: object) -> Reward:
        self.frame += 1
        reward = Reward(
            camera="gripper_cam", frame_seq=self.frame, frame_boot="a camera", valid=True, above=success,
            decision=success, t_capture=clock.monotonic_ns(), logit=2.5, probability=0.9,
            model="a" * 20, epoch=3,
        )  # fmt: skip
        return self.publisher.publish(reward.model_copy(update=changes))
