"""Two hosts on one machine: namespaces with networks, clocks and boot ids of their own, and a cable between.

Run as `unshare --user --map-root-user --net --mount python two_hosts.py CUT_S` it is host A, which publishes
rewards and takes commands, and starts host B, which reads and asks. For each way to cut the cable it prints
one JSON line about what both saw.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

A, B, BASE = "10.77.0.1", "10.77.0.2", 20000
NOWHERE = "02:00:00:00:00:99"
HZ = 100.0
HOURS_APART_S = 50_000
WAIT_S = 60.0


def sh(command: str) -> None:
    subprocess.run(command, shell=True, check=True)


# --- host A -------------------------------------------------------------------------------------------


class Publishing:
    """Rewards at 100 Hz, and when each was published; commands are answered."""

    def __init__(self) -> None:
        from gripwire import control
        from gripwire.bus import Publisher
        from gripwire.messages import Done, NewEpisode, Reward
        from gripwire.topics import Topics

        topics = Topics(BASE, bind=A)
        self.publisher = Publisher[Reward](topics["reward"])
        self.server = control.Server(
            topics.control_binds("reward"), {NewEpisode: lambda _: Done(text="begun")}
        )
        self.times: list[float] = []
        self._reward = Reward
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            due += 1 / HZ
            self.server.poll(max(0.0, due - time.monotonic()))
            while (left := due - time.monotonic()) > 0:
                self._end.wait(left)
            self.times.append(time.monotonic())
            self.publisher.publish(self._reward(valid=True, frame_seq=len(self.times) - 1, decision=True))

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.publisher.close()
        self.server.close()


class Other:
    """Host B, told what to do line by line."""

    def __init__(self) -> None:
        alone = ["unshare", "--net", "--mount", "--time", "--monotonic", str(HOURS_APART_S), "--fork"]
        command = [*alone, "--kill-child", sys.executable, __file__, "B"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._line()["pid"]

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "host B has ended"
        return json.loads(line)

    def tell(self, what: str) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._line()


def lay_cable(other: Other) -> None:
    sh("ip link set lo up && ip link add cable type veth peer name elbac")
    sh(f"ip link set elbac netns {other.pid}")
    sh(f"ip addr add {A}/24 dev cable && ip link set cable up")
    other.tell("plug")


CUTS = {
    # The other side is gone, and the kernel knows.
    "link down": ("ip link set cable down", "ip link set cable up", False),
    # What is sent goes nowhere, and nobody is told: as behind a switch that lost its power.
    "packets dropped": (
        f"ip neigh replace {B} lladdr {NOWHERE} dev cable nud permanent", f"ip neigh del {B} dev cable", True,
    ),
}  # fmt: skip


def cut_and_heal(name: str, cut_s: float, here: Publishing, other: Other) -> dict[str, Any]:
    down, up, both = CUTS[name]
    sh(down)
    if both:
        other.tell("drop")
    cut = time.monotonic()
    other.tell("silent")
    asked = other.tell("ask")
    threading.Event().wait(max(0.0, cut + cut_s - time.monotonic()))
    sh(up)
    if both:
        other.tell("heal")
    healed = time.monotonic()
    back = other.tell("back")
    answered = other.tell("ask")
    healing_s = time.monotonic() - healed - answered["seconds"]
    # Since then all is well: what is published now arrives.
    sent = len(here.times)
    seen = other.tell(f"upto {sent}")
    return {
        "cut": name, "cut_s": healed - cut, "asked": asked, "answered": answered, "healing_s": healing_s,
        "oldest_s": max(0.0, healed - here.times[back["first"]]), "memory_mib": memory_mib(), **seen,
    }  # fmt: skip


def memory_mib() -> float:
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def host_a(cut_s: float) -> None:
    other, here = Other(), None
    try:
        lay_cable(other)
        here = Publishing()
        before, first = other.tell("upto 100"), memory_mib()
        here_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        print(json.dumps({"hosts": other.tell("who") | {"here": here_id}, **before}), flush=True)
        for name in CUTS:
            found = cut_and_heal(name, cut_s, here, other)
            print(json.dumps(found | {"growth_mib": memory_mib() - first}), flush=True)
    finally:
        if here:
            here.close()
        other.process.kill()


# --- host B -------------------------------------------------------------------------------------------


class Reading:
    """Counts what comes, in a thread, and asks."""

    def __init__(self) -> None:
        from gripwire.bus import Queued
        from gripwire.control import Client
        from gripwire.messages import Reward
        from gripwire.topics import Topics

        topics = Topics(BASE, hosts={"default": A})
        self.reader = Queued(topics["reward"], Reward)
        self.client = Client(topics.control("reward"), "reward")
        self.first = self.last = self.after_silence = -1
        self.greatest_age_ms, self._heard = 0.0, time.monotonic()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            received = self.reader.receive(0.2)
            with self._changed:
                if received is not None:
                    self.last, self._heard = received.message.seq, time.monotonic()
                    self.first = self.first if self.first >= 0 else self.last
                    self.after_silence = self.after_silence if self.after_silence >= 0 else self.last
                    self.greatest_age_ms = max(self.greatest_age_ms, received.age_ms())
                self._changed.notify_all()

    def _until(self, what: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(what, WAIT_S), "it does not come back"

    def silent(self) -> dict[str, Any]:
        self._until(lambda: time.monotonic() - self._heard > 0.5)
        self.after_silence = -1
        return {}

    def back(self) -> dict[str, Any]:
        self._until(lambda: self.after_silence >= 0)
        return {"first": self.after_silence}

    def upto(self, seq: int) -> dict[str, Any]:
        self._until(lambda: self.last >= seq)
        with self._changed:
            reader = self.reader
            return {"received": reader.received, "lost": reader.gaps.lost, "refused": reader.refused,
                    "span": self.last - self.first + 1, "restarts": reader.gaps.restarts,
                    "greatest_age_ms": self.greatest_age_ms}  # fmt: skip

    def ask(self) -> dict[str, Any]:
        from gripwire.errors import UserError
        from gripwire.messages import NewEpisode

        began = time.monotonic()
        try:
            text = self.client.ask(NewEpisode(), timeout_s=2.0).text
        except UserError as e:
            text = f"refused: {e}"
        return {"text": text, "seconds": time.monotonic() - began}


def host_b() -> None:
    own = Path("/tmp") / f"boot_id.{os.getpid()}"
    own.write_text("00000000-0000-4000-8000-00000000000b\n")
    sh(f"mount --bind {own} /proc/sys/kernel/random/boot_id")
    own.unlink()
    print(json.dumps({"pid": os.getpid()}), flush=True)
    reading: Reading | None = None
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        match line.split():
            case ["plug"]:
                sh(f"ip link set lo up && ip addr add {B}/24 dev elbac && ip link set elbac up")
                reading = Reading()
            case ["drop"]:
                sh(f"ip neigh replace {A} lladdr {NOWHERE} dev elbac nud permanent")
            case ["heal"]:
                sh(f"ip neigh del {A} dev elbac")
            case ["who"]:
                from gripwire import clock

                answer = {"there": clock.host_id(), "clock_s": time.monotonic()}
            case ["upto", seq]:
                assert reading
                answer = reading.upto(int(seq))
            case [what] if reading:
                answer = getattr(reading, what)()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    assert shutil.which("ip"), "the command `ip` (iproute2) is needed"
    host_b() if sys.argv[1] == "B" else host_a(float(sys.argv[1]))
