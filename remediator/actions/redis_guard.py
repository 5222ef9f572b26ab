"""The target's own check of an effect in Redis: `start_by`, the attempt's id and the value that was seen, by its clock.

Redis lets no script call CLIENT KILL or CONFIG SET. So three things go out in one write, and Redis takes them in order:

    EVALSHA  checks that the attempt was never seen, TIME < start_by, run_id, role, that maxmemory is what was seen;
             only then marks the attempt and lays a pass, a stream of this one sending
    XREAD    BLOCK 0 on the pass: with it, goes on at once; without it, this connection waits for ever
    …        the effect, which is read only when XREAD has answered

Without a pass the effect is never begun: the connection is cut, and Redis drops what it had not begun. Whatever the
script fails with (late, MISCONF, a replica, no right), there is no pass. Bytes that come late come late to the script.
Source: redis.io/docs/latest/commands/{eval,xread,client-kill,config-set}; tried on Redis 7.0. XREAD itself must be
allowed: `open_gate` tries it before, since an error of it would let the effect through.
What remains: a server that becomes a replica and loads between `open_gate` and the write errs on XREAD too instead of
waiting, and takes what follows. And bytes of the effect that a network holds up behind those of the check: check and
one effect are some 500 bytes, one segment of TCP; only the later ones of many clients to close come in others. And
a copy of all the bytes, which somebody on the way has made, within a minute: it finds the first one's pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from hiredis import ReplyError

from remediator.actions.base import Call
from remediator.redis_link import Answer, Command, Link, refusal

PREFIX = "prep-remediator:"
"""All keys of ours; the only ones that our user may write."""
REMEMBERED = 86_400_000
"""Milliseconds that an attempt is remembered; a doubt is settled within minutes or by people."""
PASS = 60_000  # milliseconds that a pass lies there

# PEXPIRE of a key that is not there changes nothing, and lets Redis 6 and 7 take the writes after it also when its
# memory is full: a script's first write is checked for that, the others are not. Raising maxmemory must work then.
SCRIPT = r"""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 1 then return 'repeated: this attempt was let through before' end
if now >= tonumber(ARGV[1]) then return 'late: the server\'s clock is past start_by' end
local info = '\n' .. redis.call('INFO', 'server') .. '\n' .. redis.call('INFO', 'replication')
    .. '\n' .. redis.call('INFO', 'memory')
local function field(name) return string.match(info, '\n' .. name .. ':([^\r\n]*)') end
if field('run_id') ~= ARGV[2] then return 'changed: Redis was started anew since the look' end
if field('role') ~= 'master' then return 'changed: Redis is a replica now' end
if ARGV[3] ~= '' and field('maxmemory') ~= ARGV[3] then
  return 'changed: maxmemory is ' .. tostring(field('maxmemory')) .. ' by now' end
redis.call('PEXPIRE', KEYS[1], 1)
redis.call('SET', KEYS[1], now, 'PX', ARGV[4])
local pass = redis.pcall('XADD', KEYS[2], '*', 'attempt', ARGV[6])
if type(pass) == 'table' and pass.err then redis.call('PEXPIRE', KEYS[1], 0) return pass end
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 'ok'
"""


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of the check. `answers` of the effects, () when they were not begun; `refused` says why not."""

    answers: tuple[Answer, ...] = ()
    refused: str = ""


def mark(attempt: str) -> str:
    """The key that says that an attempt was let through; its value is when, milliseconds on the server's clock."""
    return f"{PREFIX}attempt:{attempt}"


async def open_gate(link: Link) -> str:
    """Load the script and try the waiting command; the script's digest.

    Raises Permanent or Transient when either may not be used: then nothing must be sent.
    """
    loaded, waited = await link.ask(
        ("SCRIPT", "LOAD", SCRIPT), ("XREAD", "COUNT", 1, "STREAMS", f"{PREFIX}pass:none", "0-0")
    )
    if not isinstance(loaded, bytes):
        raise refusal(link.where, loaded)
    if waited is not None:
        raise refusal(link.where, waited)
    return loaded.decode()


async def guarded(
    link: Link, script: str, call: Call, run_id: str, effects: Sequence[Command], maxmemory: str = ""
) -> Passed:
    """Check and effects in one write. Raises what `Link.receive` does: then their end is not known.

    `maxmemory`: bytes that it must still have, "" where it does not matter. When refused, the connection waits at the
    server: close it. No answer of the effects is read before the check has said yes.
    """
    keys = (mark(call.attempt), f"{PREFIX}pass:{uuid4().hex}")
    until = math.floor(call.start_by * 1000)
    check = ("EVALSHA", script, 2, *keys, until, run_id, maxmemory, REMEMBERED, PASS, call.attempt)
    link.send([check, ("XREAD", "BLOCK", 0, "STREAMS", keys[1], "0-0"), *effects])
    said = await link.receive()
    if said != b"ok":
        return Passed(refused=str(said) if isinstance(said, ReplyError) else bytes(said).decode())
    await link.receive()
    return Passed(tuple([await link.receive() for _ in effects]))
