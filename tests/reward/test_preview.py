"""The preview shows what is judged, and its keys do what they say, as a page and in a terminal."""

import io
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from gripwire.control import Server
from gripwire.messages import Done, Override, Reward
from gripwire_reward import bundle
from gripwire_reward.preprocess import crop_and_resize
from gripwire_reward.preview.feed import BundleFeed, ServiceFeed, Shown
from gripwire_reward.preview.page import Page
from gripwire_reward.preview.picture import BAR, HEIGHT, SIDE, draw
from gripwire_reward.preview.session import Session
from gripwire_reward.preview.terminal import Terminal, figures
from tests.reward import tiny
from tests.reward.bench import WAIT_S, Bench


@pytest.fixture
def feed(bench: Bench) -> Iterator[ServiceFeed]:
    made = ServiceFeed(bench.settings, "gripper_cam")
    assert bench.camera.wait_for_subscriber(WAIT_S, count=2)
    assert bench.service._reward.wait_for_subscriber(WAIT_S, count=2)
    yield made
    made.close()


def _next(bench: Bench, feed: ServiceFeed, success: bool) -> Shown:
    sent = bench.send(success)
    bench.verdict(sent)
    return bench.until(lambda: (shown := feed.next(0.05)) and shown.reward.frame_seq == sent.seq and shown)


def test_it_shows_the_judged_frame_the_exact_input_and_the_services_verdict(bench, feed) -> None:
    model = bench.serve()
    shown = _next(bench, feed, True)
    assert shown.reward.model == model and shown.reward.above and shown.reward.probability > 0.9
    assert shown.picture.shape == (tiny.HEIGHT, tiny.WIDTH, 3)
    assert np.array_equal(shown.sees, crop_and_resize(shown.picture, tiny.CONTRACT))


def test_before_there_is_a_bundle_it_says_so(bench, feed) -> None:
    shown = _next(bench, feed, True)
    assert shown.sees is None and shown.reward.reason == "no bundle"
    assert draw(shown, 0.5, False).shape[0] == HEIGHT + BAR


def test_a_bundle_that_does_not_serve_is_judged_here(bench: Bench) -> None:
    made = tiny.make(bench.settings.data / "bundles")
    feed = BundleFeed(bench.settings, "gripper_cam", bundle.load(made.path))
    assert bench.camera.wait_for_subscriber(WAIT_S, count=2)
    bench.send(True)
    shown = bench.until(lambda: feed.next(0.05))
    assert shown.reward.model == made.id and shown.reward.valid and shown.reward.above
    feed.close()


def test_such_a_bundle_decides_at_the_rate_that_the_camera_really_has(bench: Bench) -> None:
    made = tiny.make(bench.settings.data / "bundles")
    feed = BundleFeed(bench.settings, "gripper_cam", bundle.load(made.path))
    assert bench.camera.wait_for_subscriber(WAIT_S, count=2)
    decided = []
    for number in range(7):
        sent = bench.send(number >= 5, t_capture=bench.shot_at + number * 200_000_000)  # five a second
        shown = bench.until(
            lambda seq=sent.seq: (shown := feed.next(0.05)) and shown.reward.frame_seq == seq and shown
        )
        decided.append(shown.reward.decision)
    feed.close()
    assert decided == [False] * 5 + [True] * 2  # a tenth of a second is one frame here, and three at 30 Hz


def _shown(probability: float | None = 0.8, **of: object) -> Shown:
    reward = Reward(valid=probability is not None, probability=probability, model="a" * 20, **of)
    picture = tiny.picture(True)
    return Shown(picture, crop_and_resize(picture, tiny.CONTRACT), reward, 12.0)


def test_the_input_is_enlarged_without_another_pixel_made_up() -> None:
    shown = _shown()
    canvas = draw(shown, 0.5, False)
    left = canvas.shape[1] - SIDE - 12
    enlarged = canvas[26 : 26 + SIDE, left : left + SIDE]
    times = SIDE // 16
    assert np.array_equal(enlarged[times // 2 :: times, times // 2 :: times], shown.sees)


class Stub:
    """A feed of one moment, again and again."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown

    def next(self, timeout_s: float) -> Shown:
        return self.shown

    def close(self) -> None:
        pass


def test_keys_move_the_threshold_here_and_s_gives_it_to_the_service(stack) -> None:
    asked: list[Override] = []

    def note(command: Override) -> Done:
        asked.append(command)
        return Done()

    server = Server(stack.topics.control("reward"), {Override: note})
    thread = threading.Thread(target=lambda: server.poll(WAIT_S))
    thread.start()
    session = Session(stack, Stub(_shown(threshold=0.5)))
    session.frame()
    for key in "+++-":
        session.press(key)
    assert session.threshold == 0.52 and asked == []
    session.press("s")
    thread.join()
    server.close()
    assert [a.threshold for a in asked] == [0.52] and "from now on" in session.said
    session.press("q")
    assert session.ended


def test_a_video_holds_what_was_shown(stack) -> None:
    session = Session(stack, Stub(_shown()))
    session.press("v")
    pictures = [session.frame()[1] for _ in range(5)]
    session.press("v")
    path = Path(session.said.removeprefix("written: "))
    assert path.parent == stack.data / "runs" / "preview"
    with av.open(str(path)) as video:
        seen = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(seen) == 5
    assert np.abs(seen[0].astype(int) - pictures[0][: seen[0].shape[0], : seen[0].shape[1]]).mean() < 12


def test_a_browser_sees_the_picture_and_its_buttons_are_keys(stack) -> None:
    session = Session(stack, Stub(_shown(threshold=0.5)))
    page = Page(session, "127.0.0.1", 0)
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(0.01):
            page.show(session.frame()[1])
            page.take_keys()

    thread = threading.Thread(target=show)
    thread.start()
    try:
        with urllib.request.urlopen(page.address, timeout=WAIT_S) as answer:
            assert b'src="stream"' in answer.read()
        with urllib.request.urlopen(f"{page.address}stream", timeout=WAIT_S) as answer:
            data = answer.read(200)
            length = int(data.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            jpeg = (data + answer.read(length)).split(b"\r\n\r\n", 1)[1][:length]
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).shape[0] == HEIGHT + BAR
        key = urllib.request.Request(f"{page.address}key/plus", method="POST")
        with urllib.request.urlopen(key, timeout=WAIT_S) as answer:
            assert b"threshold 0.51" in answer.read()
        key.add_header("Sec-Fetch-Site", "cross-site")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(key, timeout=WAIT_S)
        for path, method in (("key/plus", "POST"), ("", "GET")):
            rebound = urllib.request.Request(
                page.address + path, method=method, headers={"Host": "elsewhere.test"}
            )
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(rebound, timeout=WAIT_S)
    finally:
        ended.set()
        thread.join()
        page.close()


def test_a_terminal_shows_the_input_in_colour_and_the_figures_in_words() -> None:
    out = io.StringIO()
    Terminal(out).show(_shown(decision=True), 0.5, "threshold 0.52")
    drawn = out.getvalue()
    assert "▀" in drawn and "SUCCESS" in drawn and "probability  0.800" in drawn
    unknown = figures(_shown(None, reason="the camera is frozen"), 0.5)
    assert unknown[0].startswith("NOT VALID") and unknown[2] == "the camera is frozen"
