"""Reads a recording while it is still being written, or what is left of one that was torn off."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Metadata, Schema
from mcap.records import Message as Record
from mcap.stream_reader import StreamReader
from zstandard import ZstdError

from gripwire.errors import UserError
from gripwire.recording.file import LARGEST_BYTES, Recorded, recorded

_MAGIC = b"\x89MCAP0\r\n"
_HEAD = struct.Struct("<BQ")  # of every record: what it is, and how many bytes follow
_DATA_END, _CHUNK = 0x0F, 0x06


class Follower:
    """Goes through the file ``path`` in the order in which it is written.

    Raises:
        UserError: there is no such file, or it is no recording.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: dict[str, dict[str, str]] = {}
        """What was written about the recording so far (:meth:`RecordingFile.note`), by name."""
        self.finished = False
        """The file was closed by its writer: nothing more will come."""
        self.damaged = 0
        """Parts of the file that could not be read and were passed over."""
        self._channels: dict[int, Channel] = {}
        self._schemas: dict[int, Schema] = {}
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 (closed by close)
        except OSError as e:
            raise UserError(f"{path}: cannot be read: {e.strerror}") from e
        magic = self._file.read(len(_MAGIC))
        if magic != _MAGIC[: len(magic)]:
            self._file.close()
            raise UserError(f"{path} is not an MCAP file")
        self._at = len(_MAGIC)

    def more(self) -> Iterator[Recorded]:
        """The messages that are whole in the file by now and were not given before."""
        while not self.finished and (data := self._next()) is not None:
            yield from self._read(data)

    def behind(self) -> int:
        """Bytes at the end of the file that make no whole record: it is being written, or was torn off."""
        self._file.seek(0, io.SEEK_END)
        return max(0, self._file.tell() - self._at)

    def _next(self) -> bytes | None:
        """The bytes of the next record; None as long as it is not whole."""
        self._file.seek(self._at)
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        _, length = _HEAD.unpack(head)
        if length > LARGEST_BYTES:  # these bytes are no head of a record: all that follows is lost
            return None
        body = self._file.read(length)
        if len(body) < length:
            return None
        self._at += _HEAD.size + length
        return head + body

    def _read(self, data: bytes) -> Iterator[Recorded]:
        if data[0] == _DATA_END:
            self.finished = True
            return
        reader = StreamReader(
            io.BytesIO(data), skip_magic=True, validate_crcs=True, record_size_limit=LARGEST_BYTES
        )
        try:
            # All at once: a chunk is either whole or passed over.
            records = list(_until_end(reader))
        except (McapError, ZstdError, struct.error, ValueError, MemoryError):
            self.damaged += data[0] == _CHUNK
            return
        for record in records:
            if isinstance(record, Metadata):
                self.notes[record.name] = dict(record.metadata)
            elif isinstance(record, Channel):
                self._channels[record.id] = record
            elif isinstance(record, Schema):
                self._schemas[record.id] = record
            elif isinstance(record, Record):
                channel = self._channels.get(record.channel_id)
                schema = self._schemas.get(channel.schema_id) if channel else None
                if channel is None or schema is None:  # they stood in a part that was passed over
                    continue
                yield recorded(self.path, channel, schema, record)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _until_end(reader: StreamReader) -> Iterator[object]:
    records = reader.records
    while True:
        try:
            yield next(records)
        except (StopIteration, EndOfFile):
            return
