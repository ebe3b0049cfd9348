"""The reward service: camera frames get a verdict, in order, by the model that serves at that moment."""

from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gripwire import clock
from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.messages import Command, EpisodeState, Frame, Reward
from gripwire.service import Runtime
from gripwire_reward.intake import Intake, Taken
from gripwire_reward.pace import Pace
from gripwire_reward.serving import Serving
from gripwire_reward.settings import RewardSettings

_WAIT_S = 0.05
HELD_UP_S = 1.0
"""A verdict that took longer is none: the process was stopped or starved, and the picture is old."""


class RewardService:
    """Reads frames, scores them with the serving model, publishes one reward each."""

    rate_hz = None

    def __init__(self, runtime: Runtime) -> None:
        self.settings = runtime.settings.section("reward", RewardSettings)
        cameras = runtime.settings.cameras
        self.camera = self.settings.camera or cameras[0]
        if self.camera not in cameras:
            raise UserError(
                f"[reward] camera = `{self.camera}`: no such camera slot; there are: {', '.join(cameras)}"
            )
        self._runtime = runtime
        topic = runtime.topics[f"camera/{self.camera}"]
        self._pace = Pace(self.settings.rate_hz or topic.rate_hz or 30.0)
        self._reward = runtime.publisher("reward")
        self._intake = Intake(runtime.queued(topic.name, Frame), self.settings.rate_hz)
        self._episodes = runtime.queued("episode", EpisodeState)
        self._recording = False
        self._last_frame = clock.monotonic_ns()
        self._last_said = 0
        self._serving = Serving(runtime, self.settings, self.camera, self._pace.hz)

    @property
    def commands(self) -> dict[type[Command], Any]:
        return self._serving.commands

    def setup(self) -> None:
        """Import the engine and begin to load the bundle that served last."""
        import cv2
        import onnxruntime

        cv2.setNumThreads(1)  # a pool for one small picture costs more than it gives
        self._runtime.versions["onnxruntime"] = onnxruntime.__version__
        self._serving.setup()

    # --- frames ---------------------------------------------------------------------------------------

    def update(self) -> None:
        """One tick: the next frame, or the news that none comes."""
        self._serving.tick()
        self._note_episode()
        taken = self._intake.next(_WAIT_S)
        self._note_refusals(bool(taken))
        if not taken:
            self._say_stalled()
            return
        self._runtime.problem("camera")
        late = "frames come faster than they can be judged, some are skipped: lower the camera's rate"
        self._runtime.problem("backlog", late if len(taken) > 1 else "")
        for one in taken:
            self._answer(one)

    def _answer(self, taken: Taken) -> None:
        if taken.skipped:
            self._pace.note(taken.received.message)
            self._serving.pass_over()
            self._runtime.count("invalid")
            self._runtime.count("frames_skipped")
            self._publish(taken.received, Reward(reason="skipped: the reward service was behind the camera"))
            return
        lost, broken = self._intake.lost()
        self._runtime.count("frames_lost", lost)
        if broken:
            self._serving.forget()
        self._judge(taken.received)

    def _note_refusals(self, well: bool) -> None:
        refused, why = self._intake.refused()
        if refused:
            self._runtime.count("messages_refused", refused)
            self._runtime.problem("wire", f"messages of camera {self.camera} are refused: {why}")
        elif well:
            self._runtime.problem("wire")

    def _note_episode(self) -> None:
        """A recording that begins is a new episode."""
        for received in self._episodes.drain():
            recording = received.message.state == "recording"
            if recording and not self._recording:
                self._serving.begin_episode()
            self._recording = recording

    def _say_stalled(self) -> None:
        now = clock.monotonic_ns()
        if not self._pace.stalled(now - max(self._last_frame, self._last_said)):
            return
        self._last_said = now
        silent = (now - self._last_frame) / 1e9
        text = f"no frame from camera {self.camera} for {silent:.1f} s"
        self._runtime.problem("camera", f"no frames from camera {self.camera}: is its service running?")
        self._serving.forget()
        self._send(Reward(camera=self.camera, reason=text))

    def _judge(self, received: Received[Frame]) -> None:
        frame, start = received.message, perf_counter()
        self._last_frame = received.t_receive
        self._pace.note(frame)
        if frame.camera != self.camera:
            self._refuse(received, f"camera {self.camera}: its pictures say that they are `{frame.camera}`'s")
        elif not frame.valid:
            self._refuse(received, f"camera {self.camera}: {frame.reason or 'the frame is not valid'}")
        elif self._serving.scorer is None:
            self._refuse(received, self._serving.without)
        else:
            try:
                self._score(received, start)
            except UserError as e:
                self._refuse(received, str(e))

    def _score(self, received: Received[Frame], start: float) -> None:
        from gripwire_reward.decode import decode
        from gripwire_reward.verdict import verdict

        others = [contract.camera for contract in self._serving.scorer.contracts[1:]]
        beside = self._serving.companions.frames(others, received)
        images = [decode(received.message, received.payload), *(image for _, image in beside)]
        decoded = perf_counter()
        score = self._serving.scorer.frame(*images)
        refused = _held_up(perf_counter() - start) or self._serving.scorer.strange(score.drift)
        self._shadow(received, images, None if refused else score.probability)
        if refused:
            self._refuse(received, refused, score.drift)
            return
        if self._pace.differs(self._serving.decider.rate_hz):
            self._serving.renew_decider()
        scored = perf_counter()
        reward = verdict(score, self._serving.decider, self._serving.companions.gate)
        reward.other_frames = {name: seq for name, (seq, _) in zip(others, beside, strict=True)}
        reward.stages_ms = {
            "decode": (decoded - start) * 1e3,
            "preprocess": score.preprocess_ms,
            "score": score.score_ms,
            "decide": (perf_counter() - scored) * 1e3,
        }
        self._runtime.problem("frame")
        self._publish(received, reward)

    def _shadow(
        self, received: Received[Frame], images: list[NDArray[np.uint8]], probability: float | None
    ) -> None:
        if (shadow := self._serving.keeper.shadow) is not None:
            shadow.show(received.message.seq, images, probability)

    def _refuse(self, received: Received[Frame], reason: str, drift: float | None = None) -> None:
        """This frame cannot be judged: say why; the verdict is no."""
        self._serving.pass_over()
        self._runtime.count("invalid")
        if self._serving.scorer is not None:
            self._runtime.problem("frame", reason)
        self._publish(received, Reward(reason=reason, drift=drift))

    def _publish(self, received: Received[Frame], reward: Reward) -> None:
        frame = received.message
        same_clock = frame.host == clock.host_id()
        reward.camera, reward.frame_seq, reward.frame_boot = self.camera, frame.seq, frame.boot
        reward.exposure_seq = frame.exposure_seq
        # Times of another machine mean nothing here, nor does one that is still to come: a verdict of the
        # future would never grow old. Then the moment of receipt stands in.
        reward.t_capture = min(frame.t_capture, received.t_receive) if same_clock else received.t_receive
        if same_clock:
            reward.stages_ms = {"receive": (received.t_receive - frame.t_publish) / 1e6} | reward.stages_ms
        self._runtime.count("frames")
        self._send(reward)

    def _send(self, reward: Reward) -> None:
        reward.stages_ms = {stage: round(ms, 3) for stage, ms in reward.stages_ms.items()}
        serving = self._serving
        reward.model, reward.epoch = serving.model, serving.state.epoch
        reward.overrides = serving.state.applied
        reward.step = serving.decider.seen if serving.decider else 0
        self._reward.publish(reward)

    def close(self, failed: bool) -> None:
        self._serving.close()


def _held_up(took_s: float) -> str:
    """Why a picture that was judged for so long is not of now; empty where it is."""
    return (
        f"held up: the reward service was stopped or starved for {took_s:.1f} s" if took_s > HELD_UP_S else ""
    )
