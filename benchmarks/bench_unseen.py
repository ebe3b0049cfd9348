"""What a bundle makes of episodes that nobody trained on, in the light it knows and in other, by exact truth.

`bench_unseen.py BUNDLE [--sets FOLDER] [--episodes N]`: scores a bundle that was trained on the recordings
(their merge file, not these sets) by the code that serves. Sets that FOLDER lacks are drawn first
(episodes.py, some 10 seconds an episode). Without a bundle it says so. One JSON line per condition.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gripwire_reward import bundle
from gripwire_reward.datasets import columns, open_dataset
from gripwire_reward.score import EpisodeScores, score_dataset
from gripwire_reward.scorer import Scorer
from gripwire_trainer import figures
from gripwire_trainer.figures import Judged

CONDITIONS = ("nominal", "daylight", "dim", "bump", "cube", "table")
_SHOWN = (
    "frame_accuracy", "always_fail_accuracy", "false_success_rate", "missed_success_rate",
    "onset_error_median_frames", "onset_error_p90_frames", "ece_after", "invalid_share",
)  # fmt: skip


def judge(scores: EpisodeScores, truth: np.ndarray, fps: float, threshold: float) -> Judged:
    """An episode's scores against exact truth: every frame counts."""
    return Judged(
        name=str(scores.episode), fps=fps, success=truth, counted=np.ones(len(truth), bool),
        logit=scores.logit, probability=scores.probability, above=scores.above, decision=scores.decision,
        valid=np.array([not why for why in scores.reason]), threshold=threshold,
    )  # fmt: skip


def measure(scorer: Scorer, folder: Path) -> dict[str, Any]:
    """The figures of one set; ``valid_frames_right``: among the frames that were judged at all."""
    dataset, threshold = open_dataset(folder), scorer.bundle.manifest.decision.threshold
    judged = []
    for scores in score_dataset(scorer, dataset):
        reward = columns(dataset.episodes[scores.episode], ["next.reward"])["next.reward"]
        judged.append(judge(scores, reward.reshape(-1) > 0.5, dataset.fps, threshold))
    found = figures.all_figures(judged, lambda logit: 1 / (1 + np.exp(-logit)))
    valid = np.concatenate([e.valid for e in judged])
    right = np.concatenate([e.right for e in judged])
    return {
        "episodes": len(judged), "failed": sum(e.failed for e in judged), "frames": len(valid),
        **{name: round(found[name].value, 5) for name in _SHOWN if name in found},
        "valid_frames_right": round(float(right[valid].mean()), 5) if valid.any() else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--sets", type=Path, default=Path("data/unseen"))
    parser.add_argument("--episodes", type=int, default=24)
    arguments = parser.parse_args()
    if arguments.bundle is None:
        print("bench_unseen.py: name a bundle trained on recordings to measure it", file=sys.stderr)
        return
    scorer = Scorer(bundle.load(arguments.bundle))
    for seed, condition in enumerate(CONDITIONS, 1):
        folder = arguments.sets / condition
        if not folder.exists():
            script = Path(__file__).with_name("episodes.py")
            flags = ["--condition", condition, "--episodes", str(arguments.episodes), "--seed", str(seed)]
            subprocess.run([sys.executable, str(script), str(folder), *flags], check=True, stdout=sys.stderr)
        print(json.dumps({"figure": f"unseen episodes, {condition}", **measure(scorer, folder)}), flush=True)


if __name__ == "__main__":
    main()
