"""What a process has once, also where several threads are the first to want it."""

import subprocess
import sys

TOGETHER = """
import threading, time, uuid, zmq

def slow(made):
    def make(*given):
        time.sleep(0.05)
        return made(*given)
    return make

uuid.uuid4 = slow(uuid.uuid4)
from gripwire import clock, sockets
zmq.Context = slow(zmq.Context)

found, start = [], threading.Barrier(8)

def want():
    start.wait()
    found.append((clock.boot_id(), sockets.context()))

threads = [threading.Thread(target=want) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len({boot for boot, _ in found}), len({id(context) for _, context in found}), len(found))
"""


def test_threads_that_are_the_first_together_share_the_process_id_and_the_context() -> None:
    done = subprocess.run([sys.executable, "-c", TOGETHER], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1 1 8\n", done.stdout + done.stderr


def test_a_forked_child_has_an_id_of_its_own() -> None:
    code = """
import os
from gripwire import clock
mine, (read, write) = clock.boot_id(), os.pipe()
if not os.fork():
    os.write(write, clock.boot_id().encode())
    os._exit(0)
print(os.read(read, 100).decode() != mine == clock.boot_id())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr
