"""RewardStream: what an RL process leans on. A publisher of rewards at the other end, on real sockets."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from gripwire import AsyncRewardStream, RewardStream, RewardTimeout, clock
from gripwire.control import Server
from gripwire.errors import UserError
from gripwire.messages import Done, Freeze, Thaw
from gripwire.settings import Settings
from tests.proto.rewards import Rewards

WAIT_S = 10.0


@pytest.fixture
def stream(stack: Settings, rewards: Rewards) -> Iterator[RewardStream]:
    with RewardStream(port_base=stack.bus.port_base, timeout_s=WAIT_S) as made:
        assert rewards.publisher.wait_for_subscriber(WAIT_S)
        yield made


def test_the_latest_reward_comes_with_its_age(stream: RewardStream, rewards: Rewards) -> None:
    rewards.send()
    sent = rewards.send(t_capture=clock.monotonic_ns() - 200_000_000)
    assert stream.wait(after_frame_seq=0).frame_seq == 1
    reward, age = stream.latest()
    assert reward.frame_seq == sent.frame_seq and 0.2 <= age < WAIT_S


def test_latest_waits_for_one_that_is_young_enough(stream: RewardStream, rewards: Rewards) -> None:
    rewards.send(t_capture=clock.monotonic_ns() - 60 * 10**9)
    assert stream.latest()[0].frame_seq == 0
    young = threading.Timer(0.05, rewards.send)
    young.start()
    assert stream.latest(max_age_s=30)[0].frame_seq == 1
    young.join()


def test_wait_gives_the_reward_of_a_moment_even_when_newer_ones_are_there(
    stream: RewardStream, rewards: Rewards
) -> None:
    times = [rewards.send(t_capture=1_000 * i).t_capture for i in range(1, 6)]
    stream.wait(after_frame_seq=3)
    assert stream.wait(after_frame_seq=1).frame_seq == 2
    assert stream.wait(after_capture_ns=times[2]).frame_seq == 2
    assert stream.wait(after_capture_ns=times[2] + 1).frame_seq == 3


def test_wait_with_nothing_named_is_for_the_next_reward(stream: RewardStream, rewards: Rewards) -> None:
    rewards.send()
    stream.latest()
    later = threading.Timer(0.05, rewards.send)
    later.start()
    assert stream.wait().frame_seq == 1
    later.join()


def test_a_camera_that_begins_anew_counts_as_after(stream: RewardStream, rewards: Rewards) -> None:
    rewards.frame = 500
    rewards.send()
    stream.latest()
    rewards.frame = -1
    later = threading.Timer(0.05, lambda: rewards.send(frame_boot="the camera, started anew"))
    later.start()
    assert stream.wait(after_frame_seq=501).frame_seq == 0
    later.join()


def test_news_that_no_frame_comes_is_not_the_reward_of_a_frame(
    stream: RewardStream, rewards: Rewards
) -> None:
    rewards.send(frame_seq=-1, valid=False, reason="no frame for 1 s")
    with pytest.raises(RewardTimeout, match="not valid: no frame for 1 s"):
        stream.wait(after_frame_seq=-1, timeout_s=0.2)


def test_iterating_gives_every_reward_once_and_in_order(stream: RewardStream, rewards: Rewards) -> None:
    iterator = iter(stream)
    for _ in range(200):
        rewards.send()
    assert [next(iterator).frame_seq for _ in range(200)] == list(range(200)) and stream.lost == 0


def test_silence_an_old_reward_and_one_that_is_not_valid_are_no_success(
    stream: RewardStream, rewards: Rewards
) -> None:
    assert not stream.is_success()
    rewards.send()
    stream.wait(after_frame_seq=-1)
    assert stream.is_success(max_age_s=60) and not stream.is_success(max_age_s=0)
    rewards.send(valid=False)
    stream.wait(after_frame_seq=0)
    assert not stream.is_success(max_age_s=60)


def test_a_time_out_says_what_is_wrong_and_what_to_do(stack: Settings) -> None:
    with RewardStream(port_base=stack.bus.port_base, timeout_s=0.1) as stream:
        with pytest.raises(RewardTimeout, match=r"no reward within 0.1 s at tcp://.*gripwire up"):
            stream.latest()
        with pytest.raises(TimeoutError):
            next(iter(stream))


def test_messages_of_another_schema_are_counted_and_named(stack: Settings) -> None:
    socket = zmq.Context.instance().socket(zmq.XPUB)
    socket.bind(stack.topics["reward"].endpoint)
    with RewardStream(port_base=stack.bus.port_base, timeout_s=0.5) as stream:
        assert socket.poll(WAIT_S * 1000)
        socket.send_multipart([b"reward\0", b"\x81\xa1v\x09"])
        with pytest.raises(RewardTimeout, match="1 refused, the last one: schema version 9"):
            stream.wait()
    socket.close(0)


def test_threads_share_a_stream(stream: RewardStream, rewards: Rewards) -> None:
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(stream.wait().frame_seq)) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + WAIT_S
    while len(got) < 8:
        assert time.monotonic() < deadline
        rewards.send()
    for thread in threads:
        thread.join()


def test_closing_wakes_who_waits(stream: RewardStream) -> None:
    said: list[str] = []

    def wait() -> None:
        try:
            stream.wait()
        except RewardTimeout as e:
            said.append(str(e))

    thread = threading.Thread(target=wait)
    thread.start()
    stream.close()
    thread.join(WAIT_S)
    assert said == ["the reward stream was closed"]


def test_the_asyncio_stream_answers_the_same_questions(stack: Settings, rewards: Rewards) -> None:
    async def follow() -> list[int]:
        async with AsyncRewardStream(port_base=stack.bus.port_base, timeout_s=WAIT_S) as stream:
            assert await asyncio.to_thread(rewards.publisher.wait_for_subscriber, WAIT_S)
            iterator = aiter(stream)
            for _ in range(50):
                rewards.send()
            seen = [(await anext(iterator)).frame_seq for _ in range(50)]
            last = rewards.send()
            assert (await stream.wait(after_frame_seq=last.frame_seq - 1)).frame_seq == last.frame_seq
            assert (await stream.latest())[0].frame_seq == last.frame_seq and stream.is_success(60)
            with pytest.raises(RewardTimeout):
                await stream.wait(after_frame_seq=10**6, timeout_s=0.05)
            return seen

    assert asyncio.run(follow()) == list(range(50))


def test_a_hold_is_renewed_while_the_block_lasts_and_let_go_after_it(
    stack: Settings, stream: RewardStream
) -> None:
    asked: list[Freeze | Thaw] = []

    def note(command: Freeze | Thaw) -> Done:
        asked.append(command)
        return Done()

    server = Server(stack.topics.control("reward"), {Freeze: note, Thaw: note})
    ended = threading.Event()
    thread = threading.Thread(target=lambda: [server.poll(0.02) for _ in iter(ended.is_set, True)])
    thread.start()
    with stream.frozen("run 3", lease_s=0.3):
        deadline = time.monotonic() + WAIT_S
        while len(asked) < 3:
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)
    ended.set()
    thread.join()
    server.close()
    assert [type(a) for a in asked[:3]] == [Freeze] * 3 and asked[-1] == Thaw(by="run 3")


def test_a_hold_that_is_refused_is_an_error_before_the_block(stack: Settings, stream: RewardStream) -> None:
    def refuse(command: Freeze) -> Done:
        raise UserError("held by run 2")

    server = Server(stack.topics.control("reward"), {Freeze: refuse})
    thread = threading.Thread(target=lambda: server.poll(WAIT_S))
    thread.start()
    with pytest.raises(UserError, match="held by run 2"), stream.frozen("run 3"):
        pytest.fail("the block must not begin")
    thread.join()
    server.close()
