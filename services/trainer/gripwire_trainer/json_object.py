"""Reads a file that holds one JSON object."""

import json
from pathlib import Path
from typing import Any

from gripwire.errors import UserError


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """The object. ``remedy`` ends the sentence of an error.

    Raises:
        UserError: the file is missing, or not JSON, or holds something else than an object.
    """
    try:
        content = json.loads(file.read_bytes())
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror or e}); {remedy}") from e
    except (ValueError, RecursionError) as e:  # also what is not UTF-8, or nested without end
        raise UserError(f"{file}: not JSON ({str(e)[:150]}); {remedy}") from e
    if not isinstance(content, dict):
        raise UserError(f"{file}: an object is due, not a {type(content).__name__}; {remedy}")
    return content
