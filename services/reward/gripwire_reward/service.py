"""The reward service: camera frames get a verdict, in order, by the model that serves at that moment."""

import itertools
import statistics
from collections import deque
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gripwire import clock
from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    Done,
    EpisodeState,
    Frame,
    Freeze,
    ModelState,
    NewEpisode,
    Offer,
    Override,
    Reply,
    Reward,
    Rollback,
    Swap,
    Thaw,
)
from gripwire.service import Runtime
from gripwire_reward.intake import Intake, Taken
from gripwire_reward.settings import RewardSettings

STALL_PERIODS = 10
"""Without a frame for so many periods, the camera is stalled and the verdict is no."""

_WAIT_S = 0.05
_RATE_WINDOW = 31
_RATE_SOON = 4
"""Frames after which a camera that is far slower than declared is known to be so."""


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
        self._nominal_hz = self.settings.rate_hz or topic.rate_hz or 30.0
        self._reward = runtime.publisher("reward")
        self._model = runtime.publisher("model")
        self._intake = Intake(runtime.queued(topic.name, Frame), self.settings.rate_hz)
        self._episodes = runtime.queued("episode", EpisodeState)
        self._recording = False
        self._captures: deque[int] = deque(maxlen=_RATE_WINDOW)
        self._last_frame = clock.monotonic_ns()
        self._last_said = 0
        self._held_by = ""
        self._scorer: Any = None
        self._rule: Any = None
        self._decider: Any = None

    @property
    def commands(self) -> dict[type[Command], Any]:
        return {
            Offer: self._take, Swap: self._take, Rollback: self._roll_back, Freeze: self._freeze,
            Thaw: self._thaw, Override: self._override, NewEpisode: self._new_episode,
        }  # fmt: skip

    # --- models ---------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Import the engine and begin to load the bundle that served last."""
        import cv2
        import onnxruntime

        from gripwire_reward import gate
        from gripwire_reward.companions import Companions
        from gripwire_reward.keeper import Keeper

        cv2.setNumThreads(1)  # a pool for one small picture costs more than it gives
        self._runtime.versions["onnxruntime"] = onnxruntime.__version__
        if self.settings.gate:
            gate.parse(self.settings.gate)  # complain early
        self._companions = Companions(self._runtime)
        data, others = self._runtime.settings.data, self._runtime.settings.cameras
        cameras = (self.camera, *(name for name in others if name != self.camera))
        self._keeper = Keeper(
            data / "bundles", data / "runs" / "reward" / "serving.json", cameras,
            self.settings.overrides(), self.settings.shadow_s,
        )  # fmt: skip
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
        self._refuse_while_held("rolled back", command.force)
        if not self._state.previous:
            raise UserError("there is no earlier bundle to return to")
        self._keeper.rollback()
        return Done(text=f"returning to {self._state.previous}")

    def _freeze(self, command: Freeze) -> Reply:
        self._keeper.hold(command.by, command.lease_s)
        self._adopt_outcomes()  # what was committed before the hold serves before it is confirmed
        self._note_hold()
        serving = self._state.serving or "no bundle"
        return Done(
            text=f"{serving}, epoch {self._state.epoch}, is held by {command.by} for {command.lease_s:g} s"
        )

    def _thaw(self, command: Thaw) -> Reply:
        self._keeper.release(command.by, command.force)
        self._note_hold()
        waiting = self._state.waiting
        return Done(text=f"{waiting} was waiting and is verified now" if waiting else "nothing was waiting")

    def _override(self, command: Override) -> Reply:
        from gripwire_reward.decision import DecisionRule, overridden

        self._refuse_while_held("overridden", command.force)
        asked = command.model_dump(exclude={"clear", "force"}, exclude_none=True)
        if not asked and not command.clear:
            raise UserError("nothing to override; `gripwire reward override --help` lists what there is")
        changes = ({} if command.clear else self._state.overrides) | asked
        rule = self._scorer.bundle.manifest.decision if self._scorer else DecisionRule()
        overridden(rule, self.settings.overrides() | changes)  # or refuse
        self._keeper.override(changes)
        return Done(text="from the next frame on; every reward shows it")

    def _refuse_while_held(self, what: str, force: bool) -> None:
        held = self._keeper.held
        if held and not force:
            raise UserError(
                f"the model is held by {held.by} for another {held.left_s:.0f} s and cannot be {what}: a "
                "reward that changes under a learner can undo it; --force does it all the same"
            )

    def _new_episode(self, command: NewEpisode) -> Reply:
        if self._decider is not None:
            self._decider.reset()
        return Done(text="a new episode begins with the next frame")

    def _announce(self, message: ModelState) -> None:
        """Publish on `model`; serving, previous, epoch, hold and overrides are filled in."""
        message.serving = self._state.serving if self._scorer else ""
        message.previous, message.epoch, message.valid = self._state.previous, self._state.epoch, True
        message.waiting, message.overrides = self._state.waiting, self._state.applied
        if held := self._keeper.held:
            message.frozen_by, message.frozen_s = held.by, round(held.left_s, 1)
        if self._scorer:
            metrics = self._scorer.bundle.manifest.metrics
            message.metrics = {name: metric.value for name, metric in metrics.items()}
        self._model.publish(message)

    def _adopt_outcomes(self) -> None:
        """Between two ticks: take over what the keeper has made ready."""
        while (outcome := self._keeper.poll()) is not None:
            self._state = outcome.state
            if outcome.event == "refused":
                self._runtime.count("bundles_refused")
                self._runtime.problem("offer", f"bundle {outcome.bundle} refused: {outcome.reason}")
                if self._scorer is None:
                    self._without = f"no bundle: {outcome.reason}"
            elif outcome.event in ("serving", "rolled_back", "none"):
                self._adopt(outcome.scorer or self._scorer)
            self._announce(ModelState(
                event=outcome.event, offer=outcome.bundle, reason=outcome.reason,
                shadow_frames=outcome.comparison.frames,
                disagreements=list(outcome.comparison.disagreements),
            ))  # fmt: skip

    def _adopt(self, scorer: Any) -> None:
        from gripwire_reward.decision import overridden

        if scorer is None:
            return
        if scorer is not self._scorer:
            self._runtime.count("swaps")
            self._runtime.problem("model")
        self._scorer = scorer
        self._runtime.problem("offer")
        rule = overridden(scorer.bundle.manifest.decision, self._state.applied)
        if rule != self._rule:
            self._rule = rule
        self._renew_decider()
        others = [contract.camera for contract in scorer.contracts[1:]]
        self._companions.expect(others, bool(rule.gate))

    def _renew_decider(self) -> None:
        """What was seen by another model, rule or rate is no evidence; the episode goes on."""
        from gripwire_reward.decision import Decider

        before = self._decider
        self._decider = Decider(self._rule, self._rate())
        if before is not None:
            self._decider.resume(before)

    def _note_hold(self) -> None:
        held = self._keeper.held
        by = held.by if held else ""
        if by != self._held_by:
            self._held_by = by
            self._announce(ModelState(event="none", reason=f"held by {by}" if by else "no longer held"))

    # --- frames ---------------------------------------------------------------------------------------

    def update(self) -> None:
        """One tick: the next frame, or the news that none comes."""
        self._adopt_outcomes()
        self._note_hold()
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
            self._note_rate(taken.received.message)
            self._forget()
            self._runtime.count("invalid")
            self._runtime.count("frames_skipped")
            self._publish(taken.received, Reward(reason="skipped: the reward service was behind the camera"))
            return
        lost, broken = self._intake.lost()
        self._runtime.count("frames_lost", lost)
        if broken:
            self._forget()
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
            if recording and not self._recording and self._decider is not None:
                self._decider.reset()
            self._recording = recording

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
        from gripwire_reward.decode import decode

        others = [contract.camera for contract in self._scorer.contracts[1:]]
        beside = self._companions.frames(others, received)
        images = [decode(received.message, received.payload), *(image for _, image in beside)]
        decoded = perf_counter()
        score = self._scorer.frame(*images)
        strange = self._scorer.strange(score.drift)
        self._shadow(received, images, None if strange else score.probability)
        if strange:
            self._refuse(received, strange, score.drift)
            return
        if abs(self._decider.rate_hz / self._rate() - 1) > 0.2:
            self._renew_decider()
        scored, rule = perf_counter(), self._rule
        gate = self._companions.gate(rule.gate) if rule.gate else True
        decision = self._decider.update(score.probability, gate)
        stages = {
            "decode": (decoded - start) * 1e3,
            "preprocess": score.preprocess_ms,
            "score": score.score_ms,
            "decide": (perf_counter() - scored) * 1e3,
        }
        verdict = Reward(
            valid=True, logit=score.logit, probability=score.probability, threshold=rule.threshold,
            above=score.probability >= rule.threshold, gate=gate, decision=decision,
            latched=self._decider.latched, drift=score.drift, stages_ms=stages,
            other_frames={name: seq for name, (seq, _) in zip(others, beside, strict=True)},
        )  # fmt: skip
        self._runtime.problem("frame")
        self._publish(received, verdict)

    def _shadow(
        self, received: Received[Frame], images: list[NDArray[np.uint8]], probability: float | None
    ) -> None:
        if (shadow := self._keeper.shadow) is not None:
            shadow.show(received.message.seq, images, probability)

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
        reward.epoch, reward.overrides = self._state.epoch, self._state.applied
        reward.step = self._decider.seen if self._decider else 0
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
