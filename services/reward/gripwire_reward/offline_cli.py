"""`gripwire reward score` and `rescore`: rewards of what was recorded, by the code that serves."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gripwire.cli import options
from gripwire.errors import UserError
from gripwire.settings import Settings

if TYPE_CHECKING:
    from gripwire_reward.datasets import Dataset
    from gripwire_reward.scorer import Scorer

Kind = Literal["decision", "above", "probability"]

BundleArg = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or its id (a unique start will do).")
]


DatasetArg = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="A LeRobot dataset's folder, or its name under the data folder's datasets/."
    ),
]


def score(
    bundle: BundleArg,
    dataset: DatasetArg,
    out: Annotated[
        Path, typer.Option("--out", metavar="SCORES.parquet", help="One row per frame is written here.")
    ],
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Score every frame of a dataset with a bundle, by the code that serves."""
    from gripwire_reward.score import score_dataset, write_scores

    source, scorer = _opened(dataset, bundle, options.load(config, data))
    start = time.monotonic()
    scores = list(score_dataset(scorer, source))
    rows = write_scores(scores, out)
    successes = sum(bool(s.decision.any()) for s in scores)
    summary = {
        "bundle": scorer.bundle.id,
        "dataset": str(source.path),
        "out": str(out),
        "episodes": len(scores),
        "frames": rows,
        "episodes_decided_success": successes,
        "seconds": round(time.monotonic() - start, 2),
    }
    if as_json:
        options.emit(summary)
    else:
        typer.echo(f"{rows} frames of {len(scores)} episodes scored, {successes} decided as success -> {out}")


def rescore(
    source: Annotated[
        str, typer.Argument(metavar="RUN.mcap|DATASET", help="A recording of the bus, or a dataset.")
    ],
    bundle: BundleArg,
    out: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.mcap|FILE.parquet",
            help="Of a dataset: a new one with these rewards, under the data folder's datasets/ or where a "
            "path says. Of a recording: a copy with these rewards, a .mcap. Of both: a .parquet with one "
            "row per frame.",
        ),
    ],
    reward: Annotated[
        Kind,
        typer.Option(help="What becomes the reward of a dataset's frame: 0 or 1, or the probability itself."),
    ] = "decision",
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Recompute the rewards of a recording or a replay buffer with another bundle. The source stays."""
    settings = options.load(config, data)
    target = Path(out).expanduser()
    recorded = source.endswith(".mcap")
    suffixes = (".mcap", ".parquet") if recorded else ("", ".parquet")
    if target.suffix not in suffixes:
        raise UserError(
            f"--out {out}: of a recording, write a .mcap or a .parquet"
            if recorded
            else f"--out {out}: of a dataset, write a dataset (a name without a suffix) or a .parquet"
        )
    if not target.suffix and target.parent == Path():
        target = settings.data / "datasets" / out
    if target.suffix != ".parquet" and target.exists():
        raise UserError(f"{target} exists already and is never overwritten; choose another name")
    again = _rescore_recording if recorded else _rescore_dataset
    summary = {"out": str(target)} | again(source, bundle, target, reward, settings)
    if as_json:
        options.emit(summary)
        return
    if summary["problem"]:
        typer.echo(f"warning: {summary['problem']}", err=True)
    changed = "the source has no rewards" if summary["changed"] is None else f"{summary['changed']} changed"
    typer.echo(f"{summary['frames']} rewards, {changed}, {summary['not_valid']} not valid -> {target}")


def _rescore_recording(
    source: str, bundle: str, target: Path, reward: Kind, settings: Settings
) -> dict[str, Any]:
    from gripwire.recording.file import Recording
    from gripwire_reward.recordings import rescore as again

    if reward != "decision":
        raise UserError("--reward is for datasets: a reward on the bus has decision and probability apart")
    recording, scorer = Recording(Path(source).expanduser()), _scorer(bundle, settings)
    done = again(recording, scorer, target)
    return {"bundle": scorer.bundle.id, "recording": source, "problem": recording.problem} | asdict(done)


def _rescore_dataset(
    source: str, bundle: str, target: Path, reward: Kind, settings: Settings
) -> dict[str, Any]:
    from gripwire_reward import rescore as again
    from gripwire_reward.score import score_dataset, write_scores

    dataset, scorer = _opened(source, bundle, settings)
    scores = list(score_dataset(scorer, dataset))
    if target.suffix == ".parquet":
        write_scores(scores, target)
    else:
        again.write_dataset(dataset, scores, reward, scorer.bundle.id, target)
    return {
        "bundle": scorer.bundle.id, "dataset": str(dataset.path), "problem": "", "episodes": len(scores),
        "frames": sum(len(s.logit) for s in scores), "changed": again.changed_rows(dataset, scores, reward),
        "not_valid": sum(bool(why) for s in scores for why in s.reason),
    }  # fmt: skip


def _opened(dataset: str, bundle: str, settings: Settings) -> "tuple[Dataset, Scorer]":
    """A dataset, and a bundle to score it with, as a person names them."""
    from gripwire_reward.datasets import open_dataset, resolve

    return open_dataset(resolve(dataset, settings.data / "datasets")), _scorer(bundle, settings)


def _scorer(bundle: str, settings: Settings) -> "Scorer":
    from gripwire_reward import bundle as bundles
    from gripwire_reward.scorer import Scorer

    return Scorer(bundles.load(bundles.find(bundle, settings.data / "bundles", allow_path=True)))
