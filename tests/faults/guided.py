"""A small coverage-guided fuzzer: inputs that reach something new are kept and bent further.

What is new: a branch of the Python code under test (sys.monitoring, PEP 669), or, since msgpack and pydantic
are compiled, an answer of a kind not seen before. The same seed gives the same inputs in the same order.
"""

import inspect
import random
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType, ModuleType

import msgpack

from tests.faults.fuzz import BOMBS, misfit

_TOOL = 4  # one of the numbers that PEP 669 leaves to anyone
_MOST_KEPT = 3000
_LONGEST = 4096
# Bytes that mean something to msgpack: the first of each of its types, and lengths that do not fit.
_MEANING = bytes([0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, *range(0xC0, 0xE0), 0xFF, 0x7F, 0x00, 0x01])


@dataclass
class Found:
    """What a run came to."""

    slowest_s: float = 0.0
    answers: set[str] = field(default_factory=set)


@contextmanager
def branches_of(modules: Sequence[ModuleType]) -> Iterator[set[tuple[str, int, int]]]:
    """A set that fills with the branches that are taken in functions of these modules."""
    seen: set[tuple[str, int, int]] = set()
    monitoring = sys.monitoring

    def taken(code: CodeType, at: int, to: int) -> None:
        seen.add((code.co_qualname, at, to))

    monitoring.use_tool_id(_TOOL, "fuzz")
    codes = {code for module in modules for code in _codes(module)}
    try:
        monitoring.register_callback(_TOOL, monitoring.events.BRANCH, taken)
        for code in codes:
            monitoring.set_local_events(_TOOL, code, monitoring.events.BRANCH)
        yield seen
    finally:
        for code in codes:
            monitoring.set_local_events(_TOOL, code, 0)
        monitoring.free_tool_id(_TOOL)


def _codes(module: ModuleType) -> Iterator[CodeType]:
    for thing in vars(module).values():
        if getattr(thing, "__module__", "") != module.__name__:
            continue
        functions = [thing] if inspect.isfunction(thing) else []
        functions += (
            [f for f in vars(thing).values() if inspect.isfunction(f)] if inspect.isclass(thing) else []
        )
        yield from (function.__code__ for function in functions)


def explore(
    run: Callable[[bytes], str], seeds: Sequence[bytes], modules: Sequence[ModuleType], count: int, seed: int,
    words: Collection[str],
) -> Found:  # fmt: skip
    """Give ``count`` inputs to ``run``, which answers with what became of each.

    ``words``: what an answer may quote and be of another kind for it, such as the names of fields.
    Whatever ``run`` raises ends the search: it is a find.
    """
    rng, found, kept = random.Random(seed), Found(), [*seeds, *BOMBS]
    with branches_of(modules) as seen:
        for _ in range(count):
            data, known = _bend(rng, kept), len(seen)
            began = time.thread_time()
            answer = _kind(run(data), words)
            found.slowest_s = max(found.slowest_s, time.thread_time() - began)
            if len(seen) > known or (answer not in found.answers and len(kept) < _MOST_KEPT):
                kept.append(data)
                found.answers.add(answer)
    return found


def _kind(answer: str, words: Collection[str]) -> str:
    """An answer without what it quotes from the input: there would be no end of kinds, all of them one."""
    answer = re.sub(r"[\[{].*[\]}]|b'.*|[^\x20-\x7e]+", "#", answer)
    answer = re.sub(r"['\"`](.*?)['\"`]", lambda quoted: quoted[1] if quoted[1] in words else "#", answer)
    return re.sub(r"0x[0-9a-f]+|-?\d[\d.]*(e[+-]?\d+)?|\b(None|True|False|inf|nan)\b", "#", answer)[:120]


def _bend(rng: random.Random, kept: Sequence[bytes]) -> bytes:
    """A kept input with one to four changes, or with the wrong thing in one of its fields."""
    chosen = rng.choice(kept)
    if rng.random() < 0.4 and (bent := _misfit(rng, chosen)):
        return bent[:_LONGEST]
    data = bytearray(chosen)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.choice(_MEANING)])
            case 1:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
            case 2:
                del data[at : at + rng.randint(1, 16)]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 32)] * rng.randint(1, 4)
            case 4:
                other = rng.choice(kept)
                data[at:] = other[rng.randrange(len(other) + 1) :]
            case 5 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data[:_LONGEST])


def _misfit(rng: random.Random, data: bytes) -> bytes:
    """What this packs with the wrong thing in one of its fields; nothing where it packs no map."""
    try:
        message = msgpack.unpackb(data)
        return bytes(msgpack.packb(misfit(rng, message))) if isinstance(message, dict) and message else b""
    except (ValueError, TypeError, msgpack.UnpackException, OverflowError):  # it packs nothing, or not again
        return b""
