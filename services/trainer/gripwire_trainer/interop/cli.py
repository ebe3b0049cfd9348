"""`gripwire trainer export-lerobot` and `import-lerobot`."""

from pathlib import Path
from typing import Annotated

import typer

from gripwire.cli import options
from gripwire.errors import UserError


def export_lerobot(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or its id.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write; it must not exist.")],
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Write a bundle as a classifier that LeRobot and its HIL-SERL step load, with the same probabilities."""
    import torch

    from gripwire_reward import bundle as bundles
    from gripwire_trainer.interop import export as lerobot_export

    torch.set_num_threads(1)
    settings = options.load(config, data)
    found = bundles.load(bundles.find(bundle, settings.data / "bundles", allow_path=True))
    made = lerobot_export.export_lerobot(found, out)
    if as_json:
        options.emit(
            {
                "path": str(made.path),
                "same_picture": made.same_picture,
                "own_resize": made.own_resize,
                "hil_serl": made.hil_serl,
            }
        )
    else:
        typer.echo(lerobot_export.explain(made))


def import_lerobot(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A LeRobot reward classifier's folder.")],
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Recordings of the camera that it looks through.")
    ],
    crop: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            metavar="TOP LEFT HEIGHT WIDTH", help="What it was trained on, if its files do not tell."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.01, max=0.99, help="Success from this probability on.")
    ] = None,
    config: options.Config = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Make a LeRobot reward classifier a bundle that scores the same."""
    import torch

    from gripwire_reward.datasets import open_dataset, resolve
    from gripwire_reward.preprocess import Crop
    from gripwire_trainer.interop import importing as lerobot_import

    torch.set_num_threads(1)
    settings = options.load(config, data)
    try:
        part = Crop(top=crop[0], left=crop[1], height=crop[2], width=crop[3]) if crop else None
    except ValueError as e:
        raise UserError(f"--crop {crop}: top, left, height, width in pixels are due") from e
    source = open_dataset(resolve(dataset, settings.data / "datasets"))
    made = lerobot_import.import_lerobot(folder, source, settings.data / "bundles", part, threshold)
    if as_json:
        options.emit({"bundle": made.id, "path": str(made.path)})
    else:
        typer.echo(f"bundle {made.id}   {made.path}")
