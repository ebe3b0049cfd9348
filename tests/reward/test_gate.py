"""The gate is read by its grammar alone, and says what it cannot tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gripwire.errors import UserError
from gripwire.messages import JOINTS, RobotState
from gripwire_reward import gate


def state(**position: float) -> RobotState:
    return RobotState(position=dict.fromkeys(JOINTS, 0.0) | position, velocity={"gripper": -3.0})


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("gripper > 5", True),
        ("5 < gripper <= 20", True),
        ("5 < gripper < 20", False),
        ("gripper < 5 or wrist_flex >= 30.5", True),
        ("gripper > 5 and wrist_flex < 30.5", False),
        ("not (gripper < 5)", True),
        ("not gripper < 5 and not wrist_flex < 0", True),
        ("gripper < 5 and gripper > 5 or gripper > 5", True),  # `and` binds more tightly
        ("gripper.velocity < -2", True),
        ("0 < 1", True),
        ("shoulder_pan < gripper", True),
    ],
)
def test_conditions_mean_what_they_mean_in_mathematics(text: str, opened: bool) -> None:
    assert gate.parse(text).holds(state(gripper=20, wrist_flex=30.5)) is opened


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "character 1: a number or a joint"),
        ("gripper", "character 8: `<`, `<=`, `>` or `>=` is due, not the end"),
        ("gripper > 5 5", "character 13: `and`, `or` or the end is due, not `5`"),
        ("griper > 5", r"a number or a joint \(shoulder_pan"),
        ("gripper.current > 5", "a number or a joint"),
        ("(gripper > 5", r"`\)` is due"),
        ("gripper == 5", "character 9"),
        ("__import__('os') > 1", "character 1"),
        ("gripper > 5; 1 < 2", "not `;`"),
        ("gripper > 5 and", "not the end"),
        ("(" * 50 + "1 < 2" + ")" * 50, "at most 20 brackets"),
        ("not " * 50 + "1 < 2", "at most 20"),
        ("1 < 2 and " * 40 + "1 < 2", "300 at most"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        gate.parse(text)


def test_what_a_state_lacks_is_named_whatever_the_rest_says() -> None:
    with pytest.raises(gate.MissingState, match="no position of gripper"):
        gate.parse("0 < 1 or gripper > 5").holds(RobotState(position={}))
    with pytest.raises(gate.MissingState, match="no velocity of wrist_flex"):
        gate.parse("wrist_flex.velocity > 5").holds(state())


@given(st.text(alphabet="gripe()<>=.0159 andortw_flx", max_size=60))
def test_any_text_is_a_gate_or_an_error_for_a_person(text: str) -> None:
    try:
        gate.parse(text).holds(state())
    except (UserError, gate.MissingState):
        return
