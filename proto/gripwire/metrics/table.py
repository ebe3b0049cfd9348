"""Every metric on one screen. Names and units follow https://prometheus.io/docs/practices/naming."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Spec:
    """A metric without its prefix `gripwire_`; a counter's samples end in `_total`."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _gauge(help: str, *labels: str) -> Spec:
    return Spec("gauge", help, labels)


def _counter(help: str, *labels: str) -> Spec:
    return Spec("counter", help, labels)


def _histogram(help: str, *labels: str) -> Spec:
    return Spec("histogram", help, labels)


METRICS: dict[str, Spec] = {
    # --- every service, from its heartbeat
    "service_up": _gauge("1 while the service's heart beats, else 0.", "service"),
    "service_state": _gauge("1 for the state that the service is in, 0 for the others.", "service", "state"),
    "service_info": _gauge("Versions of a running service; always 1.", "service", "gripwire", "python"),
    "service_uptime_seconds": _gauge("Since the service was started.", "service"),
    "service_loop_lag_seconds": _gauge("How late the loop's worst tick of the last second was.", "service"),
    "service_rss_bytes": _gauge("Memory of the service's process and those it started.", "service"),
    "service_cpu_ratio": _gauge(
        "Processor time of the service's process and those it started: 1 is one core.", "service"
    ),
    "service_events": _counter("What the service counts since its start, by name.", "service", "event"),
    "refused": _counter("Messages and commands that the service refused.", "service", "kind"),
    # --- every topic, as this exporter receives it
    "topic_alive": _gauge("1 while the last message is younger than ten periods.", "topic"),
    "topic_valid": _gauge("1 while the topic is alive and its publisher vouches for the content.", "topic"),
    "topic_rate_hz": _gauge("Messages a second, over the last three.", "topic"),
    "topic_declared_rate_hz": _gauge("Messages a second that the publisher aims at.", "topic"),
    "topic_delay_seconds": _gauge("Capture to publication, of the last message.", "topic"),
    "topic_messages": _counter("Messages that arrived here.", "topic"),
    "topic_lost": _counter("Messages that were published and did not arrive here.", "topic"),
    "topic_refused": _counter("Messages that arrived here and could not be read.", "topic"),
    # --- cameras
    "frames": _counter("Pictures that the camera service published.", "camera"),
    "frames_dropped": _counter("Pictures that the camera service got and could not publish.", "camera"),
    # --- the arm
    "robot_torque": _gauge("1 while the motors hold."),
    "robot_joint_temperature_celsius": _gauge("Temperature of the joint's servo.", "joint"),
    "robot_joint_current_amperes": _gauge("Current of the joint's servo.", "joint"),
    "robot_faults": _gauge("Joints with which something is wrong now."),
    "robot_bus_retries": _counter("Reads and writes on the servo bus that were repeated."),
    # --- the reward
    "rewards": _counter("Rewards that arrived here, by whether they were valid.", "valid"),
    "reward_valid": _gauge("1 while the reward is alive and valid."),
    "reward_decision": _gauge("1 while the decision is success; 0 whenever the reward is not valid."),
    "reward_probability": _gauge("Calibrated probability of success; absent while not valid."),
    "reward_threshold": _gauge("A frame counts for success from here on."),
    "reward_gate": _gauge("1 while the condition on the robot's own state holds."),
    "reward_drift": _gauge("Distance of the picture from the training pictures, whose own is near 1."),
    "reward_latency_seconds": _histogram("Picture taken to reward published."),
    "reward_stage_seconds": _histogram("Time spent by stage.", "stage"),
    # --- the model
    "model_serving": _gauge("1 while a model serves."),
    "model_epoch": _gauge("Grows with every swap, rollback or override."),
    "model_info": _gauge("The bundle that serves and the one before; always 1.", "serving", "previous"),
    "model_frozen": _gauge("1 while somebody holds the model."),
    "model_overrides": _gauge("Values of the decision rule that differ from the bundle's."),
    # --- the recorder
    "recorder_state": _gauge("1 for idle, recording or saving, whichever it is.", "state"),
    "episode_rows": _gauge("Rows of the episode being recorded or last saved."),
    "episode_dropped_messages": _gauge("Messages lost to this episode.", "topic"),
    "episode_worst_skew_seconds": _gauge("Largest distance of a row's picture from the row's time."),
    "episodes_saved": _counter("Episodes made durable since the recorder started."),
    "episodes_recovered": _counter("Of those, episodes in which an earlier recorder was killed."),
    "recording_left_seconds": _gauge("Recording until the disk is too full, at the present rate."),
    "session_episodes": _gauge("Episodes that the session is to have; 0 without a session."),
    "session_episodes_done": _gauge("Of those, how many there are."),
    # --- the trainer
    "trainer_busy": _gauge("1 while a job is under way."),
    "trainer_stage": _gauge("Always 1; what the trainer is at.", "stage"),
    "trainer_progress_ratio": _gauge("Of the stage, 0 to 1."),
    "trainer_failed": _gauge("1 when the last job failed."),
}  # fmt: skip
