"""The Docker gate: HAProxy in front of the engine's socket, written as configuration text.

In: the names of the containers that may be restarted and started, whether things may be deleted, the cooldown,
where to listen, where the engine's socket is. Out: haproxy.cfg. The gate must let nothing through but a closed list
of reads and these effects: `restart` and `start` of exactly these names, each only with an attempt id it has never
seen, before its `start_by`, and not twice on one container within the cooldown; and, only where the settings switch
`prune` on, DELETE of one image or container by its full id, never by force, never with volumes, never with parents,
once for each id, a bounded number for each attempt and day. It never repeats a call, and it remembers what it let
through, so that it can be asked afterwards.

Pure: it reads and writes no file. `prep-remediator gate:config` prints it from the remediator's own settings,
so that the two lists cannot differ. The words are those of the HAProxy 2.6 configuration manual (4.2, 7.3, 11);
each rule is tried on the real program in tests/integration/test_gate.py.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from remediator.errors import ConfigError, Fault
from remediator.settings import Settings

COOLDOWN = 60
"""Seconds between two restarts, or two starts, of one container, whoever asks: the floor below every runbook's."""
PRUNE_ITEMS = 20
"""Deletions of one attempt."""
PRUNE_DAY = 200
"""Deletions within REMEMBERED seconds, of all attempts: more is no cleaning up."""
AHEAD = 60
"""Seconds that `X-Start-By` may lie ahead: a call that could wait longer would not be fenced."""
REMEMBERED = 24 * 3600
"""Seconds that an attempt is remembered for; a doubt is settled within minutes or by people."""
RESTART_TIMEOUT = 120
"""Seconds that the engine may take for an effect: a restart waits out the container's stop_grace_period first."""
READ_TIMEOUT = 30
"""Seconds of silence after which a read is given up."""

# What the engine takes as a container's name (moby, daemon/names): no slash, no percent sign, no leading dot.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")
_BIND = re.compile(r"[a-zA-Z0-9.:*\[\]-]*:([0-9]{1,5}|\{port\})")
_SOCKET = re.compile(r"/[a-zA-Z0-9_./-]{1,100}")

# GET only, with or without the API's version. Ids and names hold no slash and no percent sign, so none of
# them leads out of its place.
_READS = (
    r"^(/v1\.[0-9]{1,3})?/(_ping|version|info|events|images/json|system/df|containers/json)$",
    r"^(/v1\.[0-9]{1,3})?/containers/[a-zA-Z0-9][a-zA-Z0-9_.-]*/(json|logs|stats)$",
    r"^(/v1\.[0-9]{1,3})?/exec/[0-9a-f]{64}/json$",
)
# Of one image by its full id; asked for only where things may be deleted.
_READ_IMAGE = r"^(/v1\.[0-9]{1,3})?/images/sha256:[0-9a-f]{64}/json$"
_DELETES = r"^/v1\.41/(images/sha256:[0-9a-f]{64}|containers/[0-9a-f]{64})$"


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate is made from.

    containers   full names of the containers that may be restarted and started; none = nothing may
    prune        may images and containers be deleted by their ids?
    cooldown     seconds, at least 1
    bind         HAProxy's address to listen on, `host:port`; an empty host or * is every address
    socket       path of the engine's socket as the gate sees it
    """

    containers: tuple[str, ...]
    cooldown: int = COOLDOWN
    bind: str = "*:2375"
    socket: str = "/var/run/docker.sock"
    prune: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError with every mistake: a blank or a quote in a value would be configuration."""
        faults = [
            Fault("gate: containers", f"{name!r} is no container's name", "as docker ps shows it")
            for name in self.containers
            if not _NAME.fullmatch(name)
        ]
        if self.cooldown < 1:
            faults.append(Fault("gate: cooldown", f"{self.cooldown} s is none", "at least 1"))
        if not _BIND.fullmatch(self.bind):
            faults.append(Fault("gate: bind", f"{self.bind!r} is not an address to listen on", "host:port"))
        if not _SOCKET.fullmatch(self.socket):
            faults.append(Fault("gate: socket", f"{self.socket!r} is no socket's path", "absolute, short"))
        if faults:
            raise ConfigError(faults)

    @property
    def room(self) -> int:
        """How many attempts it must be able to remember: all that the cooldown lets through, and some."""
        return max(1, 2 * len(self.containers)) * math.ceil(REMEMBERED / self.cooldown) + 1000


def from_settings(settings: Settings) -> Gate:
    """The gate that belongs to a remediator's settings: each container of each service that it may restart.

    Names as compose gives them: <project>-<service>-<number>, numbers from 1. A service of `never` is left
    out, whatever the list says.
    """
    return Gate(
        containers=tuple(
            f"{settings.docker.project}-{name}-{number}"
            for name, service in sorted(settings.services.items())
            if name not in settings.never
            for number in range(1, service.containers + 1)
        ),
        prune=settings.docker.prune is not None,
    )


def render(gate: Gate) -> str:
    """haproxy.cfg for this gate."""
    effects = (_act(gate), *((_delete(gate),) if gate.prune else ()))
    parts = (_HEAD, _DEFAULTS, _frontend(gate), _REFUSE, _read(gate), *effects, _tables(gate))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _refuse(status: int, reason: str, sentence: str, condition: str) -> str:
    """One rule: answer here, marked as the gate's word, so that it is never taken for the engine's."""
    return (
        f"    http-request return status {status} content-type application/json hdr X-Gate-Refused {reason}"
        f""" string '{{"message":"Docker gate: {sentence}"}}' if {condition}"""
    )


def _answer(status: int, body: str, condition: str) -> str:
    """One rule: a word about the gate itself."""
    return (
        f"    http-request return status {status} content-type application/json hdr Cache-Control no-store"
        f" lf-string '{body}' if {condition}"
    )


_HEAD = """
# The Docker gate. Generated by `prep-remediator gate:config` (remediator/gate.py): change it there.

# When this process began, UNIX seconds rounded up: what was asked before, it does not know. It must never be
# reloaded (the tables would be lost and GATE_STARTED kept): restart it.
.if !defined(GATE_STARTED)
.alert "GATE_STARTED is not set: the UNIX time of the start, rounded up"
.endif
"""

_DEFAULTS = f"""
global
    # One thread: the rules of two requests never run between each other: "look up, then record" is one step.
    nbthread 1
    maxconn 256
    log stdout format raw local0 info

defaults
    mode http
    log global
    log-format "%ci %ST %HM %HU attempt=%[var(txn.attempt)] %Ta ms %ts"
    # An effect is sent once: no retry, no other server, no kept connection that closes under the request.
    retries 0
    no option redispatch
    http-reuse never
    option http-server-close
    timeout connect 2s
    timeout http-request 5s
    timeout http-keep-alive 10s
    timeout client {RESTART_TIMEOUT + 5}s
    timeout server {READ_TIMEOUT}s
"""


def _frontend(gate: Gate) -> str:
    acts = [
        f"    acl acts url -m str /v1.41/containers/{name}/{verb}"
        for name in gate.containers
        for verb in ("restart", "start")
    ]
    reads = (*_READS, _READ_IMAGE) if gate.prune else _READS
    seen = "get asks_attempt { var(txn.asked),in_table(attempts) }"
    return "\n".join(
        (
            "frontend gate",
            f"    bind {gate.bind}",
            "    http-request set-var(txn.now) date",
            "    http-request del-header Upgrade",
            "    http-response del-header X-Gate-Refused",
            "    acl get method GET",
            "    acl post method POST",
            *(["    acl delete method DELETE", f"    acl deletes url -m reg {_DELETES}"] if gate.prune else []),
            "    acl body req.hdr(transfer-encoding) -m found",
            "    acl body req.hdr_val(content-length) gt 0",
            "    acl plain url_beg /",
            *(f"    acl reads path -m reg {pattern}" for pattern in reads),
            "    # `url` is the target as sent, compared whole: a query string, an escape, a host in it or",
            "    # another version is another text.",
            *(acts or ["    acl acts always_false"]),
            "    acl asks_gate url -m str /_gate",
            "    acl asks_attempt url -m reg ^/_attempt/[0-9a-f]{32}$",
            "    http-request set-log-level silent if get",
            _answer(200, '{"started":%[env(GATE_STARTED)],"now":%[var(txn.now)]}', "get asks_gate"),
            "    http-request set-var(txn.asked) path,field(3,/) if get asks_attempt",
            _answer(200, '{"seen":true}', seen),
            _answer(404, '{"seen":false}', "get asks_attempt"),
            "    use_backend read if get plain reads !body",
            "    use_backend act if post acts !body",
            *(["    use_backend delete if delete deletes !body"] if gate.prune else []),
            "    default_backend refuse",
        )
    )


_REFUSE = "backend refuse\n    http-request set-log-level info\n" + _refuse(
    403, "not-allowed", "this method and path are not on the list", "{ always_true }"
)


def _read(gate: Gate) -> str:
    return f"backend read\n    server engine unix@{gate.socket}"


_NOT_RECORDED = "no room to record it"


def _fence(*known: str) -> tuple[str, ...]:
    """Rules of every effect: an attempt's id and `start_by`, once and whole, and the time not over.

    known  rules that say what was let through before. Asked before the time: a copy of a call, which somebody on the
           way has made, may come when the time is over, and "late" would say that nothing has begun
    """
    header = "X-Attempt-Id (32 hex digits) and X-Start-By (UNIX seconds) are needed, once each"
    bad_header = "!attempt_once or !attempt_good or !start_by_once or !start_by_good"
    early = f"X-Start-By is more than {AHEAD} s ahead"
    return (
        f"    timeout server {RESTART_TIMEOUT}s",
        "    acl attempt_once req.fhdr_cnt(x-attempt-id) eq 1",
        "    acl attempt_good req.fhdr(x-attempt-id) -m reg ^[0-9a-f]{32}$",
        "    acl start_by_once req.fhdr_cnt(x-start-by) eq 1",
        "    acl start_by_good req.fhdr(x-start-by) -m reg ^[1-9][0-9]{9}$",
        _refuse(428, "no-attempt", header, bad_header),
        "    http-request set-var(txn.attempt) req.fhdr(x-attempt-id)",
        *known,
        "    http-request set-var(txn.ahead) req.fhdr(x-start-by),sub(txn.now)",
        _refuse(412, "late", "X-Start-By is over", "{ var(txn.ahead) -m int le 0 }"),
        _refuse(412, "late", early, f"{{ var(txn.ahead) -m int gt {AHEAD} }}"),
    )


def _said_anew(gate: Gate) -> tuple[str, ...]:
    return (
        "    http-request del-header X-Attempt-Id",
        "    http-request del-header X-Start-By",
        f"    server engine unix@{gate.socket}",
    )


def _act(gate: Gate) -> str:
    not_recorded = "!{ sc0_get_gpc0 eq 1 } or !{ sc1_get_gpc0 eq 1 }"
    again = f"this was done to this container less than {gate.cooldown} s ago"
    before = _refuse(409, "repeated", "it was let through before", "{ var(txn.attempt),in_table(attempts) }")
    return "\n".join(
        (
            "backend act",
            *_fence(before),
            "    http-request set-var(txn.name) path,field(4,/)",
            "    http-request set-var(txn.verb) path,field(5,/)",
            "    # Name and verb together: what a restart has left stopped may be started at once.",
            "    http-request set-var(txn.what) path,field(4,/,2)",
            "    # Looked up first and recorded only when nothing refuses: a refused call neither counts as",
            "    # seen nor prolongs a cooldown.",
            _refuse(429, "too-soon", again, "{ var(txn.what),in_table(targets) }"),
            "    http-request track-sc0 var(txn.attempt) table attempts",
            "    http-request track-sc1 var(txn.what) table targets",
            "    http-request sc-inc-gpc0(0)",
            "    http-request sc-inc-gpc0(1)",
            "    # Not recorded means that a table has no room: what is not recorded could pass twice.",
            _refuse(429, "too-soon", _NOT_RECORDED, not_recorded),
            "    # Said anew, without a version: the engine takes its own; no word of the caller's gets there.",
            "    http-request set-path /containers/%[var(txn.name)]/%[var(txn.verb)]",
            *_said_anew(gate),
        )
    )


def _delete(gate: Gate) -> str:
    """One attempt makes several calls, one for each id: it is the id that passes once, and the attempt counts them.

    That another attempt was let through for the id is no doubt about this one, so it is told by another word.
    """
    before = "the deletion of this id was let through before"
    not_recorded = "!{ sc0_get_gpc0 ge 1 } or !{ sc1_get_gpc0 eq 1 } or !{ sc2_get_gpc0 eq 1 }"
    many = f"{{ var(txn.attempt),table_gpc0(attempts) ge {PRUNE_ITEMS} }}"
    return "\n".join(
        (
            "backend delete",
            *_fence(
                "    http-request set-var(txn.kind) path,field(3,/)",
                "    http-request set-var(txn.id) path,field(4,/)",
                "    http-request set-var(txn.call) var(txn.attempt),concat(/,txn.id)",
                _refuse(409, "repeated", f"{before}, to this attempt", "{ var(txn.call),in_table(calls) }"),
                _refuse(409, "asked-before", before, "{ var(txn.id),in_table(deletions) }"),
            ),
            _refuse(429, "too-many", f"an attempt deletes at most {PRUNE_ITEMS}", many),
            "    http-request track-sc0 var(txn.attempt) table attempts",
            "    http-request track-sc1 var(txn.id) table deletions",
            "    http-request track-sc2 var(txn.call) table calls",
            "    http-request sc-inc-gpc0(0)",
            "    http-request sc-inc-gpc0(1)",
            "    http-request sc-inc-gpc0(2)",
            _refuse(429, "too-many", _NOT_RECORDED, not_recorded),
            "    # Never by force, never with volumes; of an image never its parents, which nobody has previewed.",
            "    http-request set-path /%[var(txn.kind)]/%[var(txn.id)]",
            "    http-request set-query noprune=1 if { var(txn.kind) -m str images }",
            *_said_anew(gate),
        )
    )


def _tables(gate: Gate) -> str:
    acts = 2 * len(gate.containers) + 1
    day = f"expire {REMEMBERED}s nopurge store gpc0"
    deletions = (
        f"\n\nbackend deletions\n    stick-table type string len 73 size {PRUNE_DAY} {day}"
        f"\n\nbackend calls\n    stick-table type string len 106 size {PRUNE_DAY} {day}"
        if gate.prune
        else ""
    )
    return f"""
# nopurge: a full table refuses instead of forgetting its oldest entry.
backend attempts
    stick-table type string len 33 size {gate.room} {day}

backend targets
    stick-table type string len 200 size {acts} expire {gate.cooldown}s nopurge store gpc0{deletions}
"""
