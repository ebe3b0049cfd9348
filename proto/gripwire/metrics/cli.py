"""`gripwire metrics`."""

from typing import Annotated

import typer

from gripwire.cli import options

app = typer.Typer(no_args_is_help=True, help="Prometheus metrics of the whole stack, over HTTP.")


@app.callback()
def _root() -> None:
    pass


@app.command()
def run(
    config: options.Config = None,
    data: options.Data = None,
    port_base: options.PortBase = None,
    port: Annotated[int | None, typer.Option(help="HTTP port; 9464.")] = None,
    bind: Annotated[str | None, typer.Option(help="Address to serve at; 127.0.0.1.")] = None,
) -> None:
    """Serve /metrics, and /metrics/<service> for one service's, until Ctrl+C."""
    from gripwire import service
    from gripwire.metrics.service import Exporter

    settings = options.load(config, data, port_base, metrics__port=port, metrics__bind=bind)
    raise typer.Exit(service.run("metrics", settings, Exporter))
