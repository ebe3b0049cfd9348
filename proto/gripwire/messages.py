"""Every message and command on the wire.

Schema rules (docs/wire.md): a new field has a default; a field never changes its type or its meaning;
unknown fields are ignored by readers; ``v`` grows only when an old reader would misread the message, and a
reader refuses a ``v`` that is not its own.
"""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
"""LeRobot's names of the SO-101's motors, in bus order (ids 1 to 6)."""


class Wire(BaseModel):
    """Base of everything that travels: unknown fields are ignored, numbers are not coerced from strings."""

    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=False, ser_json_inf_nan="constants", defer_build=True
    )


# --- messages on topics -------------------------------------------------------------------------------


class Message(Wire):
    """The header that every message on a topic carries.

    The publisher fills ``seq``, ``boot``, ``host``, ``t_publish`` and ``t_wall`` when it sends.
    """

    v: int = SCHEMA_VERSION
    seq: int = Field(0, description="counts this publisher's messages on this topic, from 0")
    boot: str = Field("", description="random id of the publisher's process")
    host: str = Field("", description="kernel boot id; monotonic times compare only where it matches")
    t_capture: int = Field(0, description="CLOCK_MONOTONIC ns when the thing described happened")
    t_publish: int = Field(0, description="CLOCK_MONOTONIC ns when the message was handed to ZeroMQ")
    t_wall: int = Field(0, description="wall clock ns since 1970 at publication")
    valid: bool = Field(False, description="False unless the publisher vouches for the content")


class Frame(Message):
    """`camera/<name>`: one picture; the payload part holds the bytes."""

    camera: str
    width: int = Field(ge=1, le=65535)
    height: int = Field(ge=1, le=65535)
    encoding: Literal["jpeg", "rgb8"]
    exposure_seq: int = Field(-1, description="the source's own number of this exposure, -1 if it gives none")
    source: str = Field("", description="device, address or file the picture came from")
    live: bool = Field(True, description="False for a file that is played back")
    reason: str = Field("", description="why `valid` is False")


class RobotState(Message):
    """`robot/state`: six joints in LeRobot's units (degrees; gripper 0..100)."""

    position: dict[str, float]
    velocity: dict[str, float] = Field(default_factory=dict, description="units per second")
    torque: bool = Field(False, description="whether the motors hold")
    temperature: dict[str, float] = Field(default_factory=dict, description="degrees Celsius")
    faults: dict[str, str] = Field(default_factory=dict, description="joint -> what is wrong now")
    retries: int = Field(0, description="bus reads and writes repeated since the service started")
    reason: str = ""
    tip: tuple[float, float, float] | None = Field(
        None, strict=False, description="where the gripper's tip is: metres in the arm's base frame"
    )
    current: dict[str, float] = Field(default_factory=dict, description="milliamperes")
    notes: dict[str, str] = Field(
        default_factory=dict, description="joint -> what is done about it now and is no fault"
    )


class RobotAction(Message):
    """`robot/action`: the goal that was really sent, after limiting."""

    position: dict[str, float]
    asked: dict[str, float] = Field(default_factory=dict, description="the goal before limiting")
    source: str = Field("", description="who asked: leader, policy, script, reset, rest, hold")
    intervention: bool = Field(False, description="a person has taken over from the policy, by the leader")
    driver: str = Field("", description="who may drive now; empty: nobody does")
    reason: str = Field("", description="why the arm holds, where nobody asked for it")
    latency_ms: float | None = Field(None, description="leader read to goal written, where the leader drives")


class Reward(Message):
    """`reward`: what the classifier says about one camera frame."""

    camera: str = ""
    frame_seq: int = Field(-1, description="seq of the camera message that was judged")
    frame_boot: str = Field("", description="boot of the camera message that was judged")
    exposure_seq: int = -1
    logit: float | None = Field(None, allow_inf_nan=False)
    probability: float | None = Field(None, ge=0, le=1, description="calibrated probability of success")
    threshold: float = Field(0.5, ge=0, le=1)
    drift: float | None = Field(
        None, description="distance of the picture from the training pictures, whose own is near 1"
    )
    above: bool = Field(False, description="probability >= threshold, and valid")
    gate: bool = Field(True, description="the condition on the robot's own state")
    decision: bool = Field(False, description="success, after k of n and hysteresis; False when not valid")
    model: str = Field("", description="bundle id, empty while there is none")
    epoch: int = Field(0, description="grows with every swap, rollback or override")
    reason: str = Field("", description="why `valid` is False")
    stages_ms: dict[str, float] = Field(
        default_factory=dict, description="receive, decode, preprocess, score, decide: milliseconds each"
    )
    latched: bool = Field(False, description="`decision` is held since an earlier frame of this episode")
    step: int = Field(0, description="frames judged since the episode began, this one included")
    overrides: dict[str, float | bool | str] = Field(
        default_factory=dict, description="what differs from the bundle's own decision rule, and its value"
    )
    other_frames: dict[str, int] = Field(
        default_factory=dict, description="seq of the frames of further cameras that were judged with it"
    )


class EpisodeState(Message):
    """`episode`: what the recorder is doing."""

    state: Literal["idle", "recording", "saving"]
    dataset: str = ""
    episode: int = Field(-1, description="index in the dataset of the episode being recorded or last saved")
    task: str = ""
    rows: int = Field(0, description="rows so far, or of the last episode saved")
    saved: int = Field(0, description="episodes made durable since this recorder started")
    drops: dict[str, int] = Field(default_factory=dict, description="messages lost, by topic")
    worst_skew_ms: float = Field(0.0, description="largest distance of a row's picture from its grid time")
    problem: str = ""
    recovered: int = Field(0, description="of `saved`, episodes that an earlier recorder was killed in")
    verdict: Literal["none", "success", "failure"] = Field("none", description="a person's, about this one")
    minutes_left: float | None = Field(None, description="until the disk is too full, at the present rate")
    session_episodes: int = Field(0, description="episodes that the session is to have; 0 without one")
    session_done: int = Field(0, description="of those, how many there are")
    session_phase: Literal["none", "reset", "recording"] = "none"
    session_left_s: float = Field(0.0, description="seconds that the phase still lasts")


class Label(Message):
    """`label`: a person's verdict about a range of an episode (frames 0-based, end inclusive)."""

    dataset: str = ""
    episode: int = -1
    success: bool
    start: int = 0
    end: int | None = None
    by: str = ""
    now: bool = Field(False, description="about the moment `t_capture` and what follows, not about a range")


class Disagreement(Wire):
    """A frame of which the serving bundle and one that was offered say different things."""

    frame_seq: int
    serving: float | None = Field(None, description="probability; None when not valid")
    offered: float | None = None


class ModelState(Message):
    """`model`: the serving bundle and what became of the last offer. Latched: new readers get it at once."""

    serving: str = Field("", description="bundle id, empty while there is none")
    previous: str = Field("", description="the bundle a rollback would return to")
    epoch: int = 0
    event: Literal["none", "serving", "accepted", "refused", "waiting", "rolled_back"] = "none"
    offer: str = Field("", description="the bundle the event is about")
    reason: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    waiting: str = Field("", description="the bundle that will serve when the freeze ends")
    frozen_by: str = Field("", description="who holds the model; empty when nobody does")
    frozen_s: float = Field(0.0, description="seconds that the hold still lasts unless it is renewed")
    overrides: dict[str, float | bool | str] = Field(
        default_factory=dict, description="what differs from the bundle's own decision rule, and its value"
    )
    shadow_frames: int = Field(0, description="frames that the offer was compared on before it served")
    disagreements: list[Disagreement] = Field(
        default_factory=list, description="of those, where the two differ: the worst 20"
    )


class TrainerState(Message):
    """`trainer`: progress of the job under way, 2 Hz while busy, and its end."""

    job: str = ""
    stage: str = "idle"
    progress: float = Field(0.0, description="0..1 of the stage")
    done: bool = False
    error: str = ""
    bundle: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    seconds: dict[str, float] = Field(default_factory=dict, description="wall time by stage")


class Health(Message):
    """`health/<service>`: once a second."""

    service: str
    state: Literal["starting", "ready", "degraded", "stopping"]
    pid: int = 0
    uptime_s: float = 0.0
    rates: dict[str, float] = Field(default_factory=dict, description="events per second by name")
    counts: dict[str, int] = Field(default_factory=dict, description="totals since start by name")
    lag_ms: float = Field(0.0, description="how late the loop's worst tick of the last second was")
    problem: str = Field("", description="why the state is degraded, in plain words")
    last_error: str = ""
    versions: dict[str, str] = Field(default_factory=dict)
    rss_mb: float = Field(0.0, description="memory of its process and those it started, MB of 2^20 bytes")
    cpu_percent: float = Field(0.0, description="of one core since the last beat, by the same processes")
    threads: int = 0
    reads: dict[str, int] = Field(
        default_factory=dict, description="messages received since the start, by topic that it reads"
    )
    subscribers: dict[str, int] = Field(
        default_factory=dict, description="readers connected now, by topic that it publishes"
    )


# --- commands to a service's control endpoint ---------------------------------------------------------


Role = Literal["watch", "label", "drive", "train"]
"""What a machine may do: read everything (all may), give verdicts, move things and record, change what is
trained and what serves."""


class Command(Wire):
    """A typed request. ``kind`` on the wire is the class's name."""

    expects: ClassVar[type["Reply"]]
    role: ClassVar[Role]
    """What a machine must be allowed, to ask for it."""
    rate_hz: ClassVar[float] = 100.0
    """So many a second a peer may ask for."""
    repeatable: ClassVar[bool] = False
    """Whether carrying it out again does no harm: then its answer, which may be large, is not kept."""
    signed: ClassVar[bool] = False
    """Whether a client that leaves `by` empty fills in its process's name."""


class Reply(Wire):
    """What a service answers: plain success unless a command expects more."""


class Done(Reply):
    text: str = ""


class Sent(Reply):
    """Where the arm is really sent: the goal within ranges and step, or, while a person has taken over, the
    leader's."""

    position: dict[str, float]
    intervention: bool = Field(False, description="a person drives by the leader; the goal was not sent")


class Underway(Reply):
    """A reset has begun: where to, and until when."""

    text: str = ""
    position: dict[str, float] = Field(default_factory=dict, description="the joints aimed at")
    tip: tuple[float, float, float] | None = Field(
        None, strict=False, description="where that brings the tip: metres in the arm's base frame"
    )
    seconds: float = Field(0.0, description="how long the move takes")
    t_begin: int = Field(0, description="CLOCK_MONOTONIC ns: actions sent from here on belong to it")


class CapsuleState(Reply):
    """What the capsule service keeps, and what became of the last capsule."""

    saving: str = Field("", description="name of the file that is being made; empty: none is")
    saved: str = Field("", description="name of the last one that is whole, in the data folder's capsules/")
    failed: str = Field("", description="why the last one that was asked for could not be saved")
    ring_s: float = Field(0.0, description="seconds of the bus that the ring holds")
    ring_mb: float = Field(0.0, description="megabytes of disk that it takes")
    paused: str = Field("", description="why nothing is kept at the moment")


class BundlePart(Reply):
    """A piece of a file of a bundle."""

    data: bytes = Field(description="from the offset that was asked for; 512 KiB, or what there is")
    size: int = Field(description="bytes of the whole file")


class Goal(Command):
    """robot: go to these joint positions (LeRobot's units). Joints not named keep their goal."""

    expects = Sent
    role = "drive"
    rate_hz = 2000.0
    signed = True
    position: dict[str, float]
    source: str = "policy"
    by: str = Field("", max_length=100, description="who drives")


class Reset(Command):
    """robot: move smoothly to ``position`` within ``seconds``; without one up, over and down to the start
    pose (or with the tip to ``tip``), a little off at random, in at least ``seconds``."""

    expects = Underway
    role = "drive"
    signed = True
    position: dict[str, float] | None = None
    seconds: float = 2.0
    tip: tuple[float, float, float] | None = Field(None, strict=False, description="metres, arm's base frame")
    jitter_xy: float | None = Field(None, description="metres; None: as set")
    jitter_z: float | None = Field(None, description="metres; None: as set")
    seed: int | None = Field(None, description="of the jitter: the same seed strays the same way")
    by: str = Field("", max_length=100, description="who drives")


class Hold(Command):
    """robot: torque on, keep the present pose. Whoever asks: another's goals are refused from then on."""

    expects = Done
    role = "drive"
    signed = True
    by: str = Field("", max_length=100, description="who asks")


class Release(Command):
    """robot: torque off; the arm goes limp. Whoever asks, as with Hold."""

    expects = Done
    role = "drive"
    signed = True
    by: str = Field("", max_length=100, description="who asks")


class Drive(Command):
    """robot: take the arm for ``lease_s``; each goal renews it. ``force``: from whoever has it."""

    expects = Done
    role = "drive"
    signed = True
    by: str = Field("", max_length=100, description="who drives")
    lease_s: float = Field(5.0, gt=0, le=3600)
    force: bool = False


class Yield(Command):
    """robot: let go of the arm; it stays where it was sent."""

    expects = Done
    role = "drive"
    signed = True
    by: str = Field("", max_length=100, description="who drives")


class Teleoperate(Command):
    """robot: the leader arm drives the follower, or no longer does."""

    expects = Done
    role = "drive"
    signed = True
    on: bool
    by: str = Field("", max_length=100, description="who asks")


class Intervene(Command):
    """robot: the leader arm takes over from who drives, who keeps the lease; or gives the arm back."""

    expects = Done
    role = "drive"
    signed = True
    on: bool
    by: str = Field("", max_length=100, description="who asks")


class StartEpisode(Command):
    """recorder: begin an episode of ``task`` in ``dataset`` (a name under the data folder's datasets/)."""

    expects = Done
    role = "drive"
    task: str
    dataset: str = "recording"
    append: bool = Field(False, description="to a dataset that was there before this recorder was started")


class StopEpisode(Command):
    """recorder: end the episode; the reply comes at once, `episode` says when it is durable."""

    expects = Done
    role = "drive"


class DiscardEpisode(Command):
    """recorder: throw away the episode that is being recorded."""

    expects = Done
    role = "drive"


class MarkEpisode(Command):
    """recorder: a person's verdict. While an episode is recorded: from now on it is a success (or not);
    afterwards: the last one was, as a whole. ``reject``: the last episode is not to be used."""

    expects = Done
    role = "label"
    success: bool = False
    reject: bool = False
    by: str = ""


class StartSession(Command):
    """recorder: record ``episodes`` of ``seconds`` each, with ``reset_seconds`` before each."""

    expects = Done
    role = "drive"
    task: str
    dataset: str = "recording"
    episodes: int = Field(ge=1, le=10_000)
    seconds: float = Field(gt=0, le=3600)
    reset_seconds: float = Field(5.0, ge=0, le=3600)
    append: bool = False
    success: bool | None = Field(None, description="the verdict about every episode, where it is known")


class SteerSession(Command):
    """recorder: `next` ends the present phase, `redo` throws away what is recorded and repeats it (or
    rejects the last episode and records one more), `end` ends the session."""

    expects = Done
    role = "drive"
    what: Literal["next", "redo", "end"]


class Train(Command):
    """trainer: build and train from a merge or label file by its name under the data folder's labels/."""

    expects = Done
    role = "train"
    labels: str
    offer: bool = True
    options: dict[str, Any] = Field(default_factory=dict, description="settings of [trainer] for this job")


class ReadBundle(Command):
    """trainer: a piece of one of its bundles, for a reward service on another machine."""

    expects = BundlePart
    role = "watch"
    rate_hz = 2000.0
    repeatable = True
    bundle: str
    file: str = "bundle.json"
    offset: int = Field(0, ge=0)


class Offer(Command):
    """reward: a trainer has written this bundle. `model` tells what became of it."""

    expects = Done
    role = "train"
    bundle: str


class Swap(Command):
    """reward: serve this bundle (verified like any offer)."""

    expects = Done
    role = "train"
    bundle: str


class Rollback(Command):
    """reward: return to the bundle that served before. ``force``: even while a consumer holds the model."""

    expects = Done
    role = "train"
    force: bool = False


class Freeze(Command):
    """reward: hold the serving model for ``lease_s``; ask again before it ends to renew it."""

    expects = Done
    role = "train"
    by: str = Field(min_length=1, max_length=100)
    lease_s: float = Field(30.0, gt=0, le=86400)


class Thaw(Command):
    """reward: let go of the model. ``force``: whoever holds it."""

    expects = Done
    role = "train"
    by: str = ""
    force: bool = False


class Override(Command):
    """reward: change the decision rule from now on. What is None stays; ``clear`` returns to the settings'
    and the bundle's own first. ``force``: even while a consumer holds the model."""

    expects = Done
    role = "train"
    threshold: float | None = None
    release: float | None = None
    window_s: float | None = None
    needed_s: float | None = None
    min_steps_s: float | None = None
    gate: str | None = Field(None, description="empty: no gate")
    latch: bool | None = None
    clear: bool = False
    force: bool = False


class NewEpisode(Command):
    """reward: an episode begins: the window, `min_steps` and a latched success start anew. (A recorder that
    runs says so by itself, on `episode`.)"""

    expects = Done
    role = "drive"


class Bench(Reply):
    """The scene, for scripts that must know where to reach; never read by the product."""

    seed: int
    cube: tuple[float, float, float] = Field(strict=False, description="metres, in the arm's base frame")
    cube_yaw: float = Field(0.0, description="radians")


class ResetBench(Command):
    """sim: a fresh scene from ``seed``: cube, lamp and table."""

    expects = Bench
    role = "drive"
    seed: int


class MoveLeader(Command):
    """sim: a hand takes the leader arm to ``position`` (LeRobot's units) within ``seconds``, smoothly."""

    expects = Done
    role = "drive"
    position: dict[str, float]
    seconds: float = Field(1.0, ge=0, le=60)


class Fault(Command):
    """sim: break something (see ``gripwire sim fault --help``), or ``clear`` everything."""

    expects = Done
    role = "drive"
    what: str
    value: float = 0.0
    joint: str = ""


class SaveCapsule(Command):
    """capsule: make one file of the last minutes of the bus; `CapsuleStatus` says when it is there."""

    expects = CapsuleState
    role = "label"
    note: str = Field("", max_length=2000, description="what a person saw")


class CapsuleStatus(Command):
    """capsule: what it keeps, and what became of the last one that was asked for."""

    expects = CapsuleState
    role = "watch"


COMMANDS: dict[str, type[Command]] = {
    command.__name__: command
    for command in (
        Goal, Reset, Hold, Release, Drive, Yield, Teleoperate, Intervene,
        StartEpisode, StopEpisode, DiscardEpisode,
        MarkEpisode, StartSession, SteerSession,
        Train, ReadBundle, Offer, Swap, Rollback, Freeze, Thaw, Override, NewEpisode,
        ResetBench, MoveLeader, Fault,
        SaveCapsule, CapsuleStatus,
    )
}  # fmt: skip
