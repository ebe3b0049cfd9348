"""Save an episode in FOLDER again and again, each time killed one file system call later, until it is saved.

A process of its own, with one thread: it forks. The case (files before, files written) is FOLDER/case.json;
what was found on the disk after each kill, and after the recovery, is printed as JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path

from gripwire_recorder import store
from gripwire_recorder.store import Staging, Store

FOLDER, EXCHANGE = Path(sys.argv[1]), sys.argv[2] == "exchange"
CASE = json.loads((FOLDER / "case.json").read_text())


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def save_an_episode(dataset):
    staging = Staging(dataset)
    staging.prepare()
    write(staging.path, CASE["written"])
    staging.publish()


def killed_at(step, dataset):
    """Save in a child that kills itself at its ``step``-th call on the file system; whether it did."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(call):
            def wrapper(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapper

        os.fsync = lambda _: None  # the kernel lives on, so that nothing is lost without it but time
        for name in ("link", "rename", "fsync", "mkdir", "unlink", "rmdir", "open"):
            setattr(os, name, counted(getattr(os, name)))
        if not EXCHANGE:
            store.ctypes.CDLL = lambda *_, **__: object()
        save_an_episode(dataset)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


steps, killed = [], True
while killed:
    folder = FOLDER / str(len(steps))
    write(folder / "grasps", CASE["before"])
    killed = killed_at(len(steps), folder / "grasps")
    found = read(folder / "grasps")
    kept = Store(folder)
    kept.recover()
    kept.close()
    beside = sorted(path.name for path in folder.iterdir())
    steps.append({"killed": found, "recovered": read(folder / "grasps"), "beside": beside})
json.dump(steps, sys.stdout)
