"""From what the bus said last to metrics: pure functions of a moment's knowledge.

What its publisher does not vouch for any more is left out: a metric that is absent is honest, the last value
of a process that died is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from gripwire.liveness import Liveness
from gripwire.messages import (
    EpisodeState,
    Health,
    Message,
    ModelState,
    Reward,
    RobotAction,
    RobotState,
    TrainerState,
)
from gripwire.metrics.sheet import Sheet
from gripwire.topics import Topic, Topics

STATES: tuple[str, ...] = get_args(Health.model_fields["state"].annotation)
EPISODE_STATES: tuple[str, ...] = get_args(EpisodeState.model_fields["state"].annotation)
OPTIONAL = frozenset({"sim", "console", "capsule", "metrics"})
"""A stack may well be without these: they read as down only after they were up."""
_MOST_EVENTS = 200


@dataclass(frozen=True)
class Moment:
    """What is known at one moment: liveness and last message by topic."""

    topics: Topics
    verdicts: Mapping[str, Liveness]
    latest: Mapping[str, Message]
    received: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    rewards: Mapping[bool, int] = field(default_factory=dict)

    def health(self, service: str) -> Health | None:
        """The heartbeat of a service that is up."""
        name = f"health/{service}"
        beat = self.latest.get(name)
        fresh = isinstance(beat, Health) and self.verdicts[name].alive and beat.state != "stopping"
        return beat if fresh and isinstance(beat, Health) else None

    def said[M: Message](self, topic: str, model: type[M]) -> M | None:
        """The last message of a topic that is alive."""
        message = self.latest.get(topic)
        return message if isinstance(message, model) and self.alive(self.topics[topic]) else None

    def alive(self, topic: Topic) -> bool:
        """A topic with a rate tells by itself; one that changes now and then is as alive as its owner."""
        verdict = self.verdicts[topic.name]
        return (
            verdict.seen and verdict.alive and (bool(topic.rate_hz) or self.health(topic.owner) is not None)
        )


def fill(sheet: Sheet, moment: Moment, service: str) -> None:
    """All that one service answers for."""
    _service(sheet, moment, service)
    for topic in moment.topics:
        if topic.owner == service and not topic.name.startswith("health/"):
            _topic(sheet, moment, topic)
    if own := _OWN.get(service.split("/")[0]):
        own(sheet, moment, service)


def _service(sheet: Sheet, moment: Moment, service: str) -> None:
    beat = moment.health(service)
    if beat is None:
        if service not in OPTIONAL or f"health/{service}" in moment.latest:
            sheet.put("service_up", 0, service=service)
        return
    sheet.put("service_up", 1, service=service)
    for state in STATES:
        sheet.put("service_state", beat.state == state, service=service, state=state)
    versions = beat.versions
    known = {"gripwire": versions.get("gripwire", ""), "python": versions.get("python", "")}
    sheet.put("service_info", 1, service=service, **known)
    sheet.put("service_uptime_seconds", beat.uptime_s, service=service)
    sheet.put("service_loop_lag_seconds", beat.lag_ms / 1e3, service=service)
    sheet.put("service_rss_bytes", beat.rss_mb * 2**20 if beat.rss_mb else None, service=service)
    sheet.put("service_cpu_ratio", beat.cpu_percent / 100 if beat.rss_mb else None, service=service)
    for event, count in sorted(beat.counts.items())[:_MOST_EVENTS]:
        if event in _REFUSALS:
            sheet.put("refused", count, service=service, kind=_REFUSALS[event])
        else:
            sheet.put("service_events", count, service=service, event=event)


_REFUSALS = {"refused_messages": "messages", "refused_commands": "commands"}


def _topic(sheet: Sheet, moment: Moment, topic: Topic) -> None:
    verdict, name = moment.verdicts[topic.name], topic.name
    if not verdict.seen and topic.owner in OPTIONAL:
        return
    alive = moment.alive(topic)
    sheet.put("topic_alive", alive, topic=name)
    sheet.put("topic_valid", alive and verdict.valid, topic=name)
    if topic.rate_hz:
        sheet.put("topic_declared_rate_hz", topic.rate_hz, topic=name)
        sheet.put("topic_rate_hz", verdict.rate_hz or 0.0, topic=name)
    last = moment.latest.get(name)
    # (An action is repeated until there is another: its age is no delay.)
    if alive and last and topic.rate_hz and not isinstance(last, RobotAction):
        sheet.put("topic_delay_seconds", (last.t_publish - last.t_capture) / 1e9, topic=name)
    sheet.put("topic_messages", moment.received.get(name, 0), topic=name)
    sheet.put("topic_lost", verdict.lost, topic=name)
    sheet.put("topic_refused", moment.refused.get(name, 0), topic=name)


def _camera(sheet: Sheet, moment: Moment, service: str) -> None:
    beat, camera = moment.health(service), service.removeprefix("camera/")
    if beat is None:
        return
    sheet.put("frames", beat.counts.get("frames", 0), camera=camera)
    sheet.put("frames_dropped", beat.counts.get("dropped", 0), camera=camera)


def _robot(sheet: Sheet, moment: Moment, _: str) -> None:
    state = moment.said("robot/state", RobotState)
    if state is None:
        return
    sheet.put("robot_faults", len(state.faults))
    sheet.put("robot_bus_retries", state.retries)
    if not state.valid:
        return
    sheet.put("robot_torque", state.torque)
    for joint, celsius in state.temperature.items():
        sheet.put("robot_joint_temperature_celsius", celsius, joint=joint)
    for joint, milliamperes in state.current.items():
        sheet.put("robot_joint_current_amperes", milliamperes / 1e3, joint=joint)


def _reward(sheet: Sheet, moment: Moment, _: str) -> None:
    for valid in (True, False):
        sheet.put("rewards", moment.rewards.get(valid, 0), valid=str(valid).lower())
    reward = moment.said("reward", Reward)
    valid = reward is not None and reward.valid
    sheet.put("reward_valid", valid)  # silence is no, as everywhere
    sheet.put("reward_decision", reward is not None and valid and reward.decision)
    if reward is not None:
        sheet.put("reward_drift", reward.drift)
    if reward is not None and valid:
        sheet.put("reward_probability", reward.probability)
        sheet.put("reward_threshold", reward.threshold)
        sheet.put("reward_gate", reward.gate)
    _model(sheet, moment)


def _model(sheet: Sheet, moment: Moment) -> None:
    model = moment.said("model", ModelState)
    if model is None:
        return
    sheet.put("model_serving", bool(model.serving))
    sheet.put("model_epoch", model.epoch)
    sheet.put("model_info", 1, serving=model.serving, previous=model.previous)
    sheet.put("model_frozen", bool(model.frozen_by))
    sheet.put("model_overrides", len(model.overrides))


def _recorder(sheet: Sheet, moment: Moment, _: str) -> None:
    episode = moment.said("episode", EpisodeState)
    if episode is None:
        return
    for state in EPISODE_STATES:
        sheet.put("recorder_state", episode.state == state, state=state)
    sheet.put("episode_rows", episode.rows)
    for topic, lost in episode.drops.items():
        if topic in moment.topics:
            sheet.put("episode_dropped_messages", lost, topic=topic)
    sheet.put("episode_worst_skew_seconds", episode.worst_skew_ms / 1e3)
    sheet.put("episodes_saved", episode.saved)
    sheet.put("episodes_recovered", episode.recovered)
    minutes = episode.minutes_left
    sheet.put("recording_left_seconds", None if minutes is None else minutes * 60)
    sheet.put("session_episodes", episode.session_episodes)
    sheet.put("session_episodes_done", episode.session_done)


def _trainer(sheet: Sheet, moment: Moment, _: str) -> None:
    trainer = moment.said("trainer", TrainerState)
    if trainer is None:
        return
    sheet.put("trainer_busy", bool(trainer.job) and not trainer.done)
    sheet.put("trainer_stage", 1, stage=trainer.stage)
    sheet.put("trainer_progress_ratio", trainer.progress)
    sheet.put("trainer_failed", bool(trainer.error))


_OWN: dict[str, Callable[[Sheet, Moment, str], None]] = {
    "camera": _camera, "robot": _robot, "reward": _reward, "recorder": _recorder, "trainer": _trainer,
}  # fmt: skip
