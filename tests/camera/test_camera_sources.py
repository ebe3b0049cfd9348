"""Sources by themselves: HTTP streams, video files, and settings that a camera does not take."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import pytest

from gripwire import clock
from gripwire.errors import UserError
from gripwire_camera import device, sources
from gripwire_camera.http import HttpStream
from gripwire_camera.settings import Camera
from gripwire_camera.sources import Picture, SourceLost


def open_stream(url: str, **settings: Any) -> HttpStream:
    stream = HttpStream("cam", urlsplit(url), Camera(source=url, **settings))
    stream.open()
    return stream


def read(source: sources.Source) -> Picture:
    picture = source.read()
    assert picture is not None
    return picture


def test_the_jpeg_passes_untouched_and_its_arrival_is_the_capture_time(
    mjpeg: Callable[..., Any], helpers: types.SimpleNamespace
) -> None:
    server, body = mjpeg(), helpers.jpeg(helpers.numbered(3))
    stream = open_stream(server.url)
    before = clock.monotonic_ns()
    server.send(helpers.part(body)[:100])
    server.send(helpers.part(body)[100:])
    picture = read(stream)
    assert (picture.data, picture.width, picture.height) == (body, 160, 120)
    assert before < picture.t_capture < clock.monotonic_ns()
    assert picture.exposure_seq == -1
    assert server.requests.get().startswith(b"GET /stream?x=1 HTTP/1.1")


def test_the_exposures_own_time_and_number_are_taken_from_this_machines_source(
    mjpeg: Callable[..., Any], helpers: types.SimpleNamespace
) -> None:
    server, body = mjpeg(), helpers.jpeg(helpers.numbered(3))
    stream = open_stream(server.url)
    exposed = clock.monotonic_ns() - 5_000_000
    server.send(helpers.part(body, X_Exposure_Time=exposed, X_Host=clock.host_id(), X_Exposure_Seq=41))
    picture = read(stream)
    assert (picture.t_capture, picture.exposure_seq) == (exposed, 41)


@pytest.mark.parametrize("headers", [
    {"X_Exposure_Time": 5, "X_Host": "another-machine"},
    {"X_Exposure_Time": 5},
    {"X_Exposure_Time": 10**18, "X_Host": "HERE"},  # not yet
    {"X_Exposure_Time": "soon", "X_Host": "HERE"},
])  # fmt: skip
def test_an_exposure_time_of_another_clock_or_of_the_future_is_not_believed(
    mjpeg: Callable[..., Any], helpers: types.SimpleNamespace, headers: dict[str, object]
) -> None:
    server = mjpeg()
    stream = open_stream(server.url)
    before = clock.monotonic_ns()
    headers = {k: clock.host_id() if v == "HERE" else v for k, v in headers.items()}
    server.send(helpers.part(helpers.jpeg(helpers.numbered(3)), **headers))
    assert before < read(stream).t_capture < clock.monotonic_ns()


def test_a_stream_that_stalls_is_lost_within_about_a_second(mjpeg: Callable[..., Any]) -> None:
    stream = open_stream(mjpeg().url)
    begin = clock.monotonic_ns()
    with pytest.raises(SourceLost, match="has sent nothing for 1 s"):
        stream.read()
    assert clock.monotonic_ns() - begin < 3_000_000_000


def test_a_stream_that_ends_is_lost(mjpeg: Callable[..., Any]) -> None:
    server = mjpeg()
    stream = open_stream(server.url)
    server.wait_for_client()
    server.hang_up()
    with pytest.raises(SourceLost, match="ended the stream"):
        stream.read()


def test_an_answer_that_is_no_stream_says_what_it_is(mjpeg: Callable[..., Any]) -> None:
    with pytest.raises(SourceLost, match=r"no MJPEG stream \(it sends text/html\)"):
        open_stream(mjpeg(content_type="text/html").url)
    with pytest.raises(SourceLost, match="answers 404 Not Found"):
        open_stream(mjpeg(status="404 Not Found").url)


def test_a_password_is_sent_and_never_shown(mjpeg: Callable[..., Any]) -> None:
    server = mjpeg()
    stream = open_stream(server.url.replace("127", "me:s%40cret@127"))
    assert b"Authorization: Basic bWU6c0BjcmV0" in server.requests.get()
    assert "cret" not in stream.address
    server.wait_for_client()
    server.hang_up()
    with pytest.raises(SourceLost) as lost:
        stream.read()
    assert "cret" not in str(lost.value)


def test_broken_pictures_are_counted_and_skipped(
    mjpeg: Callable[..., Any], helpers: types.SimpleNamespace
) -> None:
    server, good = mjpeg(), helpers.jpeg(helpers.numbered(9))
    stream = open_stream(server.url)
    server.send(helpers.part(b"\xff\xd8 no header \xff\xd9") + helpers.part(b"junk") + helpers.part(good))
    assert read(stream).data == good
    assert stream.broken == 2


def test_a_video_plays_every_frame_once_at_its_own_rate(
    video: Callable[..., Path], helpers: types.SimpleNamespace
) -> None:
    source = sources.choose("cam", Camera(source=str(video(10, fps=50.0))))
    assert not source.live
    began = clock.monotonic_ns()
    source.open()
    pictures = []
    while (picture := source.read()) is not None:
        pictures.append(picture)
    assert [helpers.number_in(p.data) for p in pictures] == list(range(10))
    assert [p.exposure_seq for p in pictures] == list(range(10))
    # Nine periods of 20 ms after it was opened, whatever the machine's load added.
    assert pictures[-1].t_capture - began >= 0.18e9


def test_a_looped_video_begins_again(video: Callable[..., Path], helpers: types.SimpleNamespace) -> None:
    source = sources.choose("cam", Camera(source=str(video(3, fps=100.0)), loop=True))
    source.open()
    assert [helpers.number_in(read(source).data) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_a_setting_that_reads_back_otherwise_is_named(video: Callable[..., Path]) -> None:
    capture = cv2.VideoCapture(str(video(2)), cv2.CAP_FFMPEG)  # takes no exposure, like many a webcam
    warnings = device.apply(capture, Camera(exposure=120, white_balance=4600), device=False)
    assert warnings == [
        "asked for exposure 120, the camera says 0",
        "asked for white_balance 4600, the camera says 0",
    ]


def test_nothing_is_set_that_was_not_asked_for(video: Callable[..., Path]) -> None:
    assert device.apply(cv2.VideoCapture(str(video(2)), cv2.CAP_FFMPEG), Camera(), device=False) == []


def test_an_rtsp_address_that_does_not_answer_is_lost_and_its_password_not_shown() -> None:
    source = sources.choose("cam", Camera(source="rtsp://me:s3cret@127.0.0.1:9/stream"))
    with pytest.raises(SourceLost, match=r"rtsp://127\.0\.0\.1:9/stream does not answer") as lost:
        source.open()
    assert "s3cret" not in str(lost.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "has no source"),
        ("77", "no camera 77"),
        ("/dev/video77", "/dev/video77 does not exist"),
        ("missing.mp4", "missing.mp4 does not exist"),
        ("/tmp", "neither a camera nor a video file"),
        (__file__, "is no video"),
        ("http://", "names no host"),
        ("http://host:port/", "is not an address"),
        ("ftp://host/film", "ftp:// is not understood"),
    ],
)
def test_a_source_that_cannot_be_is_refused_in_one_sentence(source: str | None, words: str) -> None:
    with pytest.raises(UserError) as refused:
        sources.choose("cam", Camera(source=source))
    assert words in str(refused.value)
    assert "camera cam" in str(refused.value)
    assert "\n" not in str(refused.value)
