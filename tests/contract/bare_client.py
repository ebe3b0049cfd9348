"""A client of the gripwire wire written from docs/wire.md alone: it imports pyzmq, msgpack and nothing else
that is not Python's own. Usage:

    bare_client.py follow ENDPOINT TOPIC N         print N messages as JSON lines
    bare_client.py ask ENDPOINT KIND ARGS [REQ]    send one command, print the reply
    bare_client.py publish ENDPOINT TOPIC HEADER   wait for a reader, publish HEADER, wait until it was read
"""

import json
import os
import sys
import time
import uuid

import msgpack
import zmq

VERSION = 1
TIMEOUT_MS = 15_000


class Account:
    """What a reader lost, after the rules of the section on `seq` and `boot`."""

    def __init__(self):
        self.lost = self.restarts = 0
        self.boot, self.next = None, 0

    def is_news(self, header):
        """False for a repetition; counts what was lost before this message."""
        boot, seq = header["boot"], header["seq"]
        if boot != self.boot:
            self.restarts += self.boot is not None
        elif seq < self.next:
            return False
        else:
            self.lost += seq - self.next
        self.boot, self.next = boot, seq + 1
        return True


class Reader:
    """Follows one topic."""

    def __init__(self, context, endpoint, topic):
        self.refused, self.account = 0, Account()
        self.key = topic.encode() + b"\0"
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.SUBSCRIBE, self.key)  # all options come before connect
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def receive(self, timeout_ms=TIMEOUT_MS):
        """The next header and payload (None where there is none); None when nothing came in time."""
        deadline = time.monotonic() + timeout_ms / 1000
        while self.socket.poll(max(0, (deadline - time.monotonic()) * 1000)):
            parts = self.socket.recv_multipart()
            try:
                header = self.header(parts)
                if not self.account.is_news(header):
                    continue
            except (ValueError, KeyError, TypeError):  # not for us to understand: count it and go on
                self.refused += 1
                continue
            return header, parts[2] if len(parts) == 3 else None
        return None

    def header(self, parts):
        if len(parts) not in (2, 3) or parts[0] != self.key:
            raise ValueError("not a message of this topic")
        header = msgpack.unpackb(parts[1])
        if not isinstance(header, dict) or header.get("v") != VERSION:
            raise ValueError("another version, or not a message")
        return header


def ask(context, endpoint, kind, args, request_id=None, socket_type=zmq.DEALER):
    """Send one command; the whole reply."""
    with context.socket(socket_type) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        request = {"v": VERSION, "id": request_id or uuid.uuid4().hex, "kind": kind, "args": args}
        socket.send(msgpack.packb(request))
        if not socket.poll(TIMEOUT_MS):
            raise TimeoutError(f"{endpoint} did not answer")
        return msgpack.unpackb(socket.recv_multipart()[-1])


def publish(context, endpoint, topic, header, payload=None):
    """Bind as the topic's publisher, wait for one reader, send one message, wait until the reader leaves."""
    key = topic.encode() + b"\0"
    with context.socket(zmq.XPUB) as socket:
        socket.bind(endpoint)
        if not (socket.poll(TIMEOUT_MS) and socket.recv() == b"\x01" + key):
            raise TimeoutError("nobody subscribed")
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        filled = {
            "v": VERSION, "seq": 0, "boot": uuid.uuid4().hex, "host": host(), "t_capture": now,
            "t_publish": now, "t_wall": time.time_ns(), "valid": True, **header,
        }  # fmt: skip
        socket.send_multipart([key, msgpack.packb(filled)] + ([payload] if payload is not None else []))
        socket.poll(TIMEOUT_MS)  # the reader's unsubscription


def host():
    """The kernel's boot id: whether another process's CLOCK_MONOTONIC can be compared with ours."""
    path = "/proc/sys/kernel/random/boot_id"
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read().strip()


def main(verb, endpoint, name, rest, socket="DEALER"):
    context = zmq.Context()
    if verb == "follow":
        reader = Reader(context, endpoint, name)
        for _ in range(int(rest)):
            received = reader.receive()
            if received is None:
                sys.exit(f"nothing came from {endpoint}")
            header, payload = received
            account = {"lost": reader.account.lost, "restarts": reader.account.restarts}
            same_clock = header["host"] == host()
            age_ms = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - header["t_capture"]) / 1e6
            seen = {"header": header, "payload": payload.hex() if payload else None, **account}
            print(json.dumps(seen | {"age_ms": age_ms if same_clock else None}), flush=True)
        reader.socket.close()
    elif verb == "ask":
        print(json.dumps(ask(context, endpoint, name, json.loads(rest), None, getattr(zmq, socket))))
    elif verb == "publish":
        publish(context, endpoint, name, json.loads(rest))
    context.term()


if __name__ == "__main__":
    main(*sys.argv[1:])
