"""Python, keys, limits, GPU and EGL, by what they say."""

import pytest

from gripwire import keys
from gripwire.doctor import egl, gpu, limits, python
from gripwire.doctor import keys as key_check
from gripwire.doctor import settings as settings_check
from gripwire.doctor.table import CHECKS, examine


def test_an_old_python_fails_and_packages_of_two_releases_do_too() -> None:
    assert python.interpreter((3, 11), "Linux").level == "fail"
    assert python.interpreter((3, 12), "Linux").level == "ok"
    assert python.installed({"robot": "0.1.0"}, "0.1.0").level == "ok"
    mixed = python.installed({"robot": "0.1.0", "reward": "0.0.9"}, "0.1.0")
    assert mixed.level == "fail" and "reward 0.0.9" in mixed.text and "robot" not in mixed.text
    assert "look at a stack" in python.installed({}, "0.1.0").text


def test_keys_are_looked_at_as_services_read_them(here) -> None:
    place = here()
    assert [f.level for f in key_check.check(place)] == ["ok"]
    pair = keys.create(place.data / "keys")
    keys.allow(pair, "laptop", keys.public_of(b"\1" * 32), ("watch",))
    well, friends = key_check.check(place)
    assert well.level == "ok" and "laptop (watch)" in friends.text
    (place.data / "keys" / "machine.key").chmod(0o644)
    (found,) = key_check.check(place)
    assert found.level == "fail" and "chmod 600" in found.remedy


def test_a_list_of_machines_that_cannot_be_read_fails(here) -> None:
    place = here()
    keys.create(place.data / "keys")
    (place.data / "keys" / "allowed.toml").write_text("[machines.laptop]\nkey = 1\n")
    (found,) = key_check.check(place)
    assert found.level == "fail" and "allowed.toml" in found.text and found.remedy


def test_without_keys_it_says_that_nothing_is_encrypted(here) -> None:
    (found,) = key_check.check(here())
    assert found.level == "ok" and "nothing is encrypted" in found.text


def test_a_mistake_in_a_section_is_found_though_its_service_does_not_run(here) -> None:
    pytest.importorskip("gripwire_recorder")
    (found,) = settings_check.check(here(recorder__fps=0))
    assert found.level == "fail" and "--fps" in found.text and "`recorder.fps`" in found.text
    assert [f.level for f in settings_check.check(here(recorder__fps=10))] == ["ok"]


@pytest.mark.parametrize(
    ("files", "memory", "cores", "shared", "level", "said"),
    [
        (1024, None, 2, 1000.0, "ok", "no memory limit"),
        (256, None, 2, 1000.0, "warn", "256 files"),
        (1024, 2000.0, 2, 1000.0, "warn", "2000 MB of memory"),
        (1024, None, 1.5, 1000.0, "warn", "1.5 CPU core"),
        (1024, None, 2, 64.0, "warn", "/dev/shm has 64 MB"),
    ],
)
def test_limits(files: int, memory: float | None, cores: float, shared: float, level: str, said: str) -> None:
    (found,) = limits.judge(files, memory, cores, shared, training=True)
    assert found.level == level and said in found.text


def test_cards_are_listed_and_a_driver_that_fails_is_a_failure() -> None:
    (found,) = gpu.cards(0, "NVIDIA RTX 4070, 550.54, 12282, 11000, 41\n")
    assert found.level == "ok" and "11000 of 12282 MB free" in found.text
    (short,) = gpu.cards(0, "NVIDIA RTX 4070, 550.54, 12282, 300, 41\n")
    assert short.level == "warn" and "who has the memory" in short.remedy
    (broken,) = gpu.cards(18, "Failed to initialize NVML: Driver/library version mismatch\n")
    assert broken.level == "fail" and "version mismatch" in broken.text


def test_egl_that_draws_is_well_and_one_that_crashes_is_a_warning() -> None:
    assert egl.judge(0, "llvmpipe|True\n", "linux").level == "ok"
    assert egl.judge(0, "llvmpipe|False\n", "linux").level == "warn"
    crashed = egl.judge(-11, "", "linux")
    assert crashed.level == "warn" and "signal 11" in crashed.text and "libegl1" in crashed.remedy
    assert egl.judge(1, "no EGL", "darwin").level == "ok"


def test_a_command_that_takes_too_long_or_is_missing_is_no_crash() -> None:
    assert gpu.run(["sleep", "30"], 0.1) == (-1, "no answer within 0.1 s")
    assert gpu.run(["no-such-command"], 1)[0] == -1


def test_a_check_that_breaks_is_a_finding_and_the_others_follow(here, monkeypatch) -> None:
    def broken(_: object) -> list:
        raise RuntimeError("oh")

    for name in CHECKS:
        monkeypatch.setitem(CHECKS, name, broken)
    found = list(examine(here()))
    assert [f.check for f in found] == list(CHECKS) and {f.level for f in found} == {"warn"}
    assert "RuntimeError: oh" in found[0].text
