#!/usr/bin/env python3
"""Prints the part of a lock that some members of the workspace need: pins and hashes, word for word.

Which packages those are is uv's to say: its resolver walks the dependencies, held to the pins of the lock.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==")
TORCH = ("torch", "torchvision", "triton", "nvidia-", "cuda-")
"""PyTorch with its CUDA libraries: a layer of its own, or another build. What ends in - is a prefix."""


def entries(lock: Path) -> dict[str, str]:
    """Package to its lines in the lock: the pin, then a hash a line."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.read_text().splitlines():
        if start := ENTRY.match(line):
            name = start[1].lower()
            found[name] = ""
        if name and not line.startswith("#"):
            found[name] += line + "\n"
    return found


def needed(members: list[str], also: list[str], lock: Path, overrides: list[Path]) -> set[str]:
    """The packages that the members in these folders, and ``also``, need here; the members left out."""
    files = [str(Path(member) / "pyproject.toml") for member in members]
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--constraint", str(lock)]
    for override in overrides:
        command += ["--override", str(override)]
    resolved = subprocess.run(
        [*command, *files, "-"], input="\n".join(also), stdout=subprocess.PIPE, text=True, check=False
    )
    if resolved.returncode:
        sys.exit(f"cut_lock: uv cannot resolve {' '.join(members)} within {lock} (see above)")
    return {start[1].lower() for line in resolved.stdout.splitlines() if (start := ENTRY.match(line))}


def of_torch(name: str) -> bool:
    return any(name.startswith(known) if known.endswith("-") else name == known for known in TORCH)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("members", nargs="*", help="folders with a pyproject.toml")
    ask.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    ask.add_argument("--override", type=Path, action="append", default=[], help="uv's: they stand for others")
    ask.add_argument("--also", action="append", default=[], help="a requirement besides the members'")
    ask.add_argument("--package", action="append", default=[], help="a package alone, without what it needs")
    ask.add_argument("--without-torch", action="store_true", help="leave PyTorch and its CUDA libraries out")
    ask.add_argument("--only-torch", action="store_true", help="nothing but these")
    asked = ask.parse_args()
    lock = entries(asked.lock)
    names = needed(asked.members, asked.also, asked.lock, asked.override) if asked.members else set()
    names |= set(asked.package)
    if asked.without_torch or asked.only_torch:
        names = {name for name in names if of_torch(name) == asked.only_torch}
    if missing := sorted(names - lock.keys()):
        sys.exit(f"cut_lock: {asked.lock} does not pin {', '.join(missing)}: run `make lock`")
    for name in sorted(names):
        print(lock[name], end="")


if __name__ == "__main__":
    main()
