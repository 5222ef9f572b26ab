"""What a remediator says to others, named as it goes by, and a kill at exactly one of these words.

With the journal on PostgreSQL each look for due work is several messages, which move the numbers of all system calls
after them: a kill at a number strikes somewhere else. So proxies stand on the ways to the journal, the gate, Alertmanager
and back to the sender. They name what would change something at the other side, and kill the process before a byte of the
one that is meant has gone on. To whoever is told, that is a kill on entering the call.

Messages of PostgreSQL are read as its manual has them (55.7). A COMMIT is named by the events that it makes durable, or by
the tables; one after answers that tell of no changed row is of nothing, and has no name.
"""

from __future__ import annotations

import re
import signal
import struct
import threading
from collections import Counter, deque
from dataclasses import dataclass, field

from remediator.events import Kind
from tests.support.processes import Identity
from tests.support.tcp_proxy import TcpProxy, _Link

_SSL_REQUEST, _STARTUP = 80877103, 196608
_CHANGED = re.compile(rb"(?:INSERT 0|UPDATE|DELETE) [1-9]")
_CHANGE = re.compile(r"\s*(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)(?: SET (\w+))?")
_KINDS = {kind: struct.pack(">I", len(kind)) + kind.encode() for kind in Kind}


class Wires:
    """All ways of one remediator. `begin` before each trial, `end` after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = Counter[str]()
        self._names: list[str] = []
        self._at = ""
        self._process: Identity | None = None

    def begin(self, process: Identity, at: str = "") -> None:
        """From now on name what goes by; kill the process at the one of this name, "" for none."""
        with self._lock:
            self._seen.clear()
            self._names.clear()
            self._at, self._process = at, process

    def end(self) -> list[str]:
        """What went by, in order; with a kill the last one did not."""
        with self._lock:
            self._at, self._process = "", None
            return list(self._names)

    def goes(self, name: str) -> bool:
        """Called by the proxies. False: the process is dead, and this is not sent on."""
        with self._lock:
            if self._process is None:
                return True
            self._seen[name] += 1
            number = self._seen[name]
            self._names.append(f"{name} {number}" if number > 1 else name)
            if self._names[-1] != self._at:
                return True
            self._process.send(signal.SIGKILL)
            self._process = None
            return False


class HttpWire(TcpProxy):
    """The way to a server whose POSTs change something, or (`answers`) back to one who waits for an answer."""

    def __init__(self, wires: Wires, upstream: int, word: str, *, answers: bool = False) -> None:
        super().__init__(upstream)
        self._wires, self._word, self._answers = wires, word, answers

    async def pass_through(self, link: _Link, where: str, piece: bytes, seen: bytes) -> bool:
        """See Wires.goes."""
        posts = where == "request" and piece.startswith((b"POST ", b"PUT ", b"DELETE "))
        answers = where == "answer" and piece.startswith(b"HTTP/1.1 ")
        if (answers if self._answers else posts) and not self._wires.goes(self._word):
            return False
        return await super().pass_through(link, where, piece, seen)


class JournalWire(TcpProxy):
    """The way to the journal's PostgreSQL."""

    def __init__(self, wires: Wires, upstream: int) -> None:
        super().__init__(upstream)
        self._wires = wires
        self._sessions: dict[_Link, _Session] = {}

    async def pass_through(self, link: _Link, where: str, piece: bytes, seen: bytes) -> bool:
        """See Wires.goes."""
        session = self._sessions.setdefault(link, _Session())
        if where == "answer":
            session.answered(piece)
        elif any(not self._wires.goes(name) for name in session.asked(piece)):
            return False
        return await super().pass_through(link, where, piece, seen)


@dataclass
class _Session:
    """One connection, both directions: which statements are under way, and what they have changed so far."""

    typed: bool = False  # the first packets have no type byte
    plain: bool = True  # False: the answer to a request for TLS is due, a single byte
    front: bytes = b""
    back: bytes = b""
    statements: dict[bytes, str] = field(default_factory=dict)
    portals: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    under_way: deque[tuple[str, bytes]] = field(default_factory=deque)
    changes: dict[str, None] = field(default_factory=dict)  # in order, each once

    def asked(self, piece: bytes) -> list[str]:
        """Names of the commits in what the client says."""
        self.front += piece
        named: list[str] = []
        while not self.typed and len(self.front) >= 8:
            size, code = struct.unpack(">II", self.front[:8])
            if len(self.front) < size:
                return []
            self.front = self.front[size:]
            self.typed, self.plain = code == _STARTUP, code != _SSL_REQUEST
        if self.typed:
            messages, self.front = _split(self.front)
            for kind, body in messages:
                named += self._say(kind, body)
        return named

    def _say(self, kind: bytes, body: bytes) -> list[str]:
        if kind == b"P":
            name, text = body.split(b"\0")[:2]
            self.statements[name] = text.decode()
        elif kind == b"B":
            portal, name, rest = body.split(b"\0", 2)
            self.portals[portal] = self.statements.get(name, ""), rest
        elif kind == b"E":
            self.under_way.append(self.portals.get(body.split(b"\0")[0], ("", b"")))
        elif kind == b"Q":
            sql = body.rstrip(b"\0").decode()
            self.under_way.append((sql, b""))
            if sql.startswith(("BEGIN", "ROLLBACK")):
                self.changes.clear()
            elif sql.startswith("COMMIT"):
                return self._committed()
        return []

    def _committed(self) -> list[str]:
        changes = list(self.changes)
        self.changes.clear()
        events = [word for word in changes if word in _KINDS]
        return [f"commit {', '.join(events or changes)}"] if changes else []

    def answered(self, piece: bytes) -> None:
        """What the server says: which of the statements under way have changed a row."""
        self.back += piece
        if not self.plain and self.back:
            self.back, self.plain = self.back[1:], True
        messages, self.back = _split(self.back)
        for kind, body in messages:
            if kind == b"Z":
                self.under_way.clear()
            elif kind in (b"C", b"I", b"s") and self.under_way:
                sql, values = self.under_way.popleft()
                if kind == b"C" and _CHANGED.match(body):
                    self.changes |= dict.fromkeys(_words(sql, values))


def _split(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Whole messages (type, body) and what is left."""
    found = []
    while len(data) >= 5:
        size = struct.unpack(">I", data[1:5])[0]
        if len(data) < 1 + size:
            break
        found.append((data[:1], data[5 : 1 + size]))
        data = data[1 + size :]
    return found, data


def _words(sql: str, values: bytes) -> list[str]:
    """A statement that changes something: the kinds of its events, or the table and the first column that is set."""
    match = _CHANGE.match(sql)
    if match is None:
        return []
    if match[1] == "events":
        return [kind for kind, word in _KINDS.items() if word in values] or ["events"]
    return [f"{match[1]} {match[2]}" if match[2] else match[1]]
