"""Commands: one typed request, one typed reply, and an id that makes a repeated request harmless.

On the wire (docs/wire.md) a request is one msgpack map ``{v, id, kind, args, host, expires}`` sent by a
DEALER or REQ socket to the service's ROUTER; the reply is ``{v, id, ok, error, result}``.
"""

import os
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq
from pydantic import ValidationError

from gripwire import clock, sockets, wire
from gripwire.errors import UserError
from gripwire.limits import Limits
from gripwire.messages import COMMANDS, SCHEMA_VERSION, Command, Reply
from gripwire.topics import Endpoint

MAX_BYTES = 1024 * 1024
"""Of a reply."""
LONGEST_REQUEST = 64 * 1024
"""Bytes of a request: refusing a megabyte of wrong values one by one would hold the loop up for a second."""
_WAITING = 100
"""Requests of one connection that wait to be read; of more, the sender's own machine keeps the rest."""
_AT_ONCE_S = 0.002
"""For so long requests are served before the loop of the service goes on: a flood must not hold it up."""
_PARTS = 4
"""Of a request: the connection, what a REQ socket and a proxy put before it, the request itself."""
LONGEST_ERROR = 2000
"""Characters: a refusal quotes what was asked, which may be a megabyte, and is remembered."""
_SUSPICIOUS_S = 0.5
"""After such a silence a client looks whether it is let in at all."""
_REMEMBERED = 512
_MAX_ID = 64


class Server:
    """A service's control endpoint, polled from the service's own loop, so handlers need no locks.

    ``handlers`` maps a command class to a function that takes the command and returns its reply. A handler
    reports refusal with ``UserError``; the asker reads its text. Where the endpoint has keys, a machine's
    commands are those of its roles.
    """

    def __init__(self, endpoint: str, handlers: dict[type[Command], Callable[[Any], Reply]]) -> None:
        self.served = 0
        self.refused = 0
        self._handlers = {command.__name__: handler for command, handler in handlers.items()}
        self._keys = endpoint.keys if isinstance(endpoint, Endpoint) else None
        self._limits = Limits()
        self._answered: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self.socket = sockets.context().socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.MAXMSGSIZE, LONGEST_REQUEST)
        self.socket.setsockopt(zmq.RCVHWM, _WAITING)
        self.socket.setsockopt(zmq.SNDHWM, 1000)
        sockets.bind(self.socket, endpoint, "the control endpoint")

    def poll(self, timeout_s: float = 0.0) -> int:
        """Serve what is waiting, for at most ``timeout_s`` before the first; the number served."""
        served = 0
        began = time.monotonic()
        deadline, enough = began + timeout_s, began + max(timeout_s, _AT_ONCE_S)
        while self.socket.poll(sockets.milliseconds(deadline - time.monotonic())):
            self._serve(self.socket.recv_multipart(copy=False))
            served, deadline = served + 1, 0.0
            if time.monotonic() >= enough:
                break
        return served

    def _serve(self, frames: list[zmq.Frame]) -> None:
        if len(frames) > _PARTS:
            self.refused += 1  # not answered: all of it would have to be sent back
            return
        parts = [frame.bytes for frame in frames]
        # A REQ socket puts an empty delimiter before its body, a DEALER need not: answer in kind.
        envelope, body = parts[:-1], parts[-1]
        machine = str(frames[-1].get("User-Id")) if self._keys else ""
        self.socket.send_multipart([*envelope, self._answer(body, machine, envelope[0])])

    def _answer(self, body: bytes, machine: str, connection: bytes) -> bytes:
        """``machine``: the public key of who asks, where there are keys; it may have many connections."""
        try:
            request = wire.unpack_map(body)
        except wire.WireError as e:
            return self._refuse("", f"not a request: {e}")
        request_id = request.get("id", "")
        if not isinstance(request_id, str) or len(request_id) > _MAX_ID:
            return self._refuse("", f"`id` must be a string of at most {_MAX_ID} characters")
        kind = str(request.get("kind"))[:_MAX_ID]
        if barred := self._barred(kind, machine):
            return self._refuse(request_id, barred)
        # By the id, not by the connection: a client that timed out asks again from a new socket.
        if request_id and (machine, request_id) in self._answered:
            return self._answered[machine, request_id]
        if crowded := self._crowded(kind, machine.encode() or connection):
            return self._refuse(request_id, crowded)
        answer = self._handle(request, request_id, kind)
        if request_id and not COMMANDS.get(kind, Command).repeatable:
            self._answered[machine, request_id] = answer
            while len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        return answer

    def _barred(self, kind: str, machine: str) -> str:
        """Why this machine may not ask for that; empty if it may."""
        if not self._keys or kind not in self._handlers:
            return ""
        role, roles = COMMANDS[kind].role, self._keys.roles(machine)
        if role in roles:
            return ""
        name = self._keys.name(machine)
        if not roles:
            return f"{kind} is refused: this machine's key was revoked there, or is not known"
        wanted = " ".join(f"--role {one}" for one in (*roles, role))
        return (
            f"{kind} needs the role `{role}`, and {name} has only {', '.join(roles)}: "
            f"`gripwire keys allow {name} {wanted}` on the machine of that service gives it"
        )

    def _crowded(self, kind: str, peer: bytes) -> str:
        """Why this peer must wait before it asks for that again; empty if it need not."""
        command = COMMANDS.get(kind, Command)
        if self._limits.allow(peer, command.__name__, command.rate_hz, time.monotonic()):
            return ""
        return (
            f"{kind[:40]} came more than {command.rate_hz:g} times a second from one peer, which is the "
            "limit: ask less often"
        )

    def _refuse(self, request_id: str, error: str) -> bytes:
        self.refused += 1
        return _reply(request_id, error=error[:LONGEST_ERROR])

    def _handle(self, request: dict[str, Any], request_id: str, kind: str) -> bytes:
        try:
            if _expired(request):
                raise UserError(f"{kind} came too late: whoever asked has given up waiting")
            if request.get("v") != SCHEMA_VERSION:
                raise UserError(f"schema version {request.get('v')!r}, this service speaks {SCHEMA_VERSION}")
            if kind not in self._handlers:
                raise UserError(f"no command `{kind}` here; there are: {', '.join(sorted(self._handlers))}")
            command = COMMANDS[kind].model_validate(request.get("args") or {})
            result = self._handlers[kind](command)
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            return self._refuse(request_id, f"{kind}: `{where}`: {first['msg']}")
        except UserError as e:
            return self._refuse(request_id, str(e))
        self.served += 1
        return _reply(request_id, result=result)

    def close(self) -> None:
        self.socket.close()


def _expired(request: dict[str, Any]) -> bool:
    """Whether nobody waits for the answer any more: a stale goal must not move the arm."""
    expires = request.get("expires")
    return (
        isinstance(expires, int) and request.get("host") == clock.host_id() and clock.monotonic_ns() > expires
    )


def _reply(request_id: str, result: Reply | None = None, error: str = "") -> bytes:
    body = result.model_dump() if result is not None else {}
    message = {"v": SCHEMA_VERSION, "id": request_id, "ok": not error, "error": error, "result": body}
    return wire.pack_map(message)


def process_name() -> str:
    """What this process calls itself where it is not told otherwise: `train-4711`."""
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path("python")
    name = script.parent.name if script.name == "__main__.py" else script.stem
    return f"{name[:80]}-{os.getpid()}"


class Client:
    """Asks one service. Keeps its connection; safe to use from several threads, one request at a time."""

    def __init__(self, endpoint: Endpoint, service: str) -> None:
        self._endpoint, self._service = endpoint, service
        self._lock = threading.Lock()
        self._socket: zmq.Socket[bytes] | None = None

    def ask(self, command: Command, timeout_s: float = 5.0) -> Any:
        """The typed reply (``command.expects``). An empty ``by`` becomes this process's name.

        Raises:
            UserError: the service refused, in its words, or did not answer in time.
        """
        request_id = uuid.uuid4().hex
        kind = type(command).__name__
        arguments = command.model_dump()
        if command.signed and not arguments["by"]:  # two programs that say nothing are still two
            arguments["by"] = process_name()
        request = {"v": SCHEMA_VERSION, "id": request_id, "kind": kind, "args": arguments}
        request |= {"host": clock.host_id(), "expires": clock.monotonic_ns() + int(timeout_s * 1e9)}
        body = wire.pack_map(request)
        with self._lock:
            answer = self._exchange(request_id, kind, body, timeout_s)
        if answer is None:
            raise UserError(
                f"the {self._service} service did not answer `{kind}` within {timeout_s:g} s at "
                f"{self._endpoint}: is it running? `gripwire topics` shows what is alive, "
                f"`gripwire {self._service.split('/')[0]} run` starts it"
            )
        if not answer.get("ok"):
            raise UserError(str(answer.get("error") or "refused without a reason"))
        return command.expects.model_validate(answer.get("result") or {})

    def _exchange(self, request_id: str, kind: str, body: bytes, timeout_s: float) -> dict[str, Any] | None:
        if self._socket is None:
            self._socket = sockets.context().socket(zmq.DEALER)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
            self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
            sockets.connect(self._socket, self._endpoint)
        self._socket.send(body)
        deadline = time.monotonic() + timeout_s
        suspicious = min(deadline, time.monotonic() + _SUSPICIOUS_S)
        while True:
            if self._socket.poll(sockets.milliseconds(suspicious - time.monotonic())):
                answer = self._socket.recv_multipart()[-1]
                with suppress(wire.WireError):  # something else listens there: as good as no answer
                    reply = wire.unpack_map(answer)
                    if reply.get("id") == request_id:  # else: a late reply to a question that had timed out
                        return reply
            elif barred := sockets.why_barred(self._endpoint, zmq.DEALER):
                self._forget()
                raise UserError(f"the {self._service} service was not asked for `{kind}`: {barred}")
            elif suspicious < deadline:
                suspicious = deadline
            else:
                # What is still queued in this socket would reach a service that starts later: forget it.
                self._forget()
                return None

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        with self._lock:
            self._forget()


def request(endpoint: Endpoint, service: str, command: Command, timeout_s: float = 5.0) -> Any:
    """One question over a connection of its own; see :meth:`Client.ask`."""
    client = Client(endpoint, service)
    try:
        return client.ask(command, timeout_s)
    finally:
        client.close()
