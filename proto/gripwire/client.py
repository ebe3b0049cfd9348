"""What an RL process imports: the reward as a stream.

    from gripwire import RewardStream

    with RewardStream() as reward:
        action = policy(...)
        verdict = reward.wait(after_capture_ns=time.monotonic_ns())
        done = verdict.decision

Everything here fails closed: silence, an old reward and one that is not valid are no success.
"""

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from gripwire import clock, control, settings
from gripwire.bus import Queued, Received
from gripwire.errors import UserError
from gripwire.messages import Freeze, Reward, Thaw

FRESH_S = 0.5
"""A reward about an older picture says nothing about now."""
_HISTORY = 1000
_POLL_S = 0.1


class RewardTimeout(TimeoutError):
    """No reward came in time. The text says what did come last, and what to look at."""


class RewardStream:
    """The rewards of a stack, each :class:`~gripwire.messages.Reward` as it came.

    Any number of threads may use one stream. Iterating gives every reward from then on, in order, and raises
    :class:`RewardTimeout` after ``timeout_s`` of silence.

    Args:
        config: the gripwire.toml of the stack; as for the commands, ./gripwire.toml if there is one.
        port_base: the stack's first port, where it differs from the settings'.
        timeout_s: how long to wait for a reward before saying what happened.
    """

    def __init__(
        self, config: Path | str | None = None, port_base: int | None = None, timeout_s: float = 5.0
    ) -> None:
        loaded = settings.load(Path(config) if config else None, {"port_base": port_base})
        self.timeout_s = timeout_s
        self._topic = loaded.topics["reward"]
        self.control_endpoint = loaded.topics.control("reward")
        self._kept: deque[Received[Reward]] = deque(maxlen=_HISTORY)
        self._count = 0
        self._lost = self._passed = self._refused = 0
        self._refusal = self._barred = ""
        self._fresh = threading.Condition()
        self._listeners: list[Callable[[], object]] = []
        self._stop = threading.Event()
        reader = Queued(self._topic, Reward)
        self._thread = threading.Thread(target=self._run, args=(reader,), name="reward stream", daemon=True)
        self._thread.start()

    def _run(self, reader: Queued[Reward]) -> None:
        with reader:
            while not self._stop.is_set():
                received = reader.receive(_POLL_S)
                with self._fresh:
                    self._lost, self._refused, self._refusal = (
                        reader.gaps.lost,
                        reader.refused,
                        reader.refusal,
                    )
                    self._barred = reader.barred
                    if received is None:
                        continue
                    self._kept.append(received)
                    self._count += 1
                    self._fresh.notify_all()
                    listeners = tuple(self._listeners)
                for listener in listeners:
                    listener()

    @property
    def lost(self) -> int:
        """Rewards that were published and did not arrive here, or that went by while nobody asked for the
        next: so many are kept for who iterates."""
        with self._fresh:
            return self._lost + self._passed

    def latest(self, max_age_s: float | None = None) -> tuple[Reward, float]:
        """The newest reward and its age: seconds since its picture was taken.

        Waits for the first one. With ``max_age_s`` it also waits for one that is not older.

        Raises:
            RewardTimeout: there is none, or none so young.
        """
        return aged(self._await(self._newest(max_age_s), self.timeout_s))

    def wait(
        self,
        after_frame_seq: int | None = None,
        after_capture_ns: int | None = None,
        timeout_s: float | None = None,
    ) -> Reward:
        """The reward of a given moment: the first one about a picture after it.

        ``after_frame_seq``: of a camera frame with a greater ``seq`` (a camera that has begun anew counts as
        after). ``after_capture_ns``: of a picture taken at this CLOCK_MONOTONIC time or later
        (``time.monotonic_ns()``; on the robot's own machine). With neither: the next reward to arrive.

        Raises:
            RewardTimeout: none came within ``timeout_s``.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        return self._await(self._after(after_frame_seq, after_capture_ns), limit).message

    def is_success(self, max_age_s: float = FRESH_S) -> bool:
        """Whether the newest reward decides success, is valid and young. Never waits, never raises: silence
        is no."""
        with self._fresh:
            newest = self._kept[-1] if self._kept else None
        if newest is None or newest.age_ms() > max_age_s * 1e3:
            return False
        return newest.message.valid and newest.message.decision

    def __iter__(self) -> Iterator[Reward]:
        return self._follow(self._unseen())  # what comes from now on, whenever the first is asked for

    def _follow(self, unseen: Callable[[], list[Reward] | None]) -> Iterator[Reward]:
        while True:
            yield from self._await(unseen, self.timeout_s)

    # What to look for: called with the lock held, after every reward, until it gives something.

    def _newest(self, max_age_s: float | None) -> Callable[[], Received[Reward] | None]:
        limit_ms = float("inf") if max_age_s is None else max_age_s * 1e3
        return lambda: self._kept[-1] if self._kept and self._kept[-1].age_ms() <= limit_ms else None

    def _after(self, frame_seq: int | None, capture_ns: int | None) -> Callable[[], Received[Reward] | None]:
        with self._fresh:
            begun, boot = self._count, self._kept[-1].message.frame_boot if self._kept else ""

        def fits(number: int, received: Received[Reward]) -> bool:
            reward = received.message
            if frame_seq is None and capture_ns is None:
                return number >= begun
            if reward.frame_seq < 0:  # the news that no picture comes
                return False
            if capture_ns is not None and captured(received) < capture_ns:
                return False
            anew = number >= begun and reward.frame_boot != boot != ""
            return frame_seq is None or reward.frame_seq > frame_seq or anew

        def first() -> Received[Reward] | None:
            start = self._count - len(self._kept)
            return next((r for i, r in enumerate(self._kept, start) if fits(i, r)), None)

        return first

    def _unseen(self) -> Callable[[], list[Reward] | None]:
        with self._fresh:
            seen = self._count

        def batch() -> list[Reward] | None:
            nonlocal seen
            fresh = min(self._count - seen, len(self._kept))
            self._passed += self._count - seen - fresh
            seen = self._count
            return [r.message for r in itertools.islice(self._kept, len(self._kept) - fresh, None)] or None

        return batch

    def _await[T](self, look: Callable[[], T | None], timeout_s: float) -> T:
        deadline = time.monotonic() + timeout_s
        with self._fresh:
            while (found := look()) is None:
                left = deadline - time.monotonic()
                if self._stop.is_set() or left <= 0:
                    raise RewardTimeout(self._story(timeout_s))
                self._fresh.wait(left)
            return found

    def _story(self, timeout_s: float) -> str:
        """What happened in place of the reward that was waited for."""
        if self._stop.is_set():
            return "the reward stream was closed"
        refused = f"; {self._refused} refused, the last one: {self._refusal}" if self._refused else ""
        if self._barred:
            return f"no reward within {timeout_s:g} s: {self._barred}"
        if not self._kept:
            return (
                f"no reward within {timeout_s:g} s at {self._topic.endpoint}: is the reward service running? "
                f"`gripwire reward status` tells, `gripwire up` starts it{refused}"
            )
        last = self._kept[-1]
        silent = (clock.monotonic_ns() - last.t_receive) / 1e9
        state = "valid" if last.message.valid else f"not valid: {last.message.reason}"
        return (
            f"no such reward within {timeout_s:g} s; the last one came {silent:.1f} s ago, about frame "
            f"{last.message.frame_seq}, and was {state}{refused}"
        )

    @contextmanager
    def frozen(self, by: str, lease_s: float = 30.0) -> Iterator[None]:
        """Hold the serving model within the block: a reward that changes under a Q-function can undo it.

        The lease is renewed in the background, so that a process that dies lets go by itself.

        Raises:
            UserError: the service does not answer, or another consumer holds it.
        """
        client = control.Client(self.control_endpoint, "reward")
        client.ask(Freeze(by=by, lease_s=lease_s))
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(lease_s / 3):
                with suppress(UserError):  # it restarts: it remembers the lease, and we ask again
                    client.ask(Freeze(by=by, lease_s=lease_s), timeout_s=lease_s / 3)

        thread = threading.Thread(target=renew, name="reward lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(UserError):  # then the lease runs out by itself
                client.ask(Thaw(by=by), timeout_s=2.0)
            client.close()

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Have ``listener`` called, from the stream's own thread, after every reward; call what is returned
        to end that."""
        with self._fresh:
            self._listeners.append(listener)

        def end() -> None:
            with self._fresh:
                self._listeners.remove(listener)

        return end

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        with self._fresh:
            self._fresh.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def captured(received: Received[Reward]) -> int:
    """When the judged picture was taken, CLOCK_MONOTONIC ns of this machine; of another machine's pictures
    only their arrival is known."""
    same = received.message.host == clock.host_id()
    return received.message.t_capture if same else received.t_receive


def aged(received: Received[Reward]) -> tuple[Reward, float]:
    """The reward, and seconds since its picture was taken."""
    return received.message, received.age_ms() / 1e3


class AsyncRewardStream:
    """:class:`RewardStream` for asyncio: the same questions, awaited, without a thread that blocks.

    ``async with AsyncRewardStream() as reward: async for verdict in reward: ...``
    """

    def __init__(
        self, config: Path | str | None = None, port_base: int | None = None, timeout_s: float = 5.0
    ) -> None:
        self._stream = RewardStream(config, port_base, timeout_s)

    @property
    def lost(self) -> int:
        """See :attr:`RewardStream.lost`."""
        return self._stream.lost

    async def latest(self, max_age_s: float | None = None) -> tuple[Reward, float]:
        """See :meth:`RewardStream.latest`."""
        return aged(await self._await(self._stream._newest(max_age_s), self._stream.timeout_s))

    async def wait(
        self,
        after_frame_seq: int | None = None,
        after_capture_ns: int | None = None,
        timeout_s: float | None = None,
    ) -> Reward:
        """See :meth:`RewardStream.wait`."""
        limit = self._stream.timeout_s if timeout_s is None else timeout_s
        return (await self._await(self._stream._after(after_frame_seq, after_capture_ns), limit)).message

    def is_success(self, max_age_s: float = FRESH_S) -> bool:
        """See :meth:`RewardStream.is_success`."""
        return self._stream.is_success(max_age_s)

    def __aiter__(self) -> AsyncIterator[Reward]:
        return self._follow(self._stream._unseen())

    async def _follow(self, unseen: Callable[[], list[Reward] | None]) -> AsyncIterator[Reward]:
        while True:
            for reward in await self._await(unseen, self._stream.timeout_s):
                yield reward

    async def _await[T](self, look: Callable[[], T | None], timeout_s: float) -> T:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        end = self._stream.listen(lambda: loop.call_soon_threadsafe(came.set))
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    came.clear()
                    with self._stream._fresh:
                        found = look()
                    if found is not None:
                        return found
                    await came.wait()
        except TimeoutError:
            with self._stream._fresh:
                raise RewardTimeout(self._stream._story(timeout_s)) from None
        finally:
            end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._stream.close)
