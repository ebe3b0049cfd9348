"""From `gripwire up --profile sim`, and from `docker compose --profile sim up` with the images built, to the
first valid reward. One JSON line per figure.

The data folder has a bundle that served before, as anybody's has from the second day on. Containers are
measured where an engine answers and the images are there (`docker compose --profile sim build`). With
`--cold-disk` (root, Linux) nothing is in the page cache before each start, as after a reboot.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import default_bundle

from gripwire import settings
from gripwire.bus import Latest
from gripwire.messages import Reward

ROOT = Path(__file__).parents[1]
BASE = 26200
RUNS = 3
PROJECT = "gripwire-bench"


def _first_valid_s(data: Path, began: float, timeout_s: float = 120) -> float:
    topics = settings.load(flags={"data": data, "port_base": BASE}, env={}).topics
    reader, seen = Latest(topics["reward"], Reward), None
    try:
        while not (seen and seen.message.valid):
            if time.monotonic() - began > timeout_s:
                raise SystemExit(f"no valid reward within {timeout_s:.0f} s; last: {seen and seen.message}")
            seen = reader.wait(1.0, after=seen) or seen
        return time.monotonic() - began
    finally:
        reader.close()


@contextmanager
def _native(data: Path) -> Iterator[None]:
    up = subprocess.Popen(
        [sys.executable, "-m", "gripwire", "up", "--profile", "sim", "--data", str(data),
         "--port-base", str(BASE)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=60)


@contextmanager
def _compose(data: Path) -> Iterator[None]:
    owner = {"HOST_UID": str(os.getuid() or 1000), "HOST_GID": str(os.getgid() or 1000)}
    ours = {"DATA": str(data), "PORTS": str(BASE // 100)} | owner
    command = ["docker", "compose", "--project-name", PROJECT, "--profile", "sim"]

    def run(*arguments: str) -> None:
        subprocess.run(
            [*command, *arguments], cwd=ROOT, env=os.environ | ours, check=True, capture_output=True
        )

    try:
        run("up", "--detach", "--no-build")
        yield
    finally:
        run("down", "--volumes")


def _prepare(data: Path) -> None:
    """A bundle that serves."""
    bundle = default_bundle.make(data / "bundles", seed=1)
    with _native(data):
        until = time.monotonic() + 120
        swap = [sys.executable, "-m", "gripwire", "reward", "swap", bundle.id, "--data", str(data)]
        while subprocess.run([*swap, "--port-base", str(BASE)], capture_output=True).returncode:
            if time.monotonic() > until:
                raise SystemExit("the reward service does not take the bundle")
        _first_valid_s(data, time.monotonic())


def _tell(metric: str, seconds: list[float], asked_s: float) -> None:
    print(
        json.dumps({
            "metric": metric, "median_s": round(statistics.median(seconds), 1),
            "worst_s": round(max(seconds), 1), "runs": len(seconds), "asked_s": asked_s,
        }),
        flush=True,
    )  # fmt: skip


def _measure(start: Callable[[Path], object], data: Path, cold_disk: bool) -> list[float]:
    seconds = []
    for _ in range(RUNS):
        if cold_disk:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3")
        began = time.monotonic()
        with start(data):  # type: ignore[attr-defined]
            seconds.append(_first_valid_s(data, began))
    return seconds


def _engine_and_images() -> bool:
    image = f"gripwire/recorder:{os.environ.get('TAG', 'latest')}"
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cold-disk", action="store_true")
    cold_disk = parser.parse_args().cold_disk
    disk = "_cold_disk" if cold_disk else ""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        _prepare(data)
        _tell(f"cold_start_native{disk}", _measure(_native, data, cold_disk), 20)
        if not _engine_and_images():
            print(
                json.dumps(
                    {"metric": "cold_start_compose", "skipped": "no engine, or no images of TAG there"}
                )
            )
            return
        for path in (data, *data.rglob("*")):
            if os.getuid() == 0 and not path.is_symlink():
                os.chown(path, 1000, 1000)
        _tell(f"cold_start_compose{disk}", _measure(_compose, data, cold_disk), 40)


if __name__ == "__main__":
    main()
