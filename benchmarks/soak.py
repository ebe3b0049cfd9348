"""The whole stack on the virtual bench, under load, for hours: are rates held, is memory flat, is every gap
explained?

`soak.py [--minutes M] [--out FOLDER]` (120, results/soak-TIME) runs `gripwire up --profile sim` on ports of
its own. Meanwhile the arm performs and the recorder records one episode after the other, the trainer trains
again and again and offers what comes out, a policy reads every reward, and this program reads every topic.
Every ten seconds it writes a line to FOLDER/samples.jsonl; at the end summary.json, a table and soak.png.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gripwire import RewardStream, clock, control, settings
from gripwire.errors import UserError
from gripwire.messages import Frame, Health, ModelState, Reward, Train, TrainerState
from gripwire.settings import Settings
from gripwire.survey import Survey
from gripwire_sim.demo import plan
from gripwire_sim.demo.bench import Recording
from gripwire_sim.demo.plan import Planned

BASE = 27200
RESULTS = Path(__file__).parent / "results"
SAMPLE_S = 10.0
WARM_UP = 0.2
"""Of the whole: imports, caches and the first training take memory that stays."""
LABELLED = 16
"""Four of them end in success: a training holds some back, and asks for three at least."""
STALL_S = 1.0
"""A reader that did not look for so long may itself be why something was lost (a camera's queue is 2 s)."""
ANSWERED_S = 5.0
HELD = (0.8, 1.2)


# --- load ---------------------------------------------------------------------------------------------


@dataclass
class Load:
    """What keeps the stack busy, each in a thread; what goes wrong is counted and goes on."""

    stack: Settings
    ended: threading.Event = field(default_factory=threading.Event)
    done: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def start(self) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=self._go_on, args=(work,))
            for work in (self._record, self._train, self._act)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _go_on(self, work: Callable[[], None]) -> None:
        while not self.ended.is_set():
            try:
                work()
            except Exception as e:  # a load that gives up would make the rest of the soak worth nothing
                self.errors.append(f"{work.__name__}: {type(e).__name__}: {e}")
                self.ended.wait(5.0)

    def _record(self) -> None:
        """Episode after episode, each performed on a fresh scene."""
        recording = Recording(self.stack.topics, self.ended.is_set)
        try:
            while not self.ended.is_set():
                number = self.done["episodes"]
                kind = plan.training(0, number + 1)[-1].kind
                recording.record(Planned(kind, number, "soak"))
                self.done["episodes"] += not self.ended.is_set()
        finally:
            self.done["performed again"] += recording.repeated
            recording.close()

    def _train(self) -> None:
        """As soon as there are some episodes, one training after the other, from nothing."""
        dataset = self.stack.data / "datasets" / "soak"
        while self.done["episodes"] < LABELLED + 1:
            if self.ended.wait(1.0):
                return
        self._label(dataset)
        shutil.rmtree(self.stack.data / "cache" / "features", ignore_errors=True)
        survey = Survey([self.stack.topics["trainer"]])
        try:
            job = control.request(
                self.stack.topics.control("trainer"),
                "trainer",
                Train(labels="soak", options={"seed": self.done["trainings"]}),  # another model each time
                timeout_s=30,
            ).text
            while not self.ended.is_set():
                for _, received in survey.listen(0.5):
                    state = received.message
                    if isinstance(state, TrainerState) and state.done and job.endswith(state.job):
                        if state.error:  # such as an episode that is still being saved
                            raise UserError(f"training: {state.error}")
                        self.done["trainings"] += 1
                        return
        finally:
            survey.close()

    def _label(self, dataset: Path) -> None:
        """Roughly, and good enough for a load: a busy machine's episodes have few rows."""
        kinds = [planned.kind for planned in plan.training(0, LABELLED)]
        episodes = {
            str(i): {"success_start": 20} if kind == "grasp_hold" else None for i, kind in enumerate(kinds)
        }
        file = self.stack.data / "labels" / "soak.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"dataset_path": str(dataset), "episodes": episodes}))

    def _act(self) -> None:
        """A policy that takes every reward."""
        with RewardStream(port_base=self.stack.bus.port_base) as reward:
            for _ in reward:
                self.done["rewards read"] += 1
                if self.ended.is_set():
                    return


# --- what is seen -------------------------------------------------------------------------------------


def family_mib(pid: int) -> float:
    """Memory of a process and all that it started, without pages that only map files."""
    total, families = 0.0, [pid]
    while families:
        each = families.pop()
        try:
            status = Path(f"/proc/{each}/status").read_text()
            families += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
            total += int(status.split("RssAnon:")[1].split()[0]) / 1024
        except (OSError, IndexError):  # it has just ended
            continue
    return total


class Witness:
    """Reads every topic and tells, every :data:`SAMPLE_S`, what came, what was lost and why."""

    def __init__(self, stack: Settings) -> None:
        self.survey = Survey(list(stack.topics))
        self.gaps: list[dict[str, Any]] = []
        self.unanswered = 0
        self._seen_gaps: Counter[str] = Counter()
        self._pids: dict[str, int] = {}
        self.restarts: Counter[str] = Counter()
        self._frames: dict[tuple[str, int], float] = {}
        self._early: set[tuple[str, int]] = set()
        self._answering = False

    def sample(self) -> dict[str, Any]:
        """Listen for :data:`SAMPLE_S`."""
        began, came, stall, delays = time.monotonic(), Counter[str](), 0.0, list[float]()
        since = clock.monotonic_ns()
        turned = began
        while (left := began + SAMPLE_S - time.monotonic()) > 0:
            arrived = self.survey.listen(min(left, 0.2))
            stall, turned = max(stall, time.monotonic() - turned - 0.2), time.monotonic()
            for name, received in arrived:
                came[name] += received.message.t_publish >= since
                self._match(received.message, turned, delays)
        self._note_gaps(stall)
        health = {m.service: m for m in self.survey.latest.values() if isinstance(m, Health)}
        for service, beat in health.items():
            self.restarts[service] += self._pids.get(service, beat.pid) != beat.pid
            self._pids[service] = beat.pid
        model = self.survey.latest.get("model")
        seconds = time.monotonic() - began
        return {
            "t": round(time.time(), 1),
            "rates": {name: round(count / seconds, 2) for name, count in sorted(came.items())},
            "memory_mib": {s: round(family_mib(beat.pid), 1) for s, beat in sorted(health.items())},
            "states": {s: f"{b.state}: {b.problem}" for s, b in health.items() if b.state != "ready"},
            "lost": {n: m.gaps.lost for n, m in self.survey.meters.items() if m.gaps.lost},
            "refused": {n: r.refused for n, r in self.survey.readers.items() if r.refused},
            "late_exposures": health["sim"].counts.get("exposures_late", 0) if "sim" in health else None,
            "unanswered": self.unanswered,
            "reward_delay_ms": round(statistics.median(delays), 1) if delays else None,
            "epoch": model.epoch if isinstance(model, ModelState) else None,
            "stall_s": round(stall, 2), "load": os.getloadavg()[0],
        }  # fmt: skip

    def _match(self, message: Any, now: float, delays: list[float]) -> None:
        """Every picture has its reward, from the first reward on; here either may be taken in first."""
        if isinstance(message, Frame) and self._answering:
            if (key := (message.boot, message.seq)) in self._early:
                self._early.discard(key)
            else:
                self._frames[key] = now
            for key in [k for k, at in self._frames.items() if now - at > ANSWERED_S]:
                del self._frames[key]
                self.unanswered += 1
        elif isinstance(message, Reward) and message.frame_seq >= 0:
            if self._frames.pop((message.frame_boot, message.frame_seq), None) is None and self._answering:
                self._early.add((message.frame_boot, message.frame_seq))
            self._answering = True
            delays.append((message.t_publish - message.t_capture) / 1e6)

    def _note_gaps(self, stall: float) -> None:
        for name, meter in self.survey.meters.items():
            if meter.gaps.lost > self._seen_gaps[name]:
                why = f"this reader did not look for {stall:.1f} s" if stall > STALL_S else ""
                lost = meter.gaps.lost - self._seen_gaps[name]
                self.gaps.append({"t": time.time(), "topic": name, "lost": lost, "why": why})
                self._seen_gaps[name] = meter.gaps.lost


# --- what it comes to ---------------------------------------------------------------------------------


def summarise(samples: list[dict[str, Any]], stack: Settings, witness: Witness, load: Load) -> dict[str, Any]:
    warm = samples[int(len(samples) * WARM_UP) :]
    rates = {}
    for topic in stack.topics:
        values = [sample["rates"].get(topic.name, 0.0) for sample in warm]
        if topic.rate_hz and any(values):
            held = sum(HELD[0] <= value / topic.rate_hz <= HELD[1] for value in values) / len(values)
            rates[topic.name] = {
                "declared": topic.rate_hz, "median": statistics.median(values), "least": min(values),
                "held": round(held, 4),
            }  # fmt: skip
    unexplained = sum(gap["lost"] for gap in witness.gaps if not gap["why"])
    return {
        "minutes": round((samples[-1]["t"] - samples[0]["t"] + SAMPLE_S) / 60, 1), "samples": len(samples),
        "rates": rates, "memory_mib": {s: _memory(s, warm) for s in warm[-1]["memory_mib"]},
        "messages_lost": sum(gap["lost"] for gap in witness.gaps), "unexplained": unexplained,
        "gaps": witness.gaps, "restarts": {s: n for s, n in witness.restarts.items() if n},
        "frames_unanswered": samples[-1]["unanswered"] - warm[0]["unanswered"],
        "reward_delay_ms": statistics.median(s["reward_delay_ms"] or 0.0 for s in warm),
        "swaps": samples[-1]["epoch"] or 0,
        "load_average": round(statistics.median(s["load"] for s in warm), 1),
        "worst_stall_s": max(s["stall_s"] for s in warm), **load.done, "errors": dict(Counter(load.errors)),
    }  # fmt: skip


def _memory(service: str, warm: list[dict[str, Any]]) -> dict[str, float]:
    """Between the first and the last quarter: of two medians, since what works takes and gives back."""
    values = [sample["memory_mib"].get(service, 0.0) for sample in warm]
    quarter = max(1, len(values) // 4)
    first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    return {
        "first": round(first, 1),
        "last": round(last, 1),
        "growth": round(last - first, 1),
        "most": max(values),
    }


def table(summary: dict[str, Any]) -> str:
    lines = [
        "| topic | declared Hz | median Hz | least in 10 s | samples within 0.8 to 1.2 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, r in summary["rates"].items():
        lines.append(
            f"| `{name}` | {r['declared']:g} | {r['median']:.1f} | {r['least']:.1f} | {r['held']:.1%} |"
        )
    lines += [
        "",
        "| service | MiB, first quarter | last quarter | growth | most |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, m in summary["memory_mib"].items():
        lines.append(
            f"| {name} | {m['first']:.0f} | {m['last']:.0f} | {m['growth']:+.1f} | {m['most']:.0f} |"
        )
    return "\n".join(lines)


def draw(samples: list[dict[str, Any]], file: Path) -> None:
    """Rates above, memory below, over minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = [(sample["t"] - samples[0]["t"]) / 60 for sample in samples]
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, layout="constrained")
    for name in ("robot/state", "camera/gripper_cam", "reward"):
        above.plot(minutes, [sample["rates"].get(name, 0.0) for sample in samples], label=name, linewidth=1)
    for service in samples[-1]["memory_mib"]:
        below.plot(minutes, [s["memory_mib"].get(service, 0.0) for s in samples], label=service, linewidth=1)
    above.set(ylabel="messages a second", ylim=(0, None))
    below.set(ylabel="memory, MiB", xlabel="minutes", yscale="log", ylim=(20, 5000))  # room for the legend
    for axes in (above, below):
        axes.legend(fontsize=8, ncols=4)
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def soak(stack: Settings, minutes: float, out: Path) -> None:
    with open(out / "up.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gripwire", "up", "--profile", "sim"],
            env=os.environ | stack.environment(), stdout=log, stderr=log,
        )  # fmt: skip
    witness, load, samples = Witness(stack), Load(stack), list[dict[str, Any]]()
    threads: list[threading.Thread] = []
    try:
        begun = time.monotonic()
        while "reward" not in witness.survey.latest or "health/trainer" not in witness.survey.latest:
            witness.survey.listen(0.5)
            if time.monotonic() > begun + 300 or process.poll() is not None:
                raise SystemExit(f"the stack does not come up; see {out / 'up.log'}")
        threads = load.start()
        end = time.monotonic() + minutes * 60
        with open(out / "samples.jsonl", "w") as file:
            while time.monotonic() < end and process.poll() is None:
                samples.append(witness.sample() | dict(load.done))
                print(json.dumps(samples[-1]), file=file, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        load.ended.set()
        for thread in threads:
            thread.join(30)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        witness.survey.close()
    summary = summarise(samples, stack, witness, load)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    draw(samples, out / "soak.png")
    print(table(summary))
    print(json.dumps(summary))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--out", type=Path, default=RESULTS / time.strftime("soak-%Y%m%d-%H%M%S"))
    parser.add_argument("--port-base", type=int, default=BASE)
    flags = parser.parse_args()
    flags.out.mkdir(parents=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # whichever ends it early, what was seen is told
        signal.signal(number, signal.default_int_handler)
    data = flags.out.absolute() / "data"
    soak(settings.load(flags={"data": data, "port_base": flags.port_base}, env={}), flags.minutes, flags.out)


if __name__ == "__main__":
    main()
