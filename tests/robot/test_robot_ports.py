"""Ports by serial number: which adapter a setting means, and what is said when it means none or several."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gripwire.errors import UserError
from gripwire_robot import ports
from gripwire_robot.ports import Port
from tests.helpers import run_here

ARM = Port("/dev/ttyACM1", "5A46085090", 0x1A86, 0x55D3, "USB Single Serial")
LEADER = Port("/dev/ttyACM0", "5A46082011", 0x1A86, 0x55D3, "USB Single Serial")
NAMELESS = (
    Port("/dev/ttyUSB0", "", 0x1A86, 0x7523, "CH340"),
    Port("/dev/ttyUSB1", "", 0x1A86, 0x7523, "CH340"),
)
TWIN = Port("/dev/ttyACM2", "5A46085090", 0x0403, 0x6001, "FT232")
ONBOARD = Port("/dev/ttyS0")


def test_a_serial_number_means_its_adapter_whatever_the_order() -> None:
    for order in ([ARM, LEADER, ONBOARD], [LEADER, ONBOARD, ARM]):
        assert ports.match("serial:5A46085090", order) == "/dev/ttyACM1"
        assert ports.match("usb:1A86:55d3:5A46082011", order) == "/dev/ttyACM0"


@pytest.mark.parametrize(
    ("name", "there", "words"),
    [
        ("serial:5A46", [ARM, LEADER], "there is /dev/ttyACM1 (5A46085090), /dev/ttyACM0 (5A46082011)"),
        ("serial:5A46085090", [ONBOARD], "there is no USB serial port at all"),
        ("serial:5A46085090", [ARM, TWIN], "/dev/ttyACM1 and /dev/ttyACM2 are both"),
        ("usb:1a86:7523:X", NAMELESS, "/dev/ttyUSB0 (no serial number)"),
        ("serial:", [ARM], "incomplete"),
        ("usb:1a86:55d3", [ARM], "incomplete: write `serial:XXXX` or `usb:VID:PID:SERIAL`"),
    ],
)
def test_a_name_that_means_no_port_or_several_is_refused(name: str, there: list[Port], words: str) -> None:
    with pytest.raises(UserError) as refused:
        ports.match(name, there)
    assert words in str(refused.value)


def test_a_path_means_itself_and_nothing_is_listed_for_it() -> None:
    def never() -> list[Port]:
        raise AssertionError

    assert ports.find("/dev/serial/by-id/usb-1a86", never) == "/dev/serial/by-id/usb-1a86"


def test_what_to_write_is_the_shortest_that_means_one_port() -> None:
    assert ports.setting(ARM, [ARM, LEADER]) == "serial:5A46085090"
    assert ports.setting(TWIN, [ARM, TWIN]) == "usb:0403:6001:5A46085090"
    assert ports.setting(NAMELESS[0], NAMELESS) == "/dev/ttyUSB0"


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What pyserial finds from now on: there is no USB where the tests run."""
    return lambda *there: monkeypatch.setattr(ports, "present", lambda: list(there))


def test_an_arm_set_by_serial_number_is_taken_up_wherever_it_comes_back(
    drive: Any, device: Any, plugged: Callable[..., None]
) -> None:
    plugged(Port(str(device.port), "5A46"))
    driven = drive(port="serial:5A46")
    driven.turn(2)
    device.unplug()
    plugged()
    driven.turn_until(lambda: "no adapter `serial:5A46` is plugged in" in driven.runtime.problems)
    device.port = device.folder / "elsewhere"  # as ttyACM0 becomes ttyACM1
    device.plug()
    plugged(Port(str(device.port), "5A46"))
    driven.turn_until(lambda: not driven.runtime.problems)


def test_the_list_says_which_is_which_and_what_to_write(
    plugged: Callable[..., None], capsys: pytest.CaptureFixture[str], device: Any
) -> None:
    there = Port(str(device.port), "5A46085090", 0x1A86, 0x55D3, "USB Single Serial")
    plugged(there, LEADER, ONBOARD)
    told = run_here(["robot", "ports"], {"GRIPWIRE_ROBOT__LEADER_PORT": "serial:5A46082011"}, capsys)
    assert told.returncode == 0
    assert 'port = "serial:5A46085090"' in told.stdout
    assert "is `leader_port` in [robot] now" in told.stdout
    told = run_here(["robot", "ports", "--json"], {"GRIPWIRE_ROBOT__PORT": os.fspath(device.port)}, capsys)
    rows = {row["device"]: row for row in json.loads(told.stdout.splitlines()[-1])["ports"]}
    assert rows[there.device]["set_as"] == ["port"]
    assert rows["/dev/ttyACM0"]["port"] == "serial:5A46082011"


def test_a_machine_without_usb_says_so(
    plugged: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    plugged(ONBOARD)
    told = run_here(["robot", "ports"], {}, capsys)
    assert told.returncode == 1
    assert "there is no USB serial port on this machine" in told.stderr
    assert "/dev/ttyS0  not USB" in told.stdout


def test_the_socket_is_what_tells_adapters_without_serial_numbers_apart(tmp_path: Path) -> None:
    device = tmp_path / "ttyUSB0"
    device.touch()
    (tmp_path / "by-path").mkdir()
    link = tmp_path / "by-path" / "pci-0000:00:14.0-usb-0:2:1.0-port0"
    link.symlink_to(device)
    assert ports._by_path(str(device), tmp_path / "by-path") == str(link)
    assert ports._by_path("/dev/ttyUSB9", tmp_path / "by-path") == ""
