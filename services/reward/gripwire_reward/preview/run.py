"""The preview's loops: in a window, as a page, in the terminal."""

from collections.abc import Callable
from typing import Literal

import typer

from gripwire_reward.preview.page import Page
from gripwire_reward.preview.session import Session
from gripwire_reward.preview.terminal import Terminal
from gripwire_reward.preview.window import Window, possible

Where = Literal["auto", "window", "page", "terminal"]


def choose(where: Where) -> Where:
    """Where to show it: a window if there can be one, else a page."""
    if where != "auto":
        return where
    return "window" if possible() else "page"


def run(session: Session, where: Where, host: str, port: int, stopped: Callable[[], bool]) -> None:
    """Show until it is closed, `q` is pressed or ``stopped`` says so."""
    {"window": _window, "page": lambda s, st: _page(s, st, host, port), "terminal": _terminal}[where](
        session, stopped
    )


def _window(session: Session, stopped: Callable[[], bool]) -> None:
    window = Window()
    try:
        while not session.ended and not stopped():
            if (now := session.frame()) is not None:
                window.show(now[1])
            for key in window.pressed():
                session.press(key)
                window.title(session.said)
    finally:
        window.close()


def _page(session: Session, stopped: Callable[[], bool], host: str, port: int) -> None:
    page = Page(session, host, port)
    typer.echo(f"the preview is at {page.address} (Ctrl+C ends it)")
    try:
        while not session.ended and not stopped():
            if (now := session.frame()) is not None:
                page.show(now[1])
            page.take_keys()
    finally:
        page.close()


def _terminal(session: Session, stopped: Callable[[], bool]) -> None:
    with Terminal().keys() as terminal:
        while not session.ended and not stopped():
            if (now := session.frame()) is not None:
                terminal.show(now[0], session.threshold or 0.5, session.said)
            if key := terminal.pressed():
                session.press(key)
