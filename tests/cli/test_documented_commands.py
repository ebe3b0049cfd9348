"""Every `gripwire ...` that README.md and docs/ tell people to type exists, flags included."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from gripwire.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_PLACEHOLDER = re.compile(r"[<>…]|\.\.\.")


def told(text: str) -> Iterator[tuple[str, bool]]:
    """The commands of a page, and whether each stands in a block, to be typed as it is; else it is a mention,
    in which arguments may be left away."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield from ((command, True) for command in _in_line(line))
        else:
            yield from ((code, False) for code in re.findall(r"`(gripwire [^`]+)`", line))


def _in_line(line: str) -> Iterator[str]:
    """A line of shell holds several commands, variables before them, and comments."""
    line = re.sub(r"\s#.*", "", line)
    for part in re.split(r"\||&&|;|(?<!\S)&(?!\S)|\s{3,}", line):
        words = part.strip().removeprefix("$ ").split()
        while words and re.fullmatch(r"[A-Z_]+=\S*|sudo|exec|nohup", words[0]):
            words.pop(0)
        if words and words[0] == "gripwire" and len(words) > 1:
            yield " ".join(words)


def wrong(command: str, whole: bool) -> str:
    """What is wrong with a command line; empty if nothing is."""
    try:
        words = shlex.split(command.replace("[", "").replace("]", ""))[1:]
    except ValueError as e:
        return str(e)
    node: Any = typer.main.get_command(app)
    context = node.context_class(node)
    while hasattr(node, "get_command") and words and not words[0].startswith("-"):
        if _PLACEHOLDER.search(words[0]) or words[0].isupper():
            return ""  # any of them
        names = words[0].split("|")  # `start|stop`: each of them
        found = [node.get_command(context, name) for name in names]
        if None in found:
            return f"there is no `{names[found.index(None)]}` in `{node.name or 'gripwire'}`"
        node, words = found[0], words[1:]
    return _flags(node, words, whole)


def _flags(node: Any, words: list[str], whole: bool) -> str:
    options = {name: p for p in node.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    places = [p for p in node.params if p.param_type_name == "argument"]
    given, waiting = 0, list(words)
    while waiting:
        word = waiting.pop(0)
        if _PLACEHOLDER.fullmatch(word):
            return ""
        if not re.match(r"--?[A-Za-z]", word):
            given += 1
            continue
        flag, equals, _ = word.partition("=")
        if flag not in {*options, "--help"}:
            return f"`{node.name}` has no {flag}; it has {', '.join(options)}"
        option = options.get(flag)
        if option is not None and not option.is_flag and not equals:
            del waiting[: option.nargs]
    most = None if any(p.nargs < 0 for p in places) else sum(p.nargs for p in places)
    if most is not None and given > most:
        return f"`{node.name}` takes {most} arguments, not {given}"
    if whole and given < sum(p.required for p in places):
        return f"`{node.name}` needs {', '.join(p.name for p in places if p.required)}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_the_page_exists(page: Path) -> None:
    mistakes = {command: said for command, whole in told(page.read_text()) if (said := wrong(command, whole))}
    assert mistakes == {}


def test_a_command_that_does_not_exist_would_be_found() -> None:
    page = "Run `gripwire topcs`.\n\n    gripwire echo reward --jsn\n    FOO=1 gripwire hz # alone\n"
    assert [(command, bool(wrong(command, whole))) for command, whole in told(page)] == [
        ("gripwire topcs", True),
        ("gripwire echo reward --jsn", True),
        ("gripwire hz", True),
    ]
    assert wrong("gripwire echo camera/gripper_cam -n 1 --json", True) == ""
