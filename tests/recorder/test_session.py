"""A session's plan: what is to be done when."""

import pytest

from gripwire.messages import StartSession
from gripwire_recorder.session import Session


@pytest.fixture
def session():
    return Session(StartSession(task="grasp", episodes=2, seconds=8.0, reset_seconds=5.0), now=100.0)


def begin(session, now):
    assert session.tick(now) == ["start"]
    session.begun(now)


def test_each_episode_comes_after_time_to_reset_and_takes_its_seconds(session):
    assert session.tick(104.9) == [] and session.left(104.0) == 1.0
    begin(session, 105.0)
    assert session.tick(112.9) == []
    assert session.tick(113.0) == ["stop"] and session.done == 1
    assert session.tick(117.9) == []
    begin(session, 118.0)
    assert session.tick(126.0) == ["over", "stop"] and session.done == 2


def test_next_ends_the_phase_at_once(session):
    assert session.next(101.0) == ["start"]
    session.begun(101.0)
    assert session.next(103.0) == ["stop"] and session.done == 1


def test_redo_while_recording_throws_the_episode_away_and_does_not_count_it(session):
    begin(session, 105.0)
    assert session.redo(107.0) == ["discard"] and session.done == 0
    assert session.tick(111.9) == []
    begin(session, 112.0)


def test_redo_after_an_episode_rejects_it_once_and_records_one_more(session):
    assert session.redo(101.0) == []
    begin(session, 105.0)
    session.tick(113.0)
    assert session.redo(114.0) == ["reject"] and session.done == 0
    assert session.redo(115.0) == []
    begin(session, 119.0)
    assert session.tick(127.0) == ["stop"] and session.done == 1


def test_an_episode_that_ended_by_itself_does_not_count(session):
    begin(session, 105.0)
    session.cut_short(106.0)
    assert session.done == 0 and session.phase == "reset" and session.left(106.0) == 5.0


def test_while_the_recorder_refuses_it_is_asked_again(session):
    assert session.tick(105.0) == ["start"]
    session.refused(105.0, again_s=1.0)
    assert session.tick(105.9) == [] and session.tick(106.0) == ["start"]


def test_the_end_keeps_what_is_being_recorded(session):
    assert session.end() == ["over"]
    begin(session, 105.0)
    assert session.end() == ["over", "stop"]
