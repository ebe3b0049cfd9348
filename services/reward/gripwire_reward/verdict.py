"""From a score to the reward that is told: live and from a recording alike."""

from collections.abc import Callable

from gripwire.messages import Reward
from gripwire_reward.decision import Decider
from gripwire_reward.scorer import Score


def verdict(score: Score, decider: Decider, gate: Callable[[str], bool]) -> Reward:
    """The reward of a frame that can be judged; the decider takes it in.

    ``gate`` answers whether a condition on the robot's state holds, and raises UserError where that cannot
    be told: then nothing was taken in.
    """
    rule = decider.rule
    opened = gate(rule.gate) if rule.gate else True
    decision = decider.update(score.probability, opened)
    return Reward(
        valid=True, logit=score.logit, probability=score.probability, threshold=rule.threshold,
        above=score.probability >= rule.threshold, gate=opened, decision=decision, latched=decider.latched,
        drift=score.drift,
    )  # fmt: skip
