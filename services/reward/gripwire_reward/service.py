"""The reward service: every camera frame gets a verdict, in order."""

import itertools
import statistics
from collections import deque
from time import perf_counter
from typing import Any

from gripwire import clock
from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    Done,
    Frame,
    ModelState,
    Offer,
    Reply,
    Reward,
    Rollback,
    Swap,
)
from gripwire.service import Runtime
from gripwire_reward.settings import RewardSettings

STALL_PERIODS = 10
"""Without a frame for so many periods, the camera is stalled and the verdict is no."""

BACKLOG_S = 0.5
"""Frames that waited longer are passed over, and each is reported: a live signal must not lag for good."""

_WAIT_S = 0.05
_RATE_WINDOW = 31
_RATE_SOON = 4
"""Frames after which a camera that is far slower than declared is known to be so."""


class RewardService:
    """Frame-driven: reads frames in order, scores with the serving model, publishes one reward each."""

    rate_hz = None

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings.section("reward", RewardSettings)
        cameras = runtime.settings.cameras
        self.camera = settings.camera or cameras[0]
        if self.camera not in cameras:
            raise UserError(
                f"[reward] camera = `{self.camera}`: no such camera slot; there are: {', '.join(cameras)}"
            )
        self._runtime = runtime
        topic = runtime.topics[f"camera/{self.camera}"]
        self._nominal_hz = topic.rate_hz or 30.0
        self._reward = runtime.publisher("reward")
        self._model = runtime.publisher("model")
        self._frames = runtime.queued(topic.name, Frame)
        self._captures: deque[int] = deque(maxlen=_RATE_WINDOW)
        self._last_frame = clock.monotonic_ns()
        self._last_said = 0
        self._gaps = (0, 0)
        self._scorer: Any = None
        self._decider: Any = None

    @property
    def commands(self) -> dict[type[Command], Any]:
        return {Offer: self._take, Swap: self._take, Rollback: self._roll_back}

    # --- models ---------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Import the engine and begin to load the bundle that served last."""
        import cv2
        import onnxruntime

        from gripwire_reward.keeper import Keeper

        cv2.setNumThreads(1)  # a pool for one small picture costs more than it gives
        self._runtime.versions["onnxruntime"] = onnxruntime.__version__
        data = self._runtime.settings.data
        self._keeper = Keeper(data / "bundles", data / "runs" / "reward" / "serving.json", self.camera)
        self._state = self._keeper.state
        self._without = "the model is loading" if self._state.serving else "no bundle"
        if not self._state.serving:
            self._runtime.problem("model", "no bundle yet: train one, or `gripwire reward swap BUNDLE`")
        self._announce(ModelState(event="none", reason=self._without))

    def _take(self, command: Offer | Swap) -> Reply:
        from gripwire_reward import bundle

        folder = bundle.find(command.bundle, self._runtime.settings.data / "bundles")
        self._keeper.swap(folder.name)
        return Done(text=f"verifying {folder.name}; `model` will say what became of it")

    def _roll_back(self, command: Rollback) -> Reply:
        if not self._state.previous:
            raise UserError("there is no earlier bundle to return to")
        self._keeper.rollback()
        return Done(text=f"returning to {self._state.previous}")

    def _announce(self, message: ModelState) -> None:
        """Publish on `model`; serving, previous and epoch come from the state."""
        message.serving = self._state.serving if self._scorer else ""
        message.previous, message.epoch, message.valid = self._state.previous, self._state.epoch, True
        if self._scorer:
            metrics = self._scorer.bundle.manifest.metrics
            message.metrics = {name: metric.value for name, metric in metrics.items()}
        self._model.publish(message)

    def _swap_if_ready(self) -> None:
        """Between two ticks: take over what the keeper has made ready."""
        while (outcome := self._keeper.poll()) is not None:
            if outcome.event == "refused":
                self._runtime.count("bundles_refused")
                self._runtime.problem("offer", f"bundle {outcome.bundle} refused: {outcome.reason}")
                if self._scorer is None:
                    self._without = f"no bundle: {outcome.reason}"
            else:
                changed = self._scorer is not outcome.scorer
                self._state, self._scorer = outcome.state, outcome.scorer
                if changed:
                    self._decider = None
                    self._runtime.count("swaps")
                    self._announce(ModelState(event="accepted", offer=outcome.bundle))
                self._runtime.problem("model")
                self._runtime.problem("offer")
            self._announce(ModelState(event=outcome.event, offer=outcome.bundle, reason=outcome.reason))

    # --- frames ---------------------------------------------------------------------------------------

    def update(self) -> None:
        """One tick: the next frame, or the news that none comes."""
        self._swap_if_ready()
        received = self._frames.receive(_WAIT_S)
        if received is None:
            self._say_stalled()
            return
        self._runtime.problem("camera")
        for late in (waiting := self._backlog(received))[:-1]:
            self._skip(late)
        self._note_gaps()
        self._judge(waiting[-1])

    def _skip(self, late: Received[Frame]) -> None:
        """Answer a frame that nobody looked at. What was seen before it does not count after it."""
        self._note_rate(late.message)
        self._forget()
        self._runtime.count("invalid")
        self._runtime.count("frames_skipped")
        self._publish(late, Reward(reason="skipped: the reward service was behind the camera"))

    def _note_gaps(self) -> None:
        """After frames that never came, or another publisher, the evidence from before is forgotten."""
        gaps = (self._frames.gaps.lost, self._frames.gaps.restarts)
        if gaps != self._gaps:
            self._runtime.count("frames_lost", gaps[0] - self._gaps[0])
            self._gaps = gaps
            self._forget()

    def _backlog(self, received: Received[Frame]) -> list[Received[Frame]]:
        """This frame; or, when it waited too long, all that are queued, to judge only the newest."""
        message = received.message
        waited_s = (received.t_receive - message.t_publish) / 1e9 if message.host == clock.host_id() else 0.0
        if waited_s <= BACKLOG_S:
            self._runtime.problem("backlog")
            return [received]
        waiting = [received, *self._frames.drain()]
        if len(waiting) > 1:
            text = "frames come faster than they can be judged, some are skipped: lower the camera's rate"
            self._runtime.problem("backlog", text)
        return waiting

    def _say_stalled(self) -> None:
        now = clock.monotonic_ns()
        period_ns = 1e9 / self._rate()
        if now - max(self._last_frame, self._last_said) < STALL_PERIODS * period_ns:
            return
        self._last_said = now
        silent = (now - self._last_frame) / 1e9
        text = f"no frame from camera {self.camera} for {silent:.1f} s"
        self._runtime.problem("camera", f"no frames from camera {self.camera}: is its service running?")
        self._forget()
        self._send(Reward(camera=self.camera, reason=text))

    def _judge(self, received: Received[Frame]) -> None:
        frame, start = received.message, perf_counter()
        self._last_frame = received.t_receive
        self._note_rate(frame)
        if not frame.valid:
            self._refuse(received, f"camera {self.camera}: {frame.reason or 'the frame is not valid'}")
        elif self._scorer is None:
            self._refuse(received, self._without)
        else:
            try:
                self._score(received, start)
            except UserError as e:
                self._refuse(received, str(e))

    def _score(self, received: Received[Frame], start: float) -> None:
        from gripwire_reward.decision import Decider
        from gripwire_reward.decode import decode

        image = decode(received.message, received.payload)
        decoded = perf_counter()
        score = self._scorer.frame(image)
        if strange := self._scorer.strange(score.drift):
            self._refuse(received, strange, score.drift)
            return
        rule, rate = self._scorer.bundle.manifest.decision, self._rate()
        if self._decider is None or abs(self._decider.rate_hz / rate - 1) > 0.2:
            self._decider = Decider(rule, rate)
        scored = perf_counter()
        decision = self._decider.update(score.probability)
        stages = {
            "decode": (decoded - start) * 1e3,
            "preprocess": score.preprocess_ms,
            "score": score.score_ms,
            "decide": (perf_counter() - scored) * 1e3,
        }
        above = score.probability >= rule.threshold
        verdict = Reward(
            valid=True, logit=score.logit, probability=score.probability, threshold=rule.threshold,
            above=above, decision=decision, drift=score.drift, stages_ms=stages,
        )  # fmt: skip
        self._runtime.problem("frame")
        self._publish(received, verdict)

    def _refuse(self, received: Received[Frame], reason: str, drift: float | None = None) -> None:
        """This frame cannot be judged: say why; the verdict is no."""
        self._forget()
        self._runtime.count("invalid")
        if self._scorer is not None:
            self._runtime.problem("frame", reason)
        self._publish(received, Reward(reason=reason, drift=drift))

    def _forget(self) -> None:
        if self._decider is not None:
            self._decider.update(None)

    def _publish(self, received: Received[Frame], reward: Reward) -> None:
        frame = received.message
        same_clock = frame.host == clock.host_id()
        reward.camera, reward.frame_seq, reward.frame_boot = self.camera, frame.seq, frame.boot
        reward.exposure_seq = frame.exposure_seq
        # Times of another machine mean nothing here: then the moment of receipt stands in.
        reward.t_capture = frame.t_capture if same_clock else received.t_receive
        if same_clock:
            reward.stages_ms = {"receive": (received.t_receive - frame.t_publish) / 1e6} | reward.stages_ms
        self._runtime.count("frames")
        self._send(reward)

    def _send(self, reward: Reward) -> None:
        reward.stages_ms = {stage: round(ms, 3) for stage, ms in reward.stages_ms.items()}
        reward.model = self._state.serving if self._scorer else ""
        reward.epoch = self._state.epoch
        self._reward.publish(reward)

    # --- rate -----------------------------------------------------------------------------------------

    def _note_rate(self, frame: Frame) -> None:
        if self._captures and frame.t_capture <= self._captures[-1]:
            self._captures.clear()  # another publisher, or its clock began anew
        self._captures.append(frame.t_capture)

    def _rate(self) -> float:
        """Frames per second as captured lately; until enough have come, what the camera is declared to give.

        A camera that is plainly slower than declared is believed after a few frames: its pauses are no
        stalls. One that seems faster is not, since a burst at the start proves nothing.
        """
        if len(self._captures) < _RATE_SOON:
            return self._nominal_hz
        measured = 1e9 / statistics.median(b - a for a, b in itertools.pairwise(self._captures))
        full = len(self._captures) == _RATE_WINDOW
        return measured if full or measured < self._nominal_hz / 1.5 else self._nominal_hz

    def close(self, failed: bool) -> None:
        if hasattr(self, "_keeper"):
            self._keeper.close()
