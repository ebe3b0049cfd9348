"""Where the preview's pictures and verdicts come from: the running service, or a bundle of one's choice."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gripwire.bus import Latest, Queued, Received
from gripwire.errors import UserError
from gripwire.messages import Frame, Reward
from gripwire.settings import Settings
from gripwire_reward import bundle as bundles
from gripwire_reward.bundle import Bundle
from gripwire_reward.decision import Decider
from gripwire_reward.decode import decode
from gripwire_reward.pace import Pace
from gripwire_reward.preprocess import InputContract, crop_and_resize
from gripwire_reward.scorer import Scorer
from gripwire_reward.verdict import verdict

_REMEMBERED = 90
"""Frames kept until their reward comes: three seconds."""


@dataclass(frozen=True)
class Shown:
    """One moment: the picture (H, W, 3) uint8 RGB, what the model sees of it, and its verdict.

    ``sees`` is None without a bundle, or when the picture is not one it can see.
    """

    picture: NDArray[np.uint8]
    sees: NDArray[np.uint8] | None
    reward: Reward
    age_ms: float
    problem: str = ""


class Feed(Protocol):
    """What a preview asks for its next moment."""

    def next(self, timeout_s: float) -> Shown | None:
        """The newest moment not shown yet; None when none came in time."""

    def close(self) -> None:
        """Let go of the bus."""


def _model_sees(
    image: NDArray[np.uint8], contract: InputContract | None
) -> tuple[NDArray[np.uint8] | None, str]:
    if contract is None:
        return None, ""
    try:
        return crop_and_resize(image, contract), ""
    except UserError as e:
        return None, str(e)


class ServiceFeed:
    """What the running reward service says, beside the frame that it says it of."""

    def __init__(self, settings: Settings, camera: str) -> None:
        topics = settings.topics
        self._bundles = settings.data / "bundles"
        self._frames = Queued(topics[f"camera/{camera}"], Frame)
        self._rewards = Queued(topics["reward"], Reward)
        self._kept: OrderedDict[tuple[str, int], Received[Frame]] = OrderedDict()
        self._known: dict[str, InputContract | None] = {}

    def next(self, timeout_s: float) -> Shown | None:
        reward = self._rewards.receive(timeout_s)
        for later in self._rewards.drain():  # a preview that is slow shows fewer moments, never old ones
            reward = later
        for frame in self._frames.drain():
            self._kept[frame.message.boot, frame.message.seq] = frame
        while len(self._kept) > _REMEMBERED:
            self._kept.popitem(last=False)
        if reward is None:
            return None
        said = reward.message
        frame = self._kept.get((said.frame_boot, said.frame_seq))
        if frame is None:
            return None
        image = decode(frame.message, frame.payload)
        sees, problem = _model_sees(image, self._contract(said.model))
        return Shown(image, sees, said, frame.age_ms(), problem)

    def _contract(self, model: str) -> InputContract | None:
        if model not in self._known:
            try:
                folder = bundles.find(model, self._bundles) if model else None
                self._known[model] = bundles.load(folder).manifest.inputs[0] if folder else None
            except UserError:  # it serves from another data folder: what it sees cannot be shown
                self._known[model] = None
        return self._known[model]

    def close(self) -> None:
        self._frames.close()
        self._rewards.close()


class BundleFeed:
    """What a bundle says that need not serve, of the live frames, decided as the service would.

    Raises:
        UserError: the bundle is not what it says, or wants several cameras.
    """

    def __init__(self, settings: Settings, camera: str, bundle: Bundle) -> None:
        if len(bundle.manifest.inputs) > 1:
            raise UserError(
                f"bundle {bundle.id} wants several cameras: let it serve, and preview the service"
            )
        self._camera, self._bundle, self._scorer = camera, bundle, Scorer(bundle)
        topic = settings.topics[f"camera/{camera}"]
        self._frames = Latest(topic, Frame)
        self._last: Received[Frame] | None = None
        rule = bundle.manifest.decision.model_copy(update={"gate": ""})  # the robot is not asked
        self._pace = Pace(topic.rate_hz or 30.0)
        self._decider = Decider(rule, self._pace.hz())

    def next(self, timeout_s: float) -> Shown | None:
        received = self._frames.wait(timeout_s, after=self._last)
        if received is None:
            return None
        self._last = received
        image = decode(received.message, received.payload)
        sees, problem = _model_sees(image, self._scorer.contract)
        return Shown(image, sees, self._judge(received, image, problem), received.age_ms(), problem)

    def _judge(self, received: Received[Frame], image: NDArray[np.uint8], problem: str) -> Reward:
        frame = received.message
        self._pace.note(frame)
        if self._pace.differs(self._decider.rate_hz):
            old, self._decider = self._decider, Decider(self._decider.rule, self._pace.hz())
            self._decider.resume(old)
        reward = Reward(
            camera=self._camera, frame_seq=frame.seq, model=self._bundle.id,
            threshold=self._decider.rule.threshold,
            reason=problem or frame.reason,
        )  # fmt: skip
        if problem or not frame.valid:
            self._decider.update(None)
            return reward
        score = self._scorer.frame(image)
        if strange := self._scorer.strange(score.drift):
            self._decider.update(None)
            reward.reason = strange  # its probability is shown all the same, to tell how far off it is
            reward.logit, reward.probability, reward.drift = score.logit, score.probability, score.drift
        else:
            said = verdict(score, self._decider, lambda _: True)
            reward = said.model_copy(
                update={"camera": self._camera, "frame_seq": frame.seq, "model": reward.model}
            )
        reward.stages_ms = {"preprocess": score.preprocess_ms, "score": score.score_ms}
        return reward

    def close(self) -> None:
        self._frames.close()
