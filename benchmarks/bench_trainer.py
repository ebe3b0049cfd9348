"""From labels to a classifier: cold, and again after a changed label in a running watch, against the
straightforward loop (LeRobot's dataset reader, batch 64, full forward pass every step, one torch thread).

`bench_trainer.py MERGE.json [--rounds N] [--full]`; without a merge file, the bench records nothing and says
so. All ratios are of one run. One JSON line per figure. ``--full`` trains the straightforward loop to its end
(three quarters of an hour) for its score beside ours, and prints a line per epoch to stderr.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gripwire.files import write_whole
from gripwire_trainer import job, labels
from gripwire_trainer.settings import TrainerSettings

EPOCHS = 43
"""After so many the origin's training was at its best."""
PORT_BASE = 27000
_GRIPWIRE = (sys.executable, "-m", "gripwire")


def say(**figure: Any) -> None:
    print(json.dumps(figure), flush=True)


def cold(merge: Path, data: Path) -> dict[str, Any]:
    """Nothing cached: seconds, and the largest memory of the command in MiB."""
    start = time.monotonic()
    process = subprocess.Popen(
        [*_GRIPWIRE, "trainer", "train", str(merge), "--json", "--data", str(data)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the training failed")
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    result["seconds"]["all"] = round(time.monotonic() - start, 1)
    result["peak_mib"] = round(usage.ru_maxrss / 1024)
    return result


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*_GRIPWIRE, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def relabel(merge: Path, data: Path, rounds: int) -> tuple[list[dict[str, Any]], float]:
    """What a running watch tells after each of ``rounds`` saved labels, and its largest memory in MiB."""
    ports = ("--data", str(data), "--port-base", str(PORT_BASE))
    told: list[dict[str, Any]] = []
    with (
        running("reward", "run", *ports),
        running("trainer", "watch", str(merge), "--json", *ports) as watch,
    ):
        assert watch.stdout is not None

        def next_event(name: str) -> dict[str, Any]:
            for line in watch.stdout or ():
                if (event := json.loads(line))["event"] == name:
                    return dict(event)
            raise SystemExit("the watch ended")

        next_event("waiting")
        file = labels.read(merge).sources[0].file
        for number in range(rounds):
            _move_an_edge(file, number)
            saved = time.monotonic()
            event = next_event("decided")
            told.append(event | {"wall_s": time.monotonic() - saved})
            next_event("waiting")
        status = Path(f"/proc/{watch.pid}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return told, peak


def _move_an_edge(file: Path, number: int) -> None:
    """One episode's success begins one reading step later or earlier than before."""
    content = json.loads(file.read_text())
    chosen = [e for e, label in content["episodes"].items() if label and "success_start" in label]
    label = content["episodes"][chosen[number % len(chosen)]]
    label["success_start"] += 3 if number % 2 == 0 else -3
    write_whole(file, json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("merge", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    if arguments.merge is None:
        print("bench_trainer.py: name a merge file of recorded episodes to measure with", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as scratch:
        merge = _copy(arguments.merge, Path(scratch) / "labels")
        data = Path(scratch) / "data"
        first = cold(merge, data)
        say(figure="from nothing cached to a bundle", seconds=first["seconds"], peak_mib=first["peak_mib"])
        keep = ("frame_accuracy", "always_fail_accuracy", "false_success_rate", "missed_success_rate",
                "onset_error_median_frames", "onset_error_p90_frames", "ece_after")  # fmt: skip
        say(figure="held out, against the supplied labels", **{k: first["metrics"].get(k) for k in keep})
        told, peak = relabel(merge, data, arguments.rounds)
        again = statistics.median(event["wall_s"] for event in told)
        say(
            figure="from a saved label to offer and dataset, in a running watch", rounds=len(told),
            median_s=round(again, 2), worst_s=round(max(event["wall_s"] for event in told), 2),
            to_offer_s=[event["seconds"]["to_offer"] for event in told], peak_mib=round(peak),
        )  # fmt: skip
        from straightforward import full, timed

        epoch = timed(Path(first["dataset"]))
        say(
            figure="to retrain, against the straightforward loop", gripwire_s=round(again, 2),
            straightforward_epoch_s=round(epoch, 1), straightforward_s=round(EPOCHS * epoch),
            ratio=round(EPOCHS * epoch / again),
        )  # fmt: skip
        if arguments.full:
            held_out, judged, ours = scored(merge, data)
            theirs = full(Path(first["dataset"]), held_out, judged, EPOCHS)
            say(
                figure="right on every fifth episode, held out, where labels are certain",
                frames=len(judged), gripwire=round(ours, 5), straightforward=theirs,
            )  # fmt: skip


def scored(merge: Path, data: Path) -> tuple[Tensor, Tensor, float]:
    """Of every fifth episode: the mask of its frames (n,), the rows (m,) whose label is certain, and what
    share of those a head that did not learn from the episode puts on the right side of its threshold."""
    task = job.Task(merge, data, TrainerSettings())
    judged = job.run(task, lambda stage, part, figures: None).judged
    held_out = np.concatenate([np.full(len(e.success), i % 5 == 0) for i, e in enumerate(judged)])
    certain = np.concatenate([e.counted for e in judged]) & held_out
    right = np.concatenate([e.above == e.success for e in judged])
    return torch.from_numpy(held_out), torch.from_numpy(np.flatnonzero(certain)), float(right[certain].mean())


def _copy(merge: Path, folder: Path) -> Path:
    """The label files where they may be changed, naming their datasets absolutely."""
    folder.mkdir(parents=True)
    parsed = labels.read(merge)
    for source in parsed.sources:
        content = json.loads(source.file.read_text()) | {"dataset_path": str(source.dataset)}
        (folder / source.file.name).write_text(json.dumps(content))
    names = {"output_repo_id": parsed.name, "sources": [source.file.name for source in parsed.sources]}
    copied = folder / merge.name
    copied.write_text(json.dumps(names))
    shutil.copystat(merge, copied)
    return copied


if __name__ == "__main__":
    main()
