"""From a recording of a process' own system calls to the list of instants at which a kill can make a difference.

A kill matters only by what it leaves behind: bytes in a file, bytes at another program. So an instant is named by the
next call that would have changed one of the two, and calls are one boundary when the kill leaves the same behind:

    pages of a transaction   SQLite takes none of them before the last one, which says "commit", is whole
                             (sqlite.org/fileformat2.html, 4.1)
    evidence                 nothing names it before the journal does; another capture goes to a folder of its own
    questions                GET and SELECT change nothing at whoever is asked
    checkpoint               the pages stay in the log of writes until all of them are in the database
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.kills import Call, Point, Scope

WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate", "fsync", "fdatasync")
SENDS = ("sendto", "sendmsg", "sendmmsg", "sendfile", "splice", "shutdown")
EVERYTHING = Scope((*WRITES, *SENDS))
_TCP = re.compile(r"TCP:\[[\d.]+:(\d+)->[\d.]+:(\d+)\]")
_EFFECT = "prep-remediator attempt"  # at the head of the statement that ends a query, and of no other
_QUESTION, _NOBODY = "", "nobody"


class Unforeseen(AssertionError):
    """The process writes or sends by a call that no kill would be tried at."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a remediator writes and sends.

    listens   its own port
    servers   name of a server by its port
    journal   its file
    home      folder of its evidence
    log       where its output goes
    """

    listens: int
    servers: Mapping[int, str]
    journal: Path
    home: Path
    log: Path

    @property
    def wal(self) -> Path:
        return self.journal.with_name(f"{self.journal.name}-wal")


@dataclass(slots=True)
class _Names:
    """Names calls in their order: a transaction by its number, a request's later bytes after its first ones."""

    places: Places
    commits: int = 0
    asked: dict[str, str] = field(default_factory=dict)

    def of(self, call: Call) -> str:
        """The boundary that a call belongs to; `_QUESTION` for one that changes nothing that counts."""
        found = _TCP.match(call.on)
        if found:
            return self._sent(call, int(found[1]), int(found[2]))
        return self._written(call)

    def _written(self, call: Call) -> str:
        places, path = self.places, call.on
        if path == str(places.wal):
            number = self.commits + 1
            self.commits += call.name == "fdatasync"
            return f"commit {number}, {'its sync' if call.name == 'fdatasync' else 'its pages'}"
        if path == str(places.journal):
            return "checkpoint"
        if path.startswith(str(places.home / "evidence")):
            return "evidence" if call.name == "fsync" else _QUESTION
        # The log tells people, nothing reads it; the index beside the log of writes is made anew from it; a thread
        # wakes the loop through a pair of sockets.
        harmless = (str(places.log), f"{places.journal}-shm", "UNIX", "socket:", "anon_inode:", "pipe:")
        if path.startswith(harmless):
            return _QUESTION
        raise Unforeseen(f"{call.name} on {path}: {call.text[:80]}")

    def _sent(self, call: Call, here: int, there: int) -> str:
        if call.name == "shutdown":
            return _QUESTION
        if here == self.places.listens:
            return "webhook: its answer"
        server = self.places.servers.get(there, _NOBODY)
        if server == "target":
            if _EFFECT in call.text:
                self.asked[call.on] = "target: the effect"
            return self.asked.get(call.on, _QUESTION)
        method = re.match(r"([A-Z]+) /\S* HTTP", call.text)
        if method:
            self.asked[call.on] = _QUESTION if method[1] == "GET" else f"{server}: {method[1]}"
            return self.asked[call.on]
        if call.on not in self.asked:
            raise Unforeseen(f"{call.name} to {server}: {call.text[:80]}")
        return self.asked[call.on] and f"{self.asked[call.on]}, its body"


def names(calls: Sequence[Call], places: Places, commits: int = 0) -> list[str]:
    """For each call the name of its boundary, "" for one that is none. Raises Unforeseen.

    commits  transactions before the first of the calls
    """
    namer = _Names(places, commits)
    return [namer.of(call) for call in calls]


def points(calls: Sequence[Call], places: Places, main: int) -> dict[str, Point]:
    """Each boundary of a recording of EVERYTHING with the point that strikes at its first call, in their order.

    main  the process' id, which is its main thread's too
    """
    found: dict[str, Point] = {}
    for number, name in enumerate(names(calls, places)):
        if name and name not in found:
            found[name] = _point(calls[: number + 1], places, main)
    return found


def sync(places: Places, number: int, signal: str = "KILL") -> Point:
    """The sync of a transaction: SQLite calls it once for each, after its pages and before COMMIT answers."""
    return Point(Scope(("fdatasync",), places.wal.name), "fdatasync", number, signal)


def _point(calls: Sequence[Call], places: Places, main: int) -> Point:
    """The point at the last of these calls. Raises Unforeseen when counting would not find it again."""
    last = calls[-1]
    syncs = [number for number, call in enumerate(calls) if (call.name, call.on) == ("fdatasync", str(places.wal))]
    if syncs and syncs[-1] == len(calls) - 1:
        return sync(places, len(syncs))
    if last.thread == main:
        scope = Scope(EVERYTHING.calls, threads=False)
    elif last.on == str(places.wal):
        scope = Scope(EVERYTHING.calls, path=Path(last.on).name)
    else:
        scope = Scope((last.name,))
    since = calls[syncs[-1] + 1 :] if syncs else calls
    same = [each for each in since if each.name == last.name and (not scope.path or each.on == last.on)]
    if scope.path and {each.thread for each in same} != {last.thread}:
        raise Unforeseen(f"{last.name} on {last.on} by several threads")
    after = sync(places, len(syncs), "STOP") if syncs else None
    return Point(scope, last.name, sum(each.thread == last.thread for each in same), after=after)
