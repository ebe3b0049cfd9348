"""The demo's stages, in order."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gripwire.bus import Latest, Received
from gripwire.control import request
from gripwire.errors import UserError
from gripwire.messages import Frame, Train, TrainerState
from gripwire.settings import Settings
from gripwire_sim import truth
from gripwire_sim.demo import judge, plan, truth_labels
from gripwire_sim.demo.bench import Recording
from gripwire_sim.demo.screen import Screen
from gripwire_sim.demo.stack import Running, Stack
from gripwire_sim.demo.witness import Witness

AROUND_SWAP_NS = 2_000_000_000


class Demo:
    """One run. ``stopped`` is set on Ctrl+C and ends whatever is under way."""

    def __init__(
        self, settings: Settings, to_record: list[plan.Planned], to_judge: list[plan.Planned],
        screen: Screen, stopped: threading.Event, labels: str = "demo",
    ) -> None:  # fmt: skip
        self.settings, self.topics = settings, settings.topics
        self.camera = f"camera/{self.topics.cameras[0]}"
        self.to_record, self.to_judge = to_record, to_judge
        self.screen, self.stopped, self.labels = screen, stopped, labels
        self.grasped: dict[int, bool] = {}
        self.bundle, self.epoch, self.swapped_at = "", 0, 0
        self.metrics: dict[str, float] = {}

    def run(self, stack: Stack | Running) -> tuple[dict[str, Any], list[judge.Episode], dict[int, bytes]]:
        """Everything; the summary, the judged episodes and their pictures."""
        with self.screen.stage("start", "Starting every service", 1):
            self._await_ready(stack, {"sim", self.camera, "robot", "recorder", "reward"}, 90)
        witness = Witness(self.topics)
        progress = Latest(self.topics["trainer"], TrainerState)
        bench = Recording(self.topics, self.stopped.is_set)
        try:
            self._record(bench)
            self._label()
            with self.screen.stage("trainer_ready", "Waiting for the trainer", 1):
                self._await_ready(stack, {"trainer"}, 90)
            self._train(progress)
            self._await_swap(witness)
            spans = self._fresh(bench, witness)
            self._learn_truth()
            with self.screen.stage("dataset", "Finishing the dataset", 1):
                self._follow(progress, None, lambda state: state.done)
        finally:
            progress.close()
            bench.close()
            witness.close()
        summary, judged, pictures = self._judge(witness, spans)
        return summary | {"repeated": bench.repeated}, judged, pictures

    def _check(self) -> None:
        if self.stopped.is_set():
            raise KeyboardInterrupt

    def _pause(self, seconds: float) -> None:
        """Not by waiting for `stopped`: a signal sets that in this very thread."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.stopped.is_set():
            time.sleep(min(left, 0.1))

    def _await_ready(self, stack: Stack | Running, services: set[str], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while waiting := stack.waiting_for(services):
            self._check()
            if time.monotonic() > deadline:
                raise UserError(
                    f"{', '.join(waiting)} not ready after {timeout_s:.0f} s; see the logs in {stack.log_dir}"
                )
            self.screen.show(f"waiting for {', '.join(waiting)}")
            self._pause(0.1)

    def _record(self, bench: Recording) -> None:
        episodes = self.to_record
        with self.screen.stage("record", "Recording grasps", len(episodes)):
            for i, planned in enumerate(episodes):
                self._check()
                self.screen.show(f"{i + 1} of {len(episodes)}: {planned.kind.replace('_', ' ')}", i)
                bench.record(planned)
            self._check()
            self.screen.show("waiting until all are on disk", len(episodes) - 0.5)
            last = bench.wait_saved(len(episodes), 60)
            self.screen.show(f"{last.saved} episodes saved{_again(bench.repeated)}", len(episodes))

    def _learn_truth(self) -> None:
        since = max(self.grasped, default=-1)
        for record in truth.fetch(self.topics.host("sim"), self.topics.sim_truth_port(), since):
            self.grasped[record.seq] = record.grasped

    def _label(self) -> None:
        with self.screen.stage("label", "Writing label files", 1):
            self._learn_truth()
            names = sorted({p.dataset for p in self.to_record}, reverse=True)
            datasets = [self.settings.data / "datasets" / name for name in names]
            path = truth_labels.write(
                self.settings.data / "labels", datasets, self.topics.cameras[0], self.grasped, self.labels
            )
            self.screen.show(f"labels/{path.name} and its sources")

    def _train(self, progress: Latest[TrainerState]) -> None:
        """Ask for training and follow it until the bundle is offered."""
        with self.screen.stage("train", "Training the classifier", 1):
            before = progress.wait(1.0)
            request(self.topics.control("trainer"), "trainer", Train(labels=self.labels), timeout_s=30)
            state = self._follow(progress, before, lambda state: bool(state.bundle))
            self.bundle, self.metrics = state.bundle, state.metrics
            self.screen.show(f"bundle {state.bundle}", 1)

    def _follow(
        self,
        progress: Latest[TrainerState],
        seen: Received[TrainerState] | None,
        enough: Callable[[TrainerState], bool],
    ) -> TrainerState:
        """Show the job's stages until ``enough``; ``seen`` is the last message of before."""
        old_job = seen.message.job if seen else ""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            self._check()
            fresh = progress.wait(0.2, after=seen)
            if fresh is None or fresh.message.job == old_job:
                continue
            seen, state = fresh, fresh.message
            if state.error:
                raise UserError(f"training failed: {state.error}")
            if enough(state):
                return state
            self.screen.show(state.stage, state.progress)
        raise UserError("the trainer has not finished within 300 s; see its log")

    def _await_swap(self, witness: Witness) -> None:
        with self.screen.stage("swap", "Swapping it in, live", 1):
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not self.swapped_at:
                self._check()
                self._pause(0.02)
                refusals = [m.reason for m in witness.record.models if m.event == "refused"]
                if refusals:
                    raise UserError(f"the reward service refused the bundle: {refusals[-1]}")
                served = [r for r in witness.record.rewards[-500:] if r.valid and r.model == self.bundle]
                if served:
                    self.swapped_at, self.epoch = served[0].t_capture, served[0].epoch
            if not self.swapped_at:
                raise UserError(f"the reward service does not serve {self.bundle}; see its log")
            self.screen.show(f"serving since epoch {self.epoch}", 1)
            self._pause(AROUND_SWAP_NS / 1e9 + 0.3)  # the gap is measured over this much on both sides

    def _fresh(self, bench: Recording, witness: Witness) -> list[tuple[plan.Planned, int, int]]:
        """Play the fresh episodes; each with the time it began and ended."""
        spans = []
        episodes, before = self.to_judge, bench.repeated
        with self.screen.stage("fresh", "Judging fresh episodes", len(episodes)):
            witness.keep_pictures = True
            for i, planned in enumerate(episodes):
                self._check()
                self.screen.show(f"{i + 1} of {len(episodes)}: {planned.kind.replace('_', ' ')}", i)
                spans.append((planned, *bench.play(planned)))
            witness.keep_pictures = False
            self.screen.show(f"{len(episodes)} episodes{_again(bench.repeated - before)}", len(episodes))
            self._pause(0.3)  # rewards of the last frames are on their way
        return spans

    def _judge(
        self, witness: Witness, spans: list[tuple[plan.Planned, int, int]]
    ) -> tuple[dict[str, Any], list[judge.Episode], dict[int, bytes]]:
        record = witness.record
        rewards = {(r.frame_boot, r.frame_seq): r for r in record.rewards}
        episodes = [
            judge.episode(planned, _within(record.frames, began, ended), rewards, self.grasped)
            for planned, began, ended in spans
        ]
        swap = judge.ticks(
            record.frames, record.rewards, self.swapped_at - AROUND_SWAP_NS, self.swapped_at + AROUND_SWAP_NS
        )
        fresh = judge.ticks(record.frames, record.rewards, spans[0][1], spans[-1][2])
        points = [p for e in episodes for p in e.points]
        right = sum(p.right for p in points)
        failed = [e for e in episodes if not e.succeeded]
        summary = {
            "frames": len(points),
            "accuracy": round(right / len(points), 5) if points else 0.0,
            "always_fail_accuracy": round(sum(not p.truth for p in points) / max(1, len(points)), 5),
            "episodes": len(episodes),
            "failed_episodes": len(failed),
            "false_successes": sum(e.false_success for e in failed),
            "missed_successes": sum(e.succeeded and not e.decided for e in episodes),
            "invalid_frames": sum(not (p.reward and p.reward.valid) for p in points),
            "latency_ms": {
                "p50": judge.percentile(fresh.latency_ms, 50), "p99": judge.percentile(fresh.latency_ms, 99),
            },
            "swap_gap_s": round(swap.largest_gap_s, 4),
            "missed_ticks": swap.missed + fresh.missed,
            "missed_ticks_at_swap": swap.missed,
            "double_ticks": swap.doubled + fresh.doubled,
            "camera_hz": round(_rate(_within(record.frames, spans[0][1], spans[-1][2])), 1),
            "watcher_lost": record.lost,
            "bundle": self.bundle,
            "epoch": self.epoch,
            "training": self.metrics,
            "wall_s": self.screen.wall_s,
        }  # fmt: skip
        return summary, episodes, record.pictures


def _again(repeated: int) -> str:
    return f", {repeated} performed again: the arm had failed" if repeated else ""


def _within(frames: list[Frame], begin_ns: int, end_ns: int) -> list[Frame]:
    return [f for f in frames if begin_ns <= f.t_capture <= end_ns]


def _rate(frames: list[Frame]) -> float:
    span = (frames[-1].t_capture - frames[0].t_capture) / 1e9 if len(frames) > 1 else 0.0
    return (len(frames) - 1) / span if span else 0.0


def write_report(
    out: Path, summary: dict[str, Any], episodes: list[judge.Episode], pictures: dict[int, bytes]
) -> Path:
    """Write ``report.html`` into ``out``."""
    from gripwire.files import write_whole
    from gripwire_sim.demo.report import render

    path = out / "report.html"
    write_whole(path, render(summary, episodes, pictures))
    return path
