"""The whole line in small: `gripwire demo` with few episodes, and what it leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import free_port_base

RECORDED, JUDGED = 6, 2


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run(
        [
            sys.executable, "-m", "gripwire", "demo", "--out", str(folder), "--summary",
            str(folder.parent / "summary.json"), "--seed", "3", "--episodes", str(RECORDED),
            "--fresh", str(JUDGED), "--port-base", str(free_port_base()),
        ],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    logs = "\n".join(f"{p.name}: {p.read_text()[-1500:]}" for p in (folder / "logs").glob("*.log"))
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}\n{logs}"
    return folder


@pytest.fixture(scope="module")
def summary(out: Path) -> dict:
    return json.loads((out.parent / "summary.json").read_text())


pytestmark = pytest.mark.timeout(300)


def test_the_summary_has_every_figure(summary: dict, out: Path) -> None:
    assert {
        "frames", "accuracy", "always_fail_accuracy", "failed_episodes", "false_successes", "latency_ms",
        "swap_gap_s", "missed_ticks", "bundle", "wall_s",
    } <= summary.keys()  # fmt: skip
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["frames"] > 200
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"]
    assert {"start", "record", "train", "swap", "fresh", "total"} <= summary["wall_s"].keys()


def test_no_tick_was_missed_or_doubled_at_the_swap(summary: dict) -> None:
    assert (summary["missed_ticks_at_swap"], summary["double_ticks"]) == (0, 0)
    assert summary["restarts"] == {}


def test_even_six_episodes_teach_more_than_always_saying_fail(summary: dict) -> None:
    assert summary["accuracy"] > summary["always_fail_accuracy"]


def test_lerobot_opens_what_was_recorded(out: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    rows = episodes = 0
    for root in sorted((out / "data/datasets").glob("demo_*")):
        dataset = LeRobotDataset(f"local/{root.name}", root=root, video_backend="pyav")
        first = dataset[0]
        assert tuple(first["observation.images.gripper_cam"].shape) == (3, 480, 640)
        assert tuple(first["action"].shape) == (6,)
        rows, episodes = rows + len(dataset), episodes + dataset.num_episodes
    assert episodes == RECORDED
    assert rows >= RECORDED * 40


def test_the_reward_dataset_carries_the_labels(out: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    roots = {info.parents[1] for info in (out / "data/datasets").rglob("meta/info.json")}
    (built,) = (root for root in roots if root.name not in ("demo_success", "demo_failure"))
    dataset = LeRobotDataset(f"local/{built.name}", root=built)
    rewards = [float(row["next.reward"]) for row in dataset.hf_dataset]
    assert set(rewards) == {0.0, 1.0}


def test_the_report_shows_every_judged_episode(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert page.count("<svg") == JUDGED
    assert "data:image/jpeg" in page


def test_the_bundle_verifies_byte_by_byte(out: Path, summary: dict) -> None:
    from gripwire_reward import bundle

    loaded = bundle.load(out / "data/bundles" / summary["bundle"])
    parts = loaded.manifest.trained_on.split
    episodes = [name for part in parts.values() for name in part]
    assert len(episodes) == len(set(episodes)) == RECORDED
