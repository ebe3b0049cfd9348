"""Recordings on the disk: MCAP files, written in small parts and readable up to where they were torn off."""

import errno
import heapq
import json
import os
import struct
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Metadata, Schema
from mcap.records import Message as Record
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer
from zstandard import ZstdError

from gripwire import __version__, clock, messages
from gripwire.bus import Received
from gripwire.errors import UserError
from gripwire.files import make_folder
from gripwire.messages import Frame, Message
from gripwire.recording import form
from gripwire.wire import Buffer

_CHUNK_BYTES = 1 << 20
LARGEST_BYTES = 1 << 28
_DISORDER_NS = 1_000_000_000
"""Messages of different topics may stand in the file this far out of order."""


class RecordingFile:
    """Writes messages of the bus into a new MCAP file.

    What :meth:`flush` has handed to the system survives the death of this process, :meth:`sync` that of the
    machine. :meth:`close` adds the index that lets viewers search; without it the file can be read all the
    same. For one thread only.

    Raises:
        UserError: the file exists, or cannot be created; by every method: the disk is full.
    """

    def __init__(self, path: Path, about: dict[str, str] | None = None) -> None:
        self.path = path
        self.counts: dict[str, int] = {}
        make_folder(path.parent)
        try:
            self._file: BinaryIO = open(path, "xb")  # noqa: SIM115 (closed by close)
        except FileExistsError:
            raise UserError(f"{path} exists already and is never overwritten; choose another name") from None
        except OSError as e:
            raise UserError(f"{path}: cannot be created: {e.strerror}; choose another place") from e
        self._channels: dict[tuple[str, str], int] = {}
        # The file's times are of the wall clock as it stood now: a clock that is set changes no interval.
        self._began = clock.monotonic_ns()
        self._epoch_ns = time.time_ns() - self._began
        self._writer = Writer(self._file, _CHUNK_BYTES, CompressionType.ZSTD)
        with _Trouble(path):
            self._writer.start("gripwire", f"gripwire {__version__}")
            # With these a time of the file can be led back to CLOCK_MONOTONIC: `log_time` - `epoch_ns`.
            clocks = {"host": clock.host_id(), "epoch_ns": str(self._epoch_ns)}
            self._writer.add_metadata("gripwire", {"version": __version__} | clocks | (about or {}))
            self._file.flush()

    def write(self, topic: str, received: Received[Any]) -> None:
        """Append a message, timed by when it was published, or received if another machine published it.

        What was published before the recording began (a latched topic's last word) stands at its beginning.
        """
        message = received.message
        at = message.t_publish if message.host == clock.host_id() else received.t_receive
        self.append(topic, max(at, self._began) + self._epoch_ns, message, received.payload)

    def append(self, topic: str, log_time: int, message: Message, payload: Buffer | None) -> None:
        """Append a message at ``log_time``, ns since 1970."""
        name = form.schema_name(message)
        with _Trouble(self.path):
            if (topic, name) not in self._channels:
                written = json.dumps(form.schema(message)).encode()
                schema = self._writer.register_schema(name, "jsonschema", written)
                self._channels[topic, name] = self._writer.register_channel(topic, "json", schema)
            self._writer.add_message(
                self._channels[topic, name], log_time, form.to_json(message, payload), message.t_wall,
                message.seq & 0xFFFFFFFF,
            )  # fmt: skip
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def copy(self, channel: Channel, schema: Schema, record: Record, log_time: int) -> None:
        """Append a record of another recording as it is, but at ``log_time``."""
        topic = channel.topic
        with _Trouble(self.path):
            if (topic, schema.name) not in self._channels:
                known = self._writer.register_schema(schema.name, schema.encoding, schema.data)
                at = self._writer.register_channel(topic, channel.message_encoding, known)
                self._channels[topic, schema.name] = at
            id = self._channels[topic, schema.name]
            self._writer.add_message(id, log_time, record.data, record.publish_time, record.sequence)
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def attach(self, name: str, media_type: str, data: bytes) -> None:
        """Put a file into the recording, after everything so far."""
        with _Trouble(self.path):
            self._writer.flush()
            self._writer.add_attachment(time.time_ns(), time.time_ns(), name, media_type, data)

    def flush(self) -> None:
        """Hand everything so far to the system."""
        with _Trouble(self.path):
            self._writer.flush()

    def sync(self) -> None:
        """Make everything so far durable."""
        self.flush()
        with _Trouble(self.path):
            os.fsync(self._file.fileno())

    def note(self, name: str, about: dict[str, str]) -> None:
        """Append a record of text about the recording, after everything so far."""
        with _Trouble(self.path):
            self._writer.flush()
            self._writer.add_metadata(name, about)
            self._writer.flush()

    def size(self) -> int:
        """Bytes on the disk by now."""
        return self._file.tell()

    def close(self, durable: bool = True) -> None:
        """Finish the file; whatever was written is kept even when this fails."""
        try:
            with _Trouble(self.path):
                self._writer.finish()
                self._file.flush()
                if durable:
                    os.fsync(self._file.fileno())
        finally:
            with _Trouble(self.path):
                self._file.close()

    def give_up(self) -> None:
        """Let go of the file as it is, closed or not; never fails."""
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Trouble:
    """Turns what the system says about writing a file into what a person can use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"the disk that holds {self._path} is full: what was recorded until then is kept; free some "
                "space before the next recording"
            ) from error
        raise UserError(
            f"{self._path}: cannot be written: {error.strerror}; what was recorded until then can be read"
        ) from error


@dataclass(frozen=True)
class Recorded:
    """A message of a recording; ``log_time`` in ns since 1970."""

    log_time: int
    topic: str
    message: Message
    payload: bytes | None


def recorded(path: Path, channel: Channel, schema: Schema, record: Record) -> Recorded:
    """What a record of the file ``path`` says.

    Raises:
        UserError: it was not recorded by gripwire.
    """
    name = schema.name.removeprefix("gripwire.")
    model = Frame if schema.name.startswith("foxglove.") else getattr(messages, name, None)
    if channel.message_encoding != "json" or not (isinstance(model, type) and issubclass(model, Message)):
        raise UserError(
            f"{path}: topic `{channel.topic}` ({schema.name}) was not recorded by gripwire; "
            "leave it out with --topics"
        )
    try:
        message, payload = form.from_json(record.data, model)
    except ValueError as e:
        raise UserError(
            f"{path}: message {record.sequence} of topic `{channel.topic}` was not recorded by this "
            f"version of gripwire: {e}"
        ) from e
    return Recorded(record.log_time, channel.topic, message, payload)


@dataclass
class Contents:
    """What a recording holds: messages by topic, and the seconds from the first to the last."""

    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Recording:
    """Reads a recording, also one that was torn off: then :attr:`problem` says so once it has been read.

    Raises:
        UserError: there is no such file, or it is no MCAP file; by the methods: it was not recorded by
            gripwire.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self.notes: dict[str, dict[str, str]] = {}
        """What was written about the recording (:meth:`RecordingFile.note`), as far as it was read."""
        try:
            with open(path, "rb") as file:
                magic = file.read(8)
        except OSError as e:
            raise UserError(f"{path}: cannot be read: {e.strerror}") from e
        if magic[:5] != b"\x89MCAP":
            raise UserError(f"{path} is not an MCAP file; `gripwire record -o RUN.mcap` makes one")

    def contents(self) -> Contents:
        """From the file's index, or without one by reading it through."""
        try:
            with open(self.path, "rb") as file:
                summary = make_reader(file).get_summary()
        except (McapError, struct.error, ValueError, OSError):
            summary = None
        if summary is None or summary.statistics is None:
            return self._counted()
        found = Contents()
        for id, count in summary.statistics.channel_message_counts.items():
            topic = summary.channels[id].topic
            found.counts[topic] = found.counts.get(topic, 0) + count
        found.seconds = (summary.statistics.message_end_time - summary.statistics.message_start_time) / 1e9
        return found

    def _counted(self) -> Contents:
        found, first, last = Contents(), 0, 0
        for channel, _, record in self.records():
            found.counts[channel.topic] = found.counts.get(channel.topic, 0) + 1
            first, last = first or record.log_time, record.log_time
        found.seconds = (last - first) / 1e9
        return found

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Recorded]:
        """All messages of ``topics`` (None: of all) in the order of their times."""
        waiting: list[tuple[int, int, Channel, Schema, Record]] = []
        for i, (channel, schema, record) in enumerate(self.records()):
            if topics is None or channel.topic in topics:
                heapq.heappush(waiting, (record.log_time, i, channel, schema, record))
            while waiting and waiting[0][0] < record.log_time - _DISORDER_NS:
                yield recorded(self.path, *heapq.heappop(waiting)[2:])
        while waiting:
            yield recorded(self.path, *heapq.heappop(waiting)[2:])

    def records(self) -> Generator[tuple[Channel, Schema, Record]]:
        """All messages as they stand in the file, in its order."""
        channels: dict[int, Channel] = {}
        schemas: dict[int, Schema] = {}
        nothing = Schema(id=0, data=b"", encoding="", name="")
        with open(self.path, "rb") as file:
            reader = StreamReader(file, validate_crcs=True, record_size_limit=LARGEST_BYTES)
            try:
                for record in reader.records:
                    if isinstance(record, Channel):
                        channels[record.id] = record
                    elif isinstance(record, Schema):
                        schemas[record.id] = record
                    elif isinstance(record, Metadata):
                        self.notes[record.name] = dict(record.metadata)
                    elif isinstance(record, Record):
                        channel = channels[record.channel_id]
                        yield channel, schemas.get(channel.schema_id, nothing), record
            except (McapError, ZstdError, struct.error, ValueError, KeyError) as e:
                torn = file.tell() == os.fstat(file.fileno()).st_size
                what = (
                    "ends in the middle: its recorder was killed, or the disk was full"
                    if torn
                    else f"is damaged before byte {file.tell()}: {e}"
                )
                self.problem = f"{self.path} {what}; all before that was read"
