"""The graphics processor: needed by nobody, worth having for training."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from gripwire.doctor.finding import Finding, Here

_QUERY = "name,driver_version,memory.total,memory.free,temperature.gpu"
_TORCH = "import json, torch as t; print(json.dumps([t.__version__, t.version.cuda, t.cuda.is_available()]))"
_ENGINE = "import json, onnxruntime as o; print(json.dumps([o.__version__, o.get_available_providers()]))"
ENOUGH_FREE_MB = 2000


def check(here: Here) -> Iterator[Finding]:
    """What the driver says, and whether what is installed here can use it."""
    tool = shutil.which("nvidia-smi")
    if not tool and not here.names("proc", "driver", "nvidia"):
        yield Finding(
            "gpu", "ok", "no NVIDIA GPU: training runs on the CPU, in minutes; the reward needs none"
        )
        return
    if not tool:
        yield Finding(
            "gpu", "warn", "an NVIDIA GPU is there, but not its tools, as in a container without the toolkit",
            "install NVIDIA's container toolkit and use the `gpu` profile, or the driver's own package",
        )  # fmt: skip
        return
    code, out = run([tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"], 15)
    yield from cards(code, out)
    if code == 0:
        yield from engines()


def cards(code: int, out: str) -> Iterator[Finding]:
    """What nvidia-smi said. Pure."""
    if code:
        said = out.strip().splitlines()[-1] if out.strip() else f"exit code {code}"
        yield Finding(
            "gpu", "fail", f"nvidia-smi does not work: {said}",
            "the driver and its library differ, often after an update: start the machine anew",
        )  # fmt: skip
        return
    for line in out.strip().splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 5:
            continue
        name, driver, total, free, celsius = fields
        text = f"{name}, driver {driver}, {free} of {total} MB free, {celsius} °C"
        short = free.isdigit() and int(free) < ENOUGH_FREE_MB
        remedy = "`nvidia-smi` shows who has the memory; training takes about 1 GB" if short else ""
        yield Finding("gpu", "warn" if short else "ok", text, remedy)


def engines() -> Iterator[Finding]:
    """Ask torch and onnxruntime in processes of their own: they take seconds, and may crash."""
    if find_spec("torch"):
        code, out = run([sys.executable, "-c", _TORCH], 120)
        version, cuda, usable = _last(code, out, 3)
        if not usable:
            yield Finding(
                "gpu", "warn", f"torch {version or '?'} ({f'CUDA {cuda}' if cuda else 'no CUDA'}) "
                "cannot use the GPU: training runs on the CPU",
                "install torch for CUDA, or a driver that is new enough for it",
            )  # fmt: skip
        else:
            yield Finding("gpu", "ok", f"torch {version} uses it (CUDA {cuda})")
    if find_spec("onnxruntime"):
        code, out = run([sys.executable, "-c", _ENGINE], 60)
        version, providers = _last(code, out, 2)
        used = "CUDAExecutionProvider" in (providers or [])
        text = f"onnxruntime {version} " + (
            "can use it" if used else "scores on the CPU, which is fast enough for one camera"
        )
        yield Finding("gpu", "ok", text)


def _last(code: int, out: str, count: int) -> list[Any]:
    try:
        return list(json.loads(out.strip().splitlines()[-1])) if code == 0 else [None] * count
    except (ValueError, IndexError):
        return [None] * count


def run(command: list[str], timeout_s: float) -> tuple[int, str]:
    """Exit code and what was said; -1 when it took too long or cannot be started."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {timeout_s:g} s"
    except OSError as e:
        return -1, e.strerror or str(e)
    return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr
