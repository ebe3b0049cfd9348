"""What a person looks at before trusting a model: a page (report.html) and a picture (report.png)."""

from collections.abc import Sequence

from gripwire_reward.bundle import Manifest
from gripwire_trainer.figures import Judged
from gripwire_trainer.report.album import Pictures
from gripwire_trainer.report.page import render

__all__ = ["Pictures", "files", "prepare", "render"]


def prepare() -> None:
    """Import what takes long, for who will want :func:`files` in a hurry."""
    from gripwire_trainer.report import poster  # noqa: F401


def files(manifest: Manifest, judged: Sequence[Judged], pictures: Pictures) -> dict[str, bytes]:
    """Both by file name. ``pictures`` gives an episode's frames by its name."""
    from gripwire_trainer.report.poster import draw  # matplotlib takes its time to import

    return {"report.html": render(manifest, judged, pictures), "report.png": draw(manifest, judged)}
