"""An MJPEG stream taken apart, bytes and times in, pictures out."""

import types
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gripwire_camera.multipart import Parser, Part, boundary_of

MAX = 1_000_000


def jpeg(fill: bytes, header: bytes = b"") -> bytes:
    """The skeleton of a JPEG: start, an application segment, a frame header (16x8), a scan, end."""
    app = b"\xff\xe1" + (2 + len(header)).to_bytes(2, "big") + header
    frame = b"\xff\xc0\x00\x0b\x08\x00\x08\x00\x10\x01\x01\x11\x00"
    return b"\xff\xd8" + app + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + fill + b"\xff\xd9"


A, B = jpeg(b"aaaa"), jpeg(b"bbbbbbbb")


def feed(parser: Parser, *chunks: bytes) -> list[Part]:
    """Feed chunks that arrive at 1, 2, 3 ... ns."""
    return [part for t, chunk in enumerate(chunks, 1) for part in parser.feed(chunk, t)]


def parser() -> Parser:
    return Parser(b"frame", MAX)


def test_parts_pass_unchanged_and_in_order(helpers: types.SimpleNamespace) -> None:
    found = feed(parser(), helpers.part(A) + helpers.part(B))
    assert [part.body for part in found] == [A, B]


@pytest.mark.parametrize("length", [-1, None])
def test_a_picture_is_there_with_its_last_byte_and_does_not_wait_for_the_next(
    helpers: types.SimpleNamespace, length: int | None
) -> None:
    whole = helpers.part(A, length)
    p = parser()
    up_to_the_end = whole.index(A) + len(A)
    assert feed(p, whole[: up_to_the_end - 1]) == []
    assert [part.body for part in p.feed(whole[up_to_the_end - 1 : up_to_the_end], 9)] == [A]


@given(st.lists(st.integers(1, 60), max_size=40), st.sampled_from([-1, None]))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int], length: int | None) -> None:
    head = b"" if length is None else b"Content-Length: %d\r\n"
    stream = b"".join(
        b"--frame\r\n" + (head % len(body) if head else b"") + b"X-Exposure-Seq: 7\r\n\r\n" + body + b"\r\n"
        for body in (A, B, A)
    )

    def chunks() -> Iterator[bytes]:
        at = 0
        for cut in cuts:
            yield stream[at : at + cut]
            at += cut
        yield stream[at:]

    found = feed(parser(), *chunks())
    assert [part.body for part in found] == [A, B, A]
    assert {part.headers["x-exposure-seq"] for part in found} == {"7"}


def test_the_time_is_that_of_the_parts_first_byte(helpers: types.SimpleNamespace) -> None:
    whole = helpers.part(A)
    first_header_byte = whole.index(b"\n") + 1
    found = feed(parser(), whole[:first_header_byte], whole[first_header_byte:30], whole[30:60], whole[60:])
    assert [part.t_first for part in found] == [2]


def test_a_boundary_that_the_server_sends_ahead_of_the_picture_is_not_its_time(
    helpers: types.SimpleNamespace,
) -> None:
    first, second = helpers.part(A), helpers.part(B)
    ahead = second.index(b"\n") + 1
    found = feed(parser(), first + second[:ahead], second[ahead:])
    assert [part.t_first for part in found] == [1, 2]


def test_a_thumbnail_in_the_header_does_not_end_the_picture(helpers: types.SimpleNamespace) -> None:
    body = jpeg(b"body", header=b"thumb\xff\xd9nail")
    assert [part.body for part in feed(parser(), helpers.part(body, None))] == [body]


def test_a_cut_off_picture_is_skipped_and_counted_and_the_next_one_comes(
    helpers: types.SimpleNamespace,
) -> None:
    p = parser()
    found = feed(p, helpers.part(A[:-2]) + helpers.part(B))
    assert ([part.body for part in found], p.skipped) == ([B], 1)


def test_a_content_length_that_lies_costs_at_most_the_next_picture(helpers: types.SimpleNamespace) -> None:
    p = parser()
    found = feed(p, helpers.part(A, length=len(A) + 30) + helpers.part(B) + helpers.part(A))
    assert found[-1].body == A
    assert p.skipped == 1


@pytest.mark.parametrize("length", [MAX + 1, None])
def test_an_oversize_part_is_skipped_without_being_kept(
    helpers: types.SimpleNamespace, length: int | None
) -> None:
    p = parser()
    huge = helpers.part(A[:-2] + b"\x00" * (MAX + 100), length)
    found = feed(p, *(huge[i : i + 65536] for i in range(0, len(huge), 65536)), helpers.part(B))
    assert [part.body for part in found] == [B]
    assert p.skipped >= 1


@pytest.mark.parametrize("length", ["", "abc", "-3", "9" * 40, "٣"])
def test_a_senseless_content_length_is_ignored(length: str) -> None:
    stream = f"--frame\r\nContent-Length: {length}\r\n\r\n".encode() + A + b"\r\n"
    assert [part.body for part in feed(parser(), stream)] == [A]


@given(st.lists(st.one_of(st.binary(max_size=80), st.just(b"--frame\r\n"), st.just(b"\r\n\r\n"), st.just(A))))
def test_garbage_never_raises_and_the_stream_is_found_again(chunks: list[bytes]) -> None:
    p = Parser(b"frame", 2000)
    feed(p, *chunks)
    good = b"\r\n--frame\r\nContent-Length: %d\r\n\r\n" % len(B) + B + b"\r\n"
    assert feed(p, good * 400)[-1].body == B


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/x-mixed-replace; boundary=frame", b"frame"),
        ('Multipart/X-Mixed-Replace;charset=x; Boundary="--frame"', b"frame"),
        ("multipart/x-mixed-replace", None),
        ("text/html; boundary=frame", None),
        ("", None),
    ],
)
def test_the_boundary_is_read_from_the_content_type(header: str, boundary: bytes | None) -> None:
    assert boundary_of(header) == boundary
