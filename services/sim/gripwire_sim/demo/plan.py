"""Which episodes the demo records and which it is judged on."""

from dataclasses import dataclass
from itertools import cycle, islice

from gripwire_sim.demonstrator import GRASPS, Kind

TASK = "Grasp the cube"

# Success and failure alternate, so that an interrupted run has some of each.
_TRAINING: tuple[Kind, ...] = (
    "grasp_hold", "near_miss", "grasp_release", "close_on_air", "grasp_hold", "push",
    "grasp_release", "near_miss", "grasp_hold", "press_on_top", "grasp_release", "near_miss",
    "grasp_hold", "close_on_air", "grasp_release", "push", "grasp_hold", "grasp_release",
)  # fmt: skip
_FRESH: tuple[Kind, ...] = (
    "grasp_hold", "near_miss", "grasp_release", "close_on_air", "push",
    "grasp_hold", "press_on_top", "grasp_release", "near_miss", "close_on_air",
)  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """One episode to come. ``seed`` sets the scene, the start pose and every choice of the script."""

    kind: Kind
    seed: int
    dataset: str = ""

    @property
    def should_succeed(self) -> bool:
        return self.kind in GRASPS


TRAINING, FRESH = len(_TRAINING), len(_FRESH)


def training(seed: int, count: int = TRAINING, name: str = "demo") -> list[Planned]:
    """``count`` episodes to record, into two datasets as people keep them."""
    return [
        Planned(kind, seed * 1000 + i, f"{name}_{'success' if kind in GRASPS else 'failure'}")
        for i, kind in enumerate(islice(cycle(_TRAINING), count))
    ]


def fresh(seed: int, count: int = FRESH) -> list[Planned]:
    """``count`` episodes to judge: scenes that no training episode had."""
    return [Planned(kind, seed * 1000 + 500 + i) for i, kind in enumerate(islice(cycle(_FRESH), count))]
