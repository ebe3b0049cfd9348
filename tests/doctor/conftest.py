"""What the checks are shown: settings of a stack, and another machine below a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gripwire import settings
from gripwire.doctor.finding import Here
from gripwire.messages import Health

Make = Callable[..., Here]


@pytest.fixture
def here(tmp_path: Path, port_base: int) -> Make:
    """What is known of a place, with these settings by dotted key and these services running."""

    def make(beats: dict[str, Health] | None = None, **flags: Any) -> Here:
        dotted = {key.replace("__", "."): value for key, value in flags.items()}
        known = settings.load(flags={"data": tmp_path / "data", "port_base": port_base} | dotted, env={})
        return Here(known, beats or {}, root=tmp_path / "machine")

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], None]:
    """Put a file into that other machine."""

    def put(path: str, text: str) -> None:
        file = tmp_path / "machine" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return put
