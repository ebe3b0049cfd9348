"""An episode while it is recorded: rows settle behind live, and say what was missing."""

import itertools
import random

import numpy as np
import pytest

from gripwire.messages import JOINTS, Frame, RobotAction, RobotState
from gripwire_recorder import align
from gripwire_recorder.take import PREROLL_NS, SETTLE_NS, Take

SECOND = align.SECOND
T0 = 1000 * SECOND


def position(value):
    return {joint: value + i for i, joint in enumerate(JOINTS)}


def frame(t, seq=0):
    return Frame(camera="a", width=4, height=2, encoding="jpeg", seq=seq, exposure_seq=seq + 9, t_capture=t)


def feed(take, times_and_kinds, now=None):
    """Give messages in this order; the rows that settle meanwhile, as they would in the loop."""
    rows = []
    for t, kind in times_and_kinds:
        if kind == "frame":
            take.frame(frame(t, seq=t // 1000), b"jpeg")
        elif kind == "state":
            take.state(RobotState(position=position((t - T0) / SECOND), t_capture=t))
        else:
            take.action(RobotAction(position=position(round((t - T0) / SECOND, 1)), t_capture=t))
        rows += take.settle(t if now is None else now)
    return rows


def streams(seconds, seed=0):
    """Jittered frames at 30 Hz, states and actions at 60 Hz, in the order in which they arrive."""
    rng = random.Random(seed)
    out = []
    for i in range(int(seconds * 30)):
        out.append((T0 + int((i + rng.uniform(-0.4, 0.4)) * SECOND / 30), "frame"))
    for i in range(int(seconds * 60)):
        out += [(T0 + i * SECOND // 60, "state"), (T0 + i * SECOND // 60 + 1000, "action")]
    arrival = {item: item[0] + rng.randrange(SETTLE_NS // 2) for item in out}
    by_kind = {kind: sorted(item for item in out if item[1] == kind) for kind in ("frame", "state", "action")}
    # One publisher's messages keep their order on the way.
    for items in by_kind.values():
        for before, after in itertools.pairwise(items):
            arrival[after] = max(arrival[after], arrival[before] + 1)
    return sorted(out, key=arrival.__getitem__)


@pytest.mark.parametrize("seed", range(5))
def test_rows_settled_one_by_one_are_the_rows_of_the_whole_episode(seed):
    messages = streams(3, seed)
    take = Take(("a",), 10, T0)
    rows = feed(take, messages)
    take.stop(T0 + 3 * SECOND)
    rows += take.settle(T0 + 4 * SECOND)

    frames = np.array(sorted(t for t, kind in messages if kind == "frame"))
    states = np.array(sorted(t for t, kind in messages if kind == "state"))
    at = align.grid(max(T0, frames[0]), min(frames[-1], states[-1]), 10)
    assert [row.time for row in rows] == at.tolist()
    assert [row.pictures["a"].t_capture for row in rows] == frames[align.nearest(frames, at)].tolist()
    assert np.allclose([row.state[0] for row in rows], (at - T0) / SECOND, atol=1e-6)
    in_force = np.floor((at - T0 - 1000) / (SECOND / 60)) / 60
    assert np.allclose([row.action[0] for row in rows], np.round(np.maximum(in_force, 0), 1), atol=1e-5)


def test_a_row_waits_until_the_picture_after_it_has_come():
    take = Take(("a",), 10, T0)
    states = [(T0 + i * SECOND // 60, "state") for i in range(120)]
    assert feed(take, states, now=T0 + 2 * SECOND) == []
    assert len(feed(take, [(T0, "frame")], now=T0 + 2 * SECOND)) == 1
    assert feed(take, [(T0 + 90_000_000, "frame")], now=T0 + 2 * SECOND) == []
    assert len(feed(take, [(T0 + 120_000_000, "frame")], now=T0 + 2 * SECOND)) == 1


def test_the_first_row_is_at_the_start_when_everything_was_already_running():
    take = Take(("a",), 10, T0)
    before = T0 - PREROLL_NS // 2
    messages = [(before, "frame"), (before, "state"), (T0 + SECOND, "frame"), (T0 + SECOND, "state")]
    rows = feed(take, messages, now=T0 + 2 * SECOND)
    assert rows[0].time == T0


def test_the_first_row_waits_for_a_camera_that_starts_late():
    take = Take(("a",), 10, T0)
    messages = [(T0 - 2 * PREROLL_NS, "frame"), (T0, "state"), (T0 + 700_000_000, "frame")]
    rows = feed(take, [*messages, (T0 + SECOND, "state"), (T0 + SECOND, "frame")], now=T0 + 2 * SECOND)
    assert rows[0].time == T0 + 700_000_000


def test_without_any_action_the_state_stands_in():
    take = Take(("a",), 10, T0)
    messages = [(T0, "state"), (T0, "frame"), (T0 + SECOND, "state"), (T0 + SECOND, "frame")]
    rows = feed(take, messages, now=T0 + 2 * SECOND)
    assert len(rows) == 11
    assert all((row.action == row.state).all() for row in rows)


def test_an_action_sent_long_before_the_episode_is_still_in_force():
    take = Take(("a",), 10, T0)
    messages = [(T0 - 3600 * SECOND, "action"), (T0, "state"), (T0, "frame"), (T0 + SECOND, "state")]
    rows = feed(take, [*messages, (T0 + SECOND, "frame")], now=T0 + 2 * SECOND)
    assert rows[0].action[0] == -3600


def test_a_hole_is_named_with_its_length_and_place():
    take = Take(("a",), 10, T0)
    times = [T0 + i * SECOND // 30 for i in range(90) if not 30 < i < 60]
    feed(take, [(T0 + i * SECOND // 60, "state") for i in range(180)] + [(t, "frame") for t in times])
    assert take.holes(2.0) == []
    (hole,) = take.holes(0.5)
    assert hole == "camera/a was silent for 1.0 s from 1.0 s on"


def test_a_camera_that_dies_before_the_stop_is_a_hole_too():
    take = Take(("a",), 10, T0)
    feed(take, [(T0, "frame"), (T0, "state"), (T0 + 3 * SECOND, "state")])
    take.stop(T0 + 3 * SECOND)
    assert take.holes(0.5)[0] == "camera/a was silent for 3.0 s from 0.0 s on"
    assert not take.complete(T0 + 3 * SECOND + SETTLE_NS)
    assert take.complete(T0 + 3 * SECOND + 4 * SETTLE_NS)


def test_a_long_episode_holds_only_what_the_next_row_may_need():
    take = Take(("a",), 10, T0)
    feed(take, streams(60))
    held = [len(track.times) for track in (*take._frames.values(), take._states, take._actions)]
    assert max(held) < 60


def test_a_goal_ends_when_the_arm_is_made_limp_and_the_state_stands_in_until_the_next():
    take = Take(("a",), 10, T0)
    take.action(RobotAction(position=position(50), t_capture=T0 - 3600 * SECOND))
    take.no_action(T0 + SECOND // 2)
    take.no_action(T0 + SECOND // 2 + 1000)  # it goes on saying so
    take.action(RobotAction(position=position(70), t_capture=T0 + 3 * SECOND // 2))
    messages = [(T0, "state"), (T0, "frame"), (T0 + 2 * SECOND, "state"), (T0 + 2 * SECOND, "frame")]
    rows = feed(take, messages, now=T0 + 3 * SECOND)
    assert [row.action[0] for row in rows] == pytest.approx(
        [50] * 5 + [i / 10 for i in range(5, 15)] + [70] * 6
    )


def test_a_goal_that_is_told_again_after_a_pause_is_in_force_again():
    take = Take(("a",), 10, T0)
    goal = RobotAction(position=position(50), t_capture=T0 - SECOND, t_publish=T0)
    take.action(goal)
    take.no_action(T0 + SECOND // 2)  # the port was lost for a moment
    take.action(goal.model_copy(update={"t_publish": T0 + SECOND}))
    messages = [(T0, "state"), (T0, "frame"), (T0 + 2 * SECOND, "state"), (T0 + 2 * SECOND, "frame")]
    rows = feed(take, messages, now=T0 + 3 * SECOND)
    assert [row.action[0] for row in rows] == pytest.approx(
        [50] * 5 + [i / 10 for i in range(5, 10)] + [50] * 11
    )
