"""Which heartbeats tell that a service died."""

from gripwire.capsule.deaths import Deaths
from gripwire.messages import Health


def _beat(state: str = "ready", boot: str = "a", error: str = "", service: str = "robot") -> Health:
    return Health(service=service, state=state, boot=boot, last_error=error)  # type: ignore[arg-type]


def test_a_new_process_without_a_goodbye_of_the_old_one_is_a_death() -> None:
    deaths = Deaths()
    assert deaths.see(_beat(), 0.0) == ""
    assert deaths.see(_beat("starting", "b"), 1.0) == "robot was killed or crashed"
    assert deaths.see(_beat("ready", "b"), 2.0) == ""


def test_a_restart_in_order_is_none() -> None:
    deaths = Deaths()
    for beat in (_beat(), _beat("stopping"), _beat("starting", "b"), _beat("ready", "b")):
        assert deaths.see(beat, 0.0) == ""


def test_an_error_that_comes_with_the_last_beat_is_a_death_and_one_that_was_over_is_none() -> None:
    deaths = Deaths()
    assert deaths.see(_beat(error="the elbow was hot"), 0.0) == ""
    assert deaths.see(_beat("stopping", error="the elbow was hot"), 1.0) == ""
    assert deaths.see(_beat("ready", "b"), 2.0) == ""
    assert deaths.see(_beat("stopping", "b", "KeyError: 'elbow'"), 3.0) == "robot ended: KeyError: 'elbow'"


def test_a_service_that_cannot_start_is_no_incident() -> None:
    deaths = Deaths()
    for boot in ("a", "b", "c"):
        assert deaths.see(_beat("starting", boot), 0.0) == ""
        assert deaths.see(_beat("stopping", boot, f"no arm at /dev/null ({boot})"), 1.0) == ""


def test_silence_without_a_goodbye_is_told_once() -> None:
    deaths = Deaths()
    deaths.see(_beat(), 0.0)
    deaths.see(_beat("stopping", service="reward"), 0.0)
    assert deaths.silent(9.0) == ""
    assert deaths.silent(11.0) == "robot has been silent for 10 s"
    assert deaths.silent(12.0) == ""
    assert deaths.see(_beat(), 13.0) == ""  # it was stopped for a while
