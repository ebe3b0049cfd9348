"""What the running stack says of itself, and its clocks."""

from gripwire import __version__
from gripwire.doctor import clock, stack
from gripwire.messages import Health, ModelState, Reward


def _beat(name: str = "reward", **changes: object) -> Health:
    values = {"state": "ready", "pid": 7, "host": "here", "versions": {"gripwire": __version__}}
    return Health(service=name, **(values | changes))  # type: ignore[arg-type]


def _levels(findings: object) -> list[str]:
    return [finding.level for finding in findings]  # type: ignore[attr-defined]


def test_a_degraded_service_is_named_with_its_reason() -> None:
    (found,) = stack.service("robot", _beat("robot", state="degraded", problem="the gripper is hot"))
    assert found.level == "warn" and found.text == "robot (pid 7) is degraded: the gripper is hot"


def test_slow_starts_late_loops_and_refusals_are_named() -> None:
    (slow,) = stack.service("trainer", _beat(state="starting", uptime_s=90))
    assert slow.level == "warn" and "starting for 90 s" in slow.text
    ready, late, messages, commands = stack.service(
        "reward", _beat(lag_ms=300.0, counts={"refused_messages": 3, "refused_commands": 2})
    )
    assert ready.level == "ok" and "300 ms behind" in late.text
    assert "refused 3 messages" in messages.text and "refused 2 commands" in commands.text


def test_versions_that_differ_are_named() -> None:
    (same,) = stack.versions({"reward": _beat()}, __version__)
    (other,) = stack.versions(
        {"reward": _beat(), "robot": _beat(versions={"gripwire": "0.0.9"})}, __version__
    )
    assert same.level == "ok" and other.level == "warn" and "robot runs 0.0.9" in other.text


def test_two_services_on_two_versions_of_one_engine_are_named() -> None:
    beats = {
        "reward": _beat(versions={"onnxruntime": "1.20", "python": "3.12.1"}),
        "trainer": _beat("trainer", versions={"onnxruntime": "1.19", "python": "3.12.4", "torch": "2.9"}),
    }
    (found,) = stack.engines(beats)
    assert found.level == "warn" and found.text == "onnxruntime is 1.20 in reward, 1.19 in trainer"


def test_a_part_of_a_stack_says_what_is_missing_and_how_to_start_it(here) -> None:
    half = here({"reward": _beat()})
    (found,) = stack.silent(half)
    assert "not camera/gripper_cam, robot" in found.text
    assert "`gripwire camera run --name gripper_cam` and `gripwire robot run`" in found.remedy
    assert _levels(stack.check(here())) == ["ok"]


def test_a_topic_that_is_not_valid_is_named_with_its_reason(here) -> None:
    place = here({name: _beat(name) for name in ("camera/gripper_cam", "robot", "reward")})
    place.latest = {"reward": Reward(reason="no bundle"), "model": ModelState(valid=True)}
    (found,) = stack.silent(place)
    assert found.level == "warn" and found.text == "`reward` is not valid: no bundle"


def test_services_of_another_machine_are_named() -> None:
    (found,) = stack.hosts({"reward": _beat(), "trainer": _beat("trainer", host="there")}, "here")
    assert found.level == "ok" and "trainer" in found.text and "reward" not in found.text


def test_a_wall_clock_that_was_set_is_found_by_what_was_published_before() -> None:
    before = _beat(t_publish=1_000, t_wall=1_000 + 5_000_000_000)
    assert list(clock.jumps({"health/reward": before}, "here", 5_000_000_000)) == []
    (found,) = clock.jumps({"health/reward": before}, "here", 8_000_000_000)
    assert found.level == "warn" and "was set by +3.0 s since `health/reward`" in found.text
    assert list(clock.jumps({"health/reward": before}, "another machine", 8_000_000_000)) == []


def test_a_wall_clock_that_nobody_keeps_is_a_warning_and_a_wrong_one_fails() -> None:
    assert clock.wall(1.8e9, None).level == clock.wall(1.8e9, False).level == "ok"
    assert clock.wall(1.8e9, True).level == "warn" and "set-ntp" in clock.wall(1.8e9, True).remedy
    assert clock.wall(0.0, False).level == "fail"
    assert clock.unsynchronised() in (None, True, False)
