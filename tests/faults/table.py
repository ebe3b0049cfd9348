"""The table of faults in docs/faults.md: what was promised, and what was measured.

Tests note their rows; with the full counts (``make faults``) they are written into the page.
"""

import os
import re
from pathlib import Path

IN_FULL = bool(os.environ.get("FAULTS_IN_FULL"))
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
_ROW = re.compile(r"^\| (?P<fault>[^|]+) \|.*\|$", re.MULTILINE)


def in_time(what: str, took_s: float, promised_s: float) -> None:
    """The promise itself is asked with the full counts, on a machine that does nothing else; five times as
    long elsewhere, where neighbours may hold this one up."""
    limit = promised_s if IN_FULL else 5 * promised_s
    assert took_s <= limit, f"{what} after {took_s:.1f} s; {promised_s:g} s promised, {limit:g} allowed here"


def note(fault: str, promise: str, measured: str) -> None:
    """Put a row into the page, in the place of the one about the same fault."""
    print(f"{fault}: {measured} (promised: {promise})")
    if not IN_FULL:
        return
    row = f"| {fault} | {promise} | {measured} |"
    page = PAGE.read_text()
    rows = {match["fault"]: match.group() for match in _ROW.finditer(page)}
    added = page.rstrip("\n") + f"\n{row}\n"
    PAGE.write_text(page.replace(rows[fault], row) if fault in rows else added)
