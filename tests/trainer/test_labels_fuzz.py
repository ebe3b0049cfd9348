"""Whatever stands in a label file, the answer is labels or one plain sentence that names the file."""

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gripwire.errors import UserError
from gripwire_trainer import labels
from gripwire_trainer.labelling.importing import import_text
from gripwire_trainer.labelling.text import parse

LENGTHS = {0: 100, 1: 10, 2: 5}
SOURCE = {
    "dataset_path": "../set",
    "episodes": {"0": {"success_start": 7}, "1": {"ranges": [[1, 2], [5, None]]}, "2": None},
    "exclude": [2],
}
MERGE = {"sources": ["a", "b.json"], "output_repo_id": "me/all"}

fuzz = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
keys = (
    st.sampled_from([*SOURCE, *MERGE, "success_start", "ranges", "0", "1", "-1", "00", "~x", ""]) | st.text()
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | keys,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def _read(folder: Path, data: bytes) -> list[labels.Source]:
    """What is read of a file with this content beside two good sources; nothing when it is refused."""
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps(SOURCE | {"dataset_path": f"../{name}"}))
    file = folder / "fuzz.json"
    file.write_bytes(data)
    try:
        sources = labels.read(file).sources
        for source in sources:
            labels.truth(source, LENGTHS)
    except UserError as error:
        assert "fuzz.json" in str(error) and "\n" not in str(error)
        return []
    return sources


def test_the_files_that_are_mutated_below_are_good(tmp_path: Path) -> None:
    assert len(_read(tmp_path, json.dumps(SOURCE).encode())) == 1
    assert len(_read(tmp_path, json.dumps(MERGE).encode())) == 2


@fuzz
@given(values)
def test_any_json(tmp_path: Path, value: Any) -> None:
    _read(tmp_path, json.dumps(value).encode())


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    _read(tmp_path, data)


@fuzz
@given(st.data())
def test_a_good_file_with_one_thing_changed(tmp_path: Path, data: st.DataObject) -> None:
    value = copy.deepcopy(data.draw(st.sampled_from([SOURCE, MERGE])))
    places = list(_places(value))
    parent, key = data.draw(st.sampled_from(places))
    parent[key] = data.draw(values)
    _read(tmp_path, json.dumps(value).encode())


def _places(value: Any) -> Any:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield value, key
        yield from _places(child)


@fuzz
@given(st.data())
def test_a_good_file_with_some_bytes_changed(tmp_path: Path, data: st.DataObject) -> None:
    good = json.dumps(data.draw(st.sampled_from([SOURCE, MERGE]))).encode()
    at = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(at, min(len(good), at + 6)))
    _read(tmp_path, good[:at] + data.draw(st.binary(max_size=6) | st.just(good[at:end] * 2)) + good[end:])


numbers = st.integers(0, 60).map(str)
spans = st.builds("{}-{}".format, numbers, numbers | st.just("")) | st.text("0123456789-–, #:", max_size=9)
lines = st.one_of(
    st.sampled_from(["# dataset path: ../set", "# dataset path: /x/other", "# dataset: x", "# a note", ""]),
    st.builds("{}: {}".format, st.integers(0, 30), st.lists(spans, max_size=3).map(", ".join)),
    st.builds("{:02}: {}".format, st.integers(0, 30), st.sampled_from(["all fail", "34-", "40-48, 60-"])),
    st.text(max_size=30),
)
good_label = (
    st.lists(st.integers(1, 99), max_size=5, unique=True)
    .map(sorted)
    .map(lambda n: ", ".join(f"{a}-{b}" for a, b in zip(n[::2], [*n[1::2], ""], strict=False)) or "all fail")
)
good_text = st.dictionaries(st.integers(0, 30), good_label, min_size=1, max_size=5).map(
    lambda episodes: "\n".join(f"{number:02}: {label}" for number, label in episodes.items())
)
under_a_header = (good_text | st.lists(lines, max_size=6).map("\n".join)).map(
    "# dataset path: set\n{}".format
)
texts = st.text() | under_a_header


@fuzz
@given(texts, st.integers(1, 4))
def test_any_text_is_refused_by_name_or_means_the_same_as_json(tmp_path: Path, text: str, every: int) -> None:
    file, out = tmp_path / "fuzz.txt", tmp_path / "out" / "all.json"
    file.write_text(text, encoding="utf-8", errors="replace")
    for old in (tmp_path / "out").glob("*"):
        old.unlink()
    try:
        import_text(file, out, every)
    except UserError as error:
        assert "fuzz.txt" in str(error) and "\n" not in str(error)
        assert not list((tmp_path / "out").glob("*"))
        return
    read = [source.episodes for source in labels.read(out).sources]
    assert read == [section.episodes for section in parse(file, every)]


@fuzz
@given(st.binary(max_size=100))
def test_any_bytes_as_text(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "fuzz.txt"
    file.write_bytes(data)
    try:
        parse(file)
    except UserError as error:
        assert "fuzz.txt" in str(error)
