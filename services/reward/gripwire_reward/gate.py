"""The gate: a condition on the robot's own state, read from text by a grammar and never evaluated as code.

    gate       = and {"or" and}
    and        = not {"and" not}
    not        = "not" not | "(" gate ")" | comparison
    comparison = side {op side}              # chains as in mathematics: 5 < gripper <= 60
    op         = "<" | "<=" | ">" | ">="
    side       = number | joint [".velocity"]

Joints and units are LeRobot's (degrees, gripper 0..100; velocities per second).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import ge, gt, le, lt

from gripwire.errors import UserError
from gripwire.messages import JOINTS, RobotState

MAX_LENGTH = 300
_TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?\d+(?:\.\d+)?)|(?P<name>[a-z_]+(?:\.[a-z_]+)?)|(?P<mark><=|>=|[<>()]))"
)
_OPERATORS: dict[str, Callable[[float, float], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_DEEPEST = 20


class MissingState(Exception):
    """The state lacks what the gate asks for; the text says what."""


@dataclass(frozen=True)
class Gate:
    """A parsed condition. ``text`` is how it was written."""

    text: str
    _holds: Callable[[RobotState], bool]

    def holds(self, state: RobotState) -> bool:
        """Whether the state fulfils it.

        Raises:
            MissingState: a joint that it names has no position, or no velocity, in this state.
        """
        return self._holds(state)


@lru_cache(maxsize=32)
def parse(text: str) -> Gate:
    """The gate that a text describes.

    Raises:
        UserError: the text is not one; it says where and what was due.
    """
    if len(text) > MAX_LENGTH:
        raise UserError(f"gate: {len(text)} characters, {MAX_LENGTH} at most")
    parser = _Parser(text)
    holds = parser.either()
    if parser.kind != "end":
        raise parser.error("`and`, `or` or the end")
    return Gate(text, holds)


class _Parser:
    """One token ahead, from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._deep = text, 0, 0
        self._next()

    def _next(self) -> None:
        """Read the next token into ``kind``, ``token`` and where it stands."""
        rest = self._text[self._at :]
        if not rest.strip():
            self.kind, self.token, self._start = "end", "", len(self._text)
            return
        match = _TOKEN.match(rest)
        if match is None:
            self._start = self._at + len(rest) - len(rest.lstrip())
            self.kind, self.token = "unknown", self._text[self._start]
            raise self.error("a joint, a number, a comparison, `and`, `or`, `not` or a bracket")
        self.kind = match.lastgroup or ""
        self.token = match[self.kind]
        self._start = self._at + match.start(self.kind)
        self._at += match.end()

    def error(self, due: str) -> UserError:
        found = f"`{self.token}`" if self.token else "the end"
        return UserError(
            f"gate `{self._text}`: at character {self._start + 1}: {due} is due, not {found}; write for "
            "example `5 < gripper < 60 and wrist_flex > 20`"
        )

    def _took(self, word: str) -> bool:
        if self.token != word:
            return False
        self._next()
        return True

    def either(self) -> Callable[[RobotState], bool]:
        parts = [self._all()]
        while self._took("or"):
            parts.append(self._all())
        # A list, not a generator: what the state lacks is told whatever the rest says.
        return parts[0] if len(parts) == 1 else lambda state: any([part(state) for part in parts])

    def _all(self) -> Callable[[RobotState], bool]:
        parts = [self._not()]
        while self._took("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda state: all([part(state) for part in parts])

    def _not(self) -> Callable[[RobotState], bool]:
        self._deep += 1
        if self._deep > _DEEPEST:
            raise self.error(f"at most {_DEEPEST} brackets within each other")
        try:
            if self._took("not"):
                inner = self._not()
                return lambda state: not inner(state)
            if self._took("("):
                inner = self.either()
                if not self._took(")"):
                    raise self.error("`)`")
                return inner
            return self._comparison()
        finally:
            self._deep -= 1

    def _comparison(self) -> Callable[[RobotState], bool]:
        sides, operators = [self._side()], []
        while self.token in _OPERATORS:
            operators.append(_OPERATORS[self.token])
            self._next()
            sides.append(self._side())
        if not operators:
            raise self.error("`<`, `<=`, `>` or `>=`")

        def holds(state: RobotState) -> bool:
            values = [side(state) for side in sides]
            return all(op(a, b) for op, a, b in zip(operators, values, values[1:], strict=False))

        return holds

    def _side(self) -> Callable[[RobotState], float]:
        if self.kind == "number":
            number = float(self.token)
            self._next()
            return lambda state: number
        joint, _, of = self.token.partition(".")
        if self.kind != "name" or joint not in JOINTS or of not in ("", "velocity"):
            raise self.error(f"a number or a joint ({', '.join(JOINTS)}; with .velocity if that is meant)")
        self._next()
        return lambda state: _value(state.velocity if of else state.position, joint, of or "position")


def _value(values: Mapping[str, float], joint: str, what: str) -> float:
    try:
        return values[joint]
    except KeyError:
        raise MissingState(f"the robot's state has no {what} of {joint}, which the gate needs") from None
