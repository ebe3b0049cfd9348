"""`gripwire trainer cache ...`"""

from typing import TYPE_CHECKING

import typer

from gripwire.cli import options

if TYPE_CHECKING:
    from gripwire_trainer.cache import Cache

app = typer.Typer(no_args_is_help=True, help="What is kept of pictures and features to train faster.")


@app.command()
def show(config: options.Config = None, data: options.Data = None, as_json: options.Json = False) -> None:
    """How much there is, and how much there may be."""
    from gripwire_trainer.cache import Usage
    from gripwire_trainer.datasets.parts import Parts

    cache = _open(config, data)
    usage = cache.usage() | {"datasets": Usage(*Parts(cache.root / "datasets").usage())}
    total = sum(u.bytes for u in usage.values())
    if as_json:
        kinds = {kind: {"entries": u.entries, "bytes": u.bytes} for kind, u in usage.items()}
        options.emit({"path": str(cache.root), "bytes": total, "limit": cache.limit, "kinds": kinds})
        return
    for kind, used in usage.items():
        typer.echo(f"{kind:<10} {used.entries:6d} entries {used.bytes / 1e9:8.2f} GB")
    typer.echo(f"{'together':<10} {'':14} {total / 1e9:8.2f} of {cache.limit / 1e9:g} GB   {cache.root}")


@app.command()
def clear(config: options.Config = None, data: options.Data = None, as_json: options.Json = False) -> None:
    """Drop all of it: the next training makes anew what it needs."""
    from gripwire_trainer.datasets.parts import Parts

    cache = _open(config, data)
    freed = cache.clear() + Parts(cache.root / "datasets").clear()
    if as_json:
        options.emit({"freed": freed})
    else:
        typer.echo(f"{freed / 1e9:.2f} GB freed")


def _open(config: options.Config, data: options.Data) -> "Cache":
    from gripwire_trainer.cache import Cache
    from gripwire_trainer.settings import TrainerSettings

    settings = options.load(config, data)
    return Cache(settings.data / "cache", int(settings.section("trainer", TrainerSettings).cache_gb * 1e9))
