"""Where a model that is named as on the Hugging Face Hub lies on this machine. The Hub is never asked."""

from pathlib import Path


def find(name: str) -> Path | None:
    """A model's folder: ``name`` itself if it is one, else what the Hub's cache here holds under that name.

    Who has trained with LeRobot before has its backbone in that cache.
    """
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    try:
        config = try_to_load_from_cache(name, "config.json")
    except ValueError:  # not a name that the Hub could know
        return None
    return Path(config).parent if isinstance(config, str) else None


def how_to_get(name: str) -> str:
    """What to do about a model that :func:`find` does not find."""
    return (
        "the Hub is never contacted by itself: "
        f"`hf download {name} --local-dir FOLDER` downloads such a model, then name that folder"
    )
