"""A device that is missing or forbidden is a finding with the one remedy that helps."""

import os
import stat

import pytest

from gripwire.doctor import devices
from gripwire.doctor.devices import Rights

CHARACTER = stat.S_IFCHR


def _judged(**changes: object) -> devices.Finding:
    values = {
        "mode": CHARACTER | 0o660,
        "group": "dialout",
        "usable": False,
        "in_group": False,
        "joined": False,
    }
    rights = Rights("/dev/ttyACM0", **(values | changes))  # type: ignore[arg-type]
    return devices.device("serial", "[robot] port /dev/ttyACM0", "/dev/ttyACM0", rights, "`RULE`")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, "`sudo usermod -aG dialout $USER`, then log in again"),
        ({"joined": True}, "not yet in this session: log in again"),
        ({"mode": CHARACTER | 0o600}, "/etc/udev/rules.d/70-gripwire.rules"),
        ({"group": "root"}, "write `RULE` into"),
    ],
)
def test_a_port_that_may_not_be_used_says_which_way_in_there_is(changes: dict, remedy: str) -> None:
    found = _judged(**changes)
    assert found.level == "fail" and "may not be used" in found.text and remedy in found.remedy


def test_a_port_that_may_be_used_is_well_and_one_that_is_missing_is_not() -> None:
    assert _judged(usable=True).level == "ok"
    missing = devices.device("serial", "[robot] port /dev/ttyACM7", "/dev/ttyACM7", None, "")
    assert missing.level == "fail" and "is not there" in missing.text and "dmesg" in missing.remedy


def test_the_settings_of_this_stack_are_looked_at(here, tmp_path) -> None:
    (found,) = devices.cameras(here(cameras__gripper_cam__source="/dev/null"))
    assert found.level == "ok"
    (found,) = devices.cameras(here(cameras__gripper_cam__source="http://me:secret@camera:8080/"))
    assert found.level == "ok" and "secret" not in found.text
    (found,) = devices.cameras(here(cameras__gripper_cam__source=str(tmp_path / "no.mp4")))
    assert found.level == "fail"
    serial = list(devices.serial(here(robot__port="/dev/no-such-port")))
    assert serial[0].level == "fail" and "/dev/no-such-port is not there" in serial[0].text


def test_what_is_plugged_in_but_not_set_is_pointed_to(here, write) -> None:
    write("dev/video0", "")
    write("dev/serial/by-id/usb-1a86_adapter", "")
    (camera,), (serial,) = devices.cameras(here()), devices.serial(here())
    assert camera.level == serial.level == "warn"
    assert "/dev/video0" in camera.remedy and "/dev/serial/by-id/usb-1a86_adapter" in serial.text


def test_the_udev_rule_names_the_adapter(here, write, tmp_path) -> None:
    device = "sys/devices/usb1/1-1"
    write(f"{device}/idVendor", "1a86\n")
    write(f"{device}/idProduct", "55d3\n")
    write(f"{device}/1-1:1.0/bInterfaceClass", "02\n")
    node = tmp_path / "machine/sys/class/tty/ttyACM0"
    node.mkdir(parents=True)
    os.symlink(tmp_path / "machine" / device / "1-1:1.0", node / "device")
    assert devices.rule(here(), "/dev/ttyACM0") == (
        '`SUBSYSTEM=="tty", ATTRS{idVendor}=="1a86", ATTRS{idProduct}=="55d3", TAG+="uaccess"`'
    )
