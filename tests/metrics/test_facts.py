"""What is exported follows from what the bus said last, and from how long ago."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from gripwire import clock
from gripwire.bus import Received
from gripwire.liveness import Meter
from gripwire.messages import (
    EpisodeState,
    Frame,
    Health,
    Message,
    ModelState,
    Reward,
    RobotState,
    TrainerState,
)
from gripwire.metrics import facts
from gripwire.metrics.facts import Moment
from gripwire.metrics.sheet import Sheet
from gripwire.metrics.table import METRICS
from gripwire.topics import Topics

TOPICS = Topics(20000)
JOINT = {"gripper": 41.5}
SAID: dict[str, Message] = {
    "health/camera/gripper_cam": Health(
        service="camera/gripper_cam", state="ready", counts={"frames": 90, "dropped": 2, "connects": 1}
    ),
    "health/robot": Health(service="robot", state="degraded", uptime_s=12.5, lag_ms=3.0, rss_mb=64.0,
                           cpu_percent=25.0, counts={"refused_messages": 3, "refused_commands": 1}),
    "health/reward": Health(service="reward", state="ready", versions={"gripwire": "0.1", "python": "3.12"}),
    "health/recorder": Health(service="recorder", state="ready"),
    "health/trainer": Health(service="trainer", state="ready"),
    "camera/gripper_cam": Frame(camera="gripper_cam", width=1, height=1, encoding="rgb8"),
    "robot/state": RobotState(position=JOINT, temperature=JOINT, current={"gripper": 250.0}, torque=True,
                              faults={"gripper": "hot"}, retries=7),
    "reward": Reward(probability=0.75, threshold=0.5, decision=True, drift=1.25),
    "model": ModelState(serving="f257", previous="aa", epoch=4, frozen_by="sac", overrides={"latch": True}),
    "episode": EpisodeState(state="recording", dataset="mine", episode=3, rows=40, saved=9, recovered=1,
                            drops={"reward": 2, "no/topic": 1}, worst_skew_ms=12.0, minutes_left=90.5,
                            session_episodes=25, session_done=9),
    "trainer": TrainerState(job="a1", stage="features", progress=0.5),
}  # fmt: skip


def _moment(without: Iterable[str] = (), age_s: float = 0.0) -> Moment:
    """The bus as it was ``age_s`` ago, with what is not in ``without``."""
    now = clock.monotonic_ns()
    at, verdicts, latest = now - int(age_s * 1e9), {}, {}
    for topic in TOPICS:
        meter = Meter(topic)
        if topic.name in SAID and topic.name not in without:
            message = SAID[topic.name].model_copy()
            message.host, message.valid, message.boot = clock.host_id(), True, "b"
            message.t_publish, message.t_capture = at, at - 20_000_000
            meter.see(Received(message, None, at))
            latest[topic.name] = message
        verdicts[topic.name] = meter.judge(now)
    return Moment(TOPICS, verdicts, latest, dict.fromkeys(latest, 1), {}, {True: 5, False: 2})


def _samples(moment: Moment, *services: str) -> dict[str, float]:
    """Every sample by its name and the values of its labels."""
    sheet = Sheet()
    for service in services or TOPICS.services:
        facts.fill(sheet, moment, service)
    families: list[Metric] = list(sheet.families())
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_metric_of_the_table_is_exported_by_a_stack_in_which_everything_runs() -> None:
    sheet = Sheet()
    for service in TOPICS.services:
        facts.fill(sheet, _moment(), service)
    exported = {family.name.removeprefix("gripwire_") for family in sheet.families()}
    assert exported == {name for name, spec in METRICS.items() if spec.kind != "histogram"}


def test_units_are_prometheus_own() -> None:
    samples = _samples(_moment())
    assert samples["gripwire_service_rss_bytes robot"] == 64 * 2**20
    assert samples["gripwire_service_cpu_ratio robot"] == 0.25
    assert samples["gripwire_service_loop_lag_seconds robot"] == 0.003
    assert samples["gripwire_robot_joint_current_amperes gripper"] == 0.25
    assert samples["gripwire_episode_worst_skew_seconds"] == 0.012
    assert samples["gripwire_topic_delay_seconds reward"] == 0.02


def test_what_runs_is_told() -> None:
    samples = _samples(_moment())
    assert samples["gripwire_service_up robot"] == 1
    assert samples["gripwire_service_state robot degraded"] == 1
    assert samples["gripwire_service_state robot ready"] == 0
    assert samples["gripwire_refused_total robot messages"] == 3
    assert samples["gripwire_refused_total robot commands"] == 1
    assert samples["gripwire_frames_total gripper_cam"] == 90
    assert samples["gripwire_service_events_total camera/gripper_cam connects"] == 1
    assert samples["gripwire_reward_valid"] == samples["gripwire_reward_decision"] == 1
    assert samples["gripwire_rewards_total true"] == 5
    assert samples["gripwire_model_info f257 aa"] == 1
    assert samples["gripwire_recorder_state recording"] == 1
    assert samples["gripwire_trainer_stage features"] == 1


def test_a_silent_stack_reads_as_down_and_never_as_its_last_values() -> None:
    samples = _samples(_moment(age_s=30.0))
    assert {name for name, value in samples.items() if "service_up" in name and value} == set()
    assert samples["gripwire_service_up robot"] == samples["gripwire_reward_valid"] == 0
    assert samples["gripwire_reward_decision"] == 0
    gone = ("reward_probability", "model_epoch", "episode_rows", "trainer_stage features", "robot_torque")
    for name in (*gone, "recording_left_seconds", "service_rss_bytes robot", "frames_total gripper_cam"):
        assert f"gripwire_{name}" not in samples


def test_what_changes_now_and_then_is_as_alive_as_its_service() -> None:
    samples = _samples(_moment(without=["health/recorder"]))
    assert samples["gripwire_topic_alive episode"] == samples["gripwire_service_up recorder"] == 0
    assert "gripwire_episode_rows" not in samples and samples["gripwire_model_epoch"] == 4


def test_a_service_that_says_goodbye_is_down_at_once() -> None:
    moment = _moment()
    beat = moment.latest["health/robot"]
    assert isinstance(beat, Health)
    beat.state = "stopping"
    assert _samples(moment)["gripwire_service_up robot"] == 0


def test_a_reward_that_is_not_valid_has_no_probability() -> None:
    moment = _moment()
    moment.latest["reward"].valid = False
    samples = _samples(moment)
    assert samples["gripwire_reward_valid"] == samples["gripwire_reward_decision"] == 0
    assert "gripwire_reward_probability" not in samples


def test_services_that_a_stack_may_lack_are_told_once_they_were_there() -> None:
    assert not any("console" in name for name in _samples(_moment()))
    moment = _moment(age_s=30.0)
    moment.latest["health/sim"] = Health(service="sim", state="ready")  # type: ignore[index]
    assert _samples(moment)["gripwire_service_up sim"] == 0


def test_labels_stay_bounded_whatever_the_wire_says() -> None:
    moment = _moment()
    beat = moment.latest["health/robot"]
    assert isinstance(beat, Health)
    beat.counts = {f"event {i}": i for i in range(10_000)}
    beat.versions = {"gripwire": "x" * 10_000}
    samples = _samples(moment)
    assert len([name for name in samples if "service_events_total robot" in name]) == 200
    assert max(map(len, samples)) < 500
    assert "gripwire_episode_dropped_messages no/topic" not in samples


def test_one_service_s_page_has_what_that_service_answers_for() -> None:
    samples = _samples(_moment(), "robot")
    assert "gripwire_robot_torque" in samples and "gripwire_topic_rate_hz robot/state" in samples
    assert not any("reward" in name for name in samples)
