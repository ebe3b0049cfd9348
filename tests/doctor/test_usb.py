"""Whether the cameras' pictures fit onto the USB, computed from what is set and what sysfs says."""

from pathlib import Path

import pytest

from gripwire.doctor import usb
from gripwire.doctor.usb import Camera


def _camera(slot: str = "gripper_cam", **changes: object) -> Camera:
    values = {"width": 640, "height": 480, "fps": 30.0, "fourcc": "MJPG", "speed": 480.0, "port": "1-1"}
    return Camera(slot, "/dev/video0", **(values | changes))  # type: ignore[arg-type]


def test_uncompressed_pictures_need_two_bytes_a_pixel() -> None:
    assert _camera(fourcc="YUYV").needs == pytest.approx(640 * 480 * 30 * 16 / 1e6)
    assert _camera().needs == pytest.approx(_camera(fourcc="YUYV").needs / 4)


@pytest.mark.parametrize(
    ("camera", "level", "said"),
    [
        (_camera(), "ok", "37 Mbit/s) on a link of 480 Mbit/s"),
        (_camera(fourcc="YUYV"), "ok", "147 Mbit/s"),
        (_camera(fourcc="YUYV", width=1920, height=1080), "fail", "995 Mbit/s) has a link of 480"),
        (_camera(fourcc="YUYV", width=1920, height=1080, speed=5000.0), "ok", "on a link of 5000"),
        (_camera(speed=12.0), "fail", "of which 11 can be had"),
    ],
)
def test_a_camera_by_itself(camera: Camera, level: str, said: str) -> None:
    (found,) = usb.judge([camera])
    assert found.level == level and said in found.text and bool(found.remedy) == (level == "fail")


def test_two_uncompressed_cameras_on_one_hub_do_not_fit_and_on_two_ports_they_do() -> None:
    big = {"fourcc": "YUYV", "fps": 45.0}
    *alone, together = usb.judge([_camera(**big), _camera("wrist", **big)])
    assert [f.level for f in alone] == ["ok", "ok"] and together.level == "fail"
    assert "share USB port 1-1: 442 of 384 Mbit/s" in together.text and "another port" in together.remedy
    assert all(f.level == "ok" for f in usb.judge([_camera(**big), _camera("wrist", port="1-2", **big)]))


def test_two_compressed_cameras_on_one_hub_are_a_warning_where_they_may_reserve_too_much() -> None:
    large = {"width": 1280, "height": 720}
    *_, together = usb.judge([_camera(**large), _camera("wrist", **large)])
    assert together.level == "warn" and "many cameras reserve" in together.text
    *_, modest = usb.judge([_camera(reserved=98.0, **large), _camera("wrist", reserved=98.0, **large)])
    assert modest.level == "ok"


def test_sysfs_tells_the_speed_the_port_and_what_is_reserved(here, write, tmp_path: Path) -> None:
    device = "sys/devices/pci0000:00/usb1/1-2/1-2.3"
    write(f"{device}/speed", "480\n")
    write(f"{device}/1-2.3:1.1/ep_81/type", "Isoc\n")
    write(f"{device}/1-2.3:1.1/ep_81/wMaxPacketSize", "1400\n")  # 3 packets of 1024 bytes
    write(f"{device}/1-2.3:1.1/ep_81/interval", "125us\n")
    write(f"{device}/1-2.3:1.0/video4linux/video2/name", "a camera\n")
    node = tmp_path / "machine/sys/class/video4linux/video2"
    node.mkdir(parents=True)
    (node / "device").symlink_to(tmp_path / "machine" / device / "1-2.3:1.0")
    place = here(cameras__gripper_cam__source="/dev/video2", cameras__gripper_cam__fps=60)
    camera = usb.find(place, "gripper_cam")
    assert camera is not None
    assert (camera.speed, camera.port, camera.fps) == (480.0, "1-2", 60.0)
    assert camera.reserved == pytest.approx(3 * 1024 * 8000 * 8 / 1e6)


def test_a_camera_on_the_network_is_none_of_the_usbs_business(here) -> None:
    assert list(usb.check(here(cameras__gripper_cam__source="http://camera/"))) == []
