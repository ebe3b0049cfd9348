"""`gripwire demo`: flags and what is printed."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.files import make_folder, write_whole
from gripwire_sim.demo import plan

if TYPE_CHECKING:
    from gripwire_sim.demo.judge import Episode
    from gripwire_sim.demo.screen import Screen

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="A new folder for all results; demo/<time>.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the end result to this JSON file too.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=99999, help="Other scenes, other motions.")] = 1,
    episodes: Annotated[
        int, typer.Option(min=6, max=400, help="Episodes to record and train on.")
    ] = plan.TRAINING,
    fresh: Annotated[int, typer.Option(min=2, max=400, help="Fresh episodes to judge.")] = plan.FRESH,
    running: Annotated[
        bool,
        typer.Option(
            "--running", help="On the bench that runs here already, in containers or under `gripwire up`."
        ),
    ] = False,
    data: options.Data = None,
    port_base: options.PortBase = None,
) -> None:
    """Record grasps on the virtual bench, label them, train, swap the classifier in, and judge it live."""
    from gripwire_sim.demo.run import Demo, write_report
    from gripwire_sim.demo.screen import Screen
    from gripwire_sim.demo.stack import Running, Stack

    if data and not running:
        raise UserError("--data is the running stack's: add --running, or name where results go with --out")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = (out or Path("demo") / stamp).absolute()
    if (out / "data").exists() or (out / "report.html").exists():
        raise UserError(f"{out} holds the results of an earlier run; name another folder with --out")
    make_folder(out)
    settings = options.load(data=data if running else out / "data", port_base=port_base, ignore_file=True)
    # What is in a running stack's data folder stays as it is.
    name = f"demo-{stamp}" if running else "demo"
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    began = time.monotonic()
    stack = Running(settings) if running else Stack(settings, out / "logs")
    screen = Screen()
    ports = "" if port_base is None else f" --port-base {port_base}"
    logs = "" if running else f"; the logs to {_short(out / 'logs')}"
    screen.console.print(f"Results go to {_short(out)}{logs}.", soft_wrap=True)
    screen.console.print(
        f"Look on from a second terminal: .venv/bin/gripwire topics --watch{ports}\n", soft_wrap=True
    )
    try:
        to_record = plan.training(seed, episodes, name)
        demo_run = Demo(settings, to_record, plan.fresh(seed, fresh), screen, stopped, name)
        result, judged, pictures = demo_run.run(stack)
        if not running:
            with screen.stage("stop", "Stopping every service", 1):
                stack.close()
                screen.show("")
        result |= {"seed": seed, "training_episodes": episodes, "restarts": stack.restarts}
        screen.wall_s["total"] = round(time.monotonic() - began, 2)
        report = write_report(out, result, judged, pictures)
    except KeyboardInterrupt:
        screen.show("stopping")
        raise UserError(f"interrupted; what was recorded so far is in {_short(settings.data)}") from None
    finally:
        stack.close()
        screen.close()
    text = json.dumps(result, indent=2) + "\n"
    for path in filter(None, (out / "summary.json", summary)):
        write_whole(path, text)
    _print(screen, result, judged, settings.data, report)
    sys.stdout.flush()


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _print(
    screen: "Screen", result: dict[str, Any], episodes: "list[Episode]", data: Path, report: Path
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("episode", "script", "truth", "decision", "onset error", "frames right"):
        right = column in ("episode", "onset error", "frames right")
        table.add_column(column, justify="right" if right else "left")
    for i, e in enumerate(episodes):
        onset = "" if e.onset_error_s is None else f"{e.onset_error_s * 1000:+.0f} ms"
        colour = "green" if e.decided == e.succeeded else "red"
        decision = f"[{colour}]{'success' if e.decided else 'no success'}[/{colour}]"
        right_frames = f"{len(e.points) - len(e.wrong)} of {len(e.points)}"
        truth = "held" if e.succeeded else "failed"
        table.add_row(str(i), e.planned.kind.replace("_", " "), truth, decision, onset, right_frames)
    latency = result["latency_ms"]
    screen.console.print()
    screen.console.print(table)
    screen.console.print(
        f"\naccuracy         {result['accuracy']:.2%} of {result['frames']} fresh frames "
        f"(always “fail” would score {result['always_fail_accuracy']:.1%})\n"
        f"false successes  {result['false_successes']} in {result['failed_episodes']} failed episodes; "
        f"missed successes {result['missed_successes']}\n"
        f"reward latency   {latency['p50']:.1f} ms median, {latency['p99']:.1f} ms p99, capture to publish, "
        f"at {result['camera_hz']:.1f} Hz\n"
        f"the swap         largest gap between rewards {result['swap_gap_s'] * 1000:.0f} ms, "
        f"missed ticks {result['missed_ticks_at_swap']} (in all {result['missed_ticks']})\n"
        f"bundle           {result['bundle']}, epoch {result['epoch']}\n"
        f"took             {result['wall_s']['total']:.0f} s\n"
        f"report           {_short(report)}\n"
        f"datasets, bundle {_short(data)}"
    )
