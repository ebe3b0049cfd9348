"""What serves: model, rule and decider, the commands that change them, and the topic that tells."""

from collections.abc import Callable
from typing import Any

from gripwire import control, logs
from gripwire.errors import UserError
from gripwire.messages import (
    Command,
    Done,
    Freeze,
    ModelState,
    NewEpisode,
    Offer,
    Override,
    Reply,
    Rollback,
    Swap,
    Thaw,
)
from gripwire.service import Runtime
from gripwire_reward.settings import RewardSettings


class Serving:
    """Changes between two ticks, when :meth:`tick` is called, and at no other moment.

    ``scorer`` is None while there is no model, and ``without`` says why; ``decider`` is there with it.
    """

    def __init__(
        self, runtime: Runtime, settings: RewardSettings, camera: str, rate_hz: Callable[[], float]
    ) -> None:
        self._runtime, self._settings, self._camera, self._rate_hz = runtime, settings, camera, rate_hz
        self._model = runtime.publisher("model")
        topics = runtime.topics
        self._trainer: control.Client | None = None
        if topics.host("trainer") != topics.host("reward"):
            self._trainer = control.Client(topics.control("trainer"), "trainer")
        self._held_by = ""
        self.scorer: Any = None
        self.rule: Any = None
        self.decider: Any = None

    @property
    def commands(self) -> dict[type[Command], Any]:
        return {
            Offer: self._take, Swap: self._take, Rollback: self._roll_back, Freeze: self._freeze,
            Thaw: self._thaw, Override: self._override, NewEpisode: self._new_episode,
        }  # fmt: skip

    def setup(self) -> None:
        """Begin to load the bundle that served last. Needs the engine."""
        from gripwire_reward import gate
        from gripwire_reward.companions import Companions
        from gripwire_reward.keeper import Keeper

        if self._settings.gate:
            gate.parse(self._settings.gate)  # complain early
        self.companions = Companions(self._runtime)
        data, cameras = self._runtime.settings.data, self._runtime.settings.cameras
        self.keeper = Keeper(
            data / "bundles", data / "runs" / "reward" / "serving.json",
            (self._camera, *(name for name in cameras if name != self._camera)),
            self._settings.overrides(), self._settings.shadow_s, self._trainer.ask if self._trainer else None,
        )  # fmt: skip
        self.state = self.keeper.state
        self.without = "the model is loading" if self.state.serving else "no bundle"
        if not self.state.serving:
            self._runtime.problem("model", "no bundle yet: train one, or `gripwire reward swap BUNDLE`")
        self._announce(ModelState(event="none", reason=self.without))

    def tick(self) -> None:
        """Take over what has been made ready since the last tick, and tell."""
        self._adopt_outcomes()
        self._note_hold()

    @property
    def model(self) -> str:
        """The id of the bundle that serves; empty while there is none."""
        return self.state.serving if self.scorer else ""

    def begin_episode(self) -> None:
        """What was seen before is no evidence, and a latched success is over."""
        if self.decider is not None:
            self.decider.reset()

    def forget(self) -> None:
        """After a silence or a loss, what was seen before is no evidence."""
        if self.decider is not None:
            self.decider.forget()

    def pass_over(self) -> None:
        """A frame without a score: nor is it after that."""
        if self.decider is not None:
            self.decider.update(None)

    def renew_decider(self) -> None:
        """What was seen by another model, rule or rate is no evidence; the episode goes on."""
        from gripwire_reward.decision import Decider

        before = self.decider
        self.decider = Decider(self.rule, self._rate_hz())
        if before is not None:
            self.decider.resume(before)

    def close(self) -> None:
        if hasattr(self, "keeper"):
            self.keeper.close()
        if self._trainer:
            self._trainer.close()

    # --- commands ---------------------------------------------------------------------------------------

    def _take(self, command: Offer | Swap) -> Reply:
        from gripwire_reward import bundle

        try:
            folder = bundle.find(command.bundle, self._runtime.settings.data / "bundles")
        except UserError:
            if self._trainer is None or not bundle.is_id(command.bundle):
                raise
            self.keeper.swap(command.bundle)
            where = self._runtime.topics.host("trainer")
            return Done(text=f"fetching {command.bundle} from {where}; `model` will say what became of it")
        self.keeper.swap(folder.name)
        return Done(text=f"verifying {folder.name}; `model` will say what became of it")

    def _roll_back(self, command: Rollback) -> Reply:
        self._refuse_while_held("rolled back", command.force)
        if not self.state.previous:
            raise UserError("there is no earlier bundle to return to")
        self.keeper.rollback(command.force)
        return Done(text=f"returning to {self.state.previous}")

    def _freeze(self, command: Freeze) -> Reply:
        self.keeper.hold(command.by, command.lease_s)
        self._adopt_outcomes()  # what was committed before the hold serves before it is confirmed
        self._note_hold()
        serving = self.state.serving or "no bundle"
        return Done(
            text=f"{serving}, epoch {self.state.epoch}, is held by {command.by} for {command.lease_s:g} s"
        )

    def _thaw(self, command: Thaw) -> Reply:
        self.keeper.release(command.by, command.force)
        self._note_hold()
        waiting = self.state.waiting
        return Done(text=f"{waiting} was waiting and is verified now" if waiting else "nothing was waiting")

    def _override(self, command: Override) -> Reply:
        from gripwire_reward.decision import DecisionRule, overridden

        self._refuse_while_held("overridden", command.force)
        asked = command.model_dump(exclude={"clear", "force"}, exclude_none=True)
        if not asked and not command.clear:
            raise UserError("nothing to override; `gripwire reward override --help` lists what there is")
        changes = ({} if command.clear else self.state.overrides) | asked
        rule = self.scorer.bundle.manifest.decision if self.scorer else DecisionRule()
        overridden(rule, self._settings.overrides() | changes)  # or refuse
        self.keeper.override(changes, command.force)
        return Done(text="from the next frame on; every reward shows it")

    def _refuse_while_held(self, what: str, force: bool) -> None:
        held = self.keeper.held
        if held and not force:
            raise UserError(
                f"the model is held by {held.by} for another {held.left_s:.0f} s and cannot be {what}: a "
                "reward that changes under a learner can undo it; --force does it all the same"
            )

    def _new_episode(self, command: NewEpisode) -> Reply:
        self.begin_episode()
        return Done(text="a new episode begins with the next frame")

    def _announce(self, message: ModelState) -> None:
        """Publish on `model`; serving, previous, epoch, hold and overrides are filled in."""
        message.serving = self.state.serving if self.scorer else ""
        message.previous, message.epoch, message.valid = self.state.previous, self.state.epoch, True
        message.waiting, message.overrides = self.state.waiting, self.state.applied
        if held := self.keeper.held:
            message.frozen_by, message.frozen_s = held.by, round(held.left_s, 1)
        if self.scorer:
            metrics = self.scorer.bundle.manifest.metrics
            message.metrics = {name: metric.value for name, metric in metrics.items()}
        logs.context.see(message)
        self._model.publish(message)

    def _adopt_outcomes(self) -> None:
        """Between two ticks: take over what the keeper has made ready."""
        while (outcome := self.keeper.poll()) is not None:
            self.state = outcome.state
            if outcome.event == "refused":
                self._runtime.count("bundles_refused")
                self._runtime.problem("offer", f"bundle {outcome.bundle} refused: {outcome.reason}")
                if self.scorer is None:
                    self.without = f"no bundle: {outcome.reason}"
            elif outcome.event in ("serving", "rolled_back", "none"):
                self._adopt(outcome.scorer or self.scorer)
            self._announce(ModelState(
                event=outcome.event, offer=outcome.bundle, reason=outcome.reason,
                shadow_frames=outcome.comparison.frames,
                disagreements=list(outcome.comparison.disagreements),
            ))  # fmt: skip

    def _adopt(self, scorer: Any) -> None:
        from gripwire_reward.decision import overridden

        if scorer is None:
            return
        self._runtime.problem("offer")
        rule = overridden(scorer.bundle.manifest.decision, self.state.applied)
        if scorer is self.scorer and rule == self.rule:
            return
        if scorer is not self.scorer:
            self._runtime.count("swaps")
            self._runtime.problem("model")
        self.scorer, self.rule = scorer, rule
        self.renew_decider()
        others = [contract.camera for contract in scorer.contracts[1:]]
        self.companions.expect(others, bool(rule.gate))

    def _note_hold(self) -> None:
        held = self.keeper.held
        by = held.by if held else ""
        if by != self._held_by:
            self._held_by = by
            self._announce(ModelState(event="none", reason=f"held by {by}" if by else "no longer held"))
