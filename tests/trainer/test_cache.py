"""The cache: right or absent, whatever crashes or runs beside it, and never larger than it may be."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from gripwire_trainer.cache import Cache


def _array(seed: int) -> NDArray[np.float16]:
    return np.random.default_rng(seed).random((40, 8, 5)).astype(np.float16)


def _key(seed: int) -> str:
    return f"{seed:02x}" + "0" * 38


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.get("features", _key(1)) is None
    cache.put("features", _key(1), _array(1))
    kept = cache.get("features", _key(1))
    assert kept is not None and kept.dtype == np.float16 and np.array_equal(kept, _array(1))
    assert cache.get("pictures", _key(1)) is None


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:5], lambda d: b"", lambda d: d[:60] + b"\0" + d[61:]]
)
def test_an_entry_that_is_not_whole_is_none(tmp_path: Path, damage: object) -> None:
    cache = Cache(tmp_path)
    cache.put("features", _key(1), _array(1))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert cache.get("features", _key(1)) is None
    cache.put("features", _key(1), _array(1))
    assert cache.get("features", _key(1)) is not None


def test_a_full_cache_drops_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for seed in range(10):
        cache.put("features", _key(seed), _array(seed))
    size = cache.usage()["features"].bytes // 10
    for seed, file in enumerate(sorted(tmp_path.rglob("*.safetensors"))):
        os.utime(file, (seed, seed))  # used one after the other, long ago
    cache.get("features", _key(0))  # and this one just now
    small = Cache(tmp_path, limit=5 * size)
    assert small.trim() == 6 * size
    assert [seed for seed in range(10) if cache.get("features", _key(seed)) is not None] == [0, 7, 8, 9]
    assert small.trim() == 0


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file where the folder should be")
    cache = Cache(tmp_path)
    cache.put("features", _key(1), _array(1))
    assert cache.get("features", _key(1)) is None


def test_many_writers_and_readers_and_a_cleaner_never_see_a_wrong_array(tmp_path: Path) -> None:
    def work(seed: int) -> bool:
        cache = Cache(tmp_path, limit=20_000)
        cache.put("features", _key(seed % 4), _array(seed % 4))
        if seed % 7 == 0:
            cache.trim()
        if seed % 31 == 0:
            cache.clear()
        kept = cache.get("features", _key(seed % 4))
        return kept is None or np.array_equal(kept, _array(seed % 4))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(400)))


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from gripwire_trainer.cache import Cache
cache, array = Cache(Path(sys.argv[1])), np.full((500, 1000), 7, np.float32)
while True:
    cache.put("features", "ab" + "0" * 38, array)
    print(flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_entry_or_none(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()  # then it is somewhere within the next write
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    kept = Cache(tmp_path).get("features", "ab" + "0" * 38)
    assert kept is not None and (kept == 7).all()


def test_the_command_shows_and_clears(tmp_path: Path) -> None:
    from gripwire_trainer.cli import app

    Cache(tmp_path / "cache").put("features", _key(1), _array(1))
    shown = CliRunner().invoke(app, ["cache", "show", "--data", str(tmp_path)])
    assert shown.exit_code == 0 and "features" in shown.output and "1" in shown.output
    assert CliRunner().invoke(app, ["cache", "clear", "--data", str(tmp_path)]).exit_code == 0
    assert Cache(tmp_path / "cache").usage()["features"].entries == 0
