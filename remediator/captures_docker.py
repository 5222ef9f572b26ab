"""Diagnoses of disks and of the Docker Engine: what is full, what could go, what has happened. Reads only, bounded.

In: a `Source`. Out: text and one sentence, as in `captures.py`. Nothing here follows a symbolic link, leaves a
file system, or shows a container's environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from remediator.captured import Captured, Source
from remediator.containers import PROJECT, SERVICE
from remediator.durations import human
from remediator.errors import RemediatorError

MOUNTS = Path("/proc/self/mounts")
NO_DISK = frozenset(
    {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "devtmpfs", "securityfs", "debugfs", "tracefs", "bpf"}
)
"""Kinds of file system that hold nothing of anybody's (proc(5), /proc/filesystems: nodev)."""
FILES, SECONDS = 50_000, 3.0  # of one walk, at most
SHOWN = 40
HOUR = 3600.0


async def disk_use(source: Source) -> Captured:
    """Room and inodes of each file system that this process sees, and the largest folders that it may read there."""
    rooms = await asyncio.to_thread(lambda: list(_rooms(MOUNTS.read_text())))
    folders = await asyncio.to_thread(largest, source.settings.journal.evidence_dir.parent)
    fullest = min(rooms, key=lambda room: room["free_share"], default=None)
    said = f"fullest: {fullest['mount']}, {fullest['free_share']:.1%} free" if fullest else "no file system seen"
    return Captured(json.dumps({"file_systems": rooms, "largest_folders": folders}, indent=2), said)


async def docker_disk(source: Source) -> Captured:
    """The engine's own count of its disk, the largest images, and our containers whose logs grow without an end."""
    usage, images, used, containers = await asyncio.gather(
        _usage(source),
        source.engine.all_images(),
        source.engine.images_in_use(),
        source.engine.of_project(),
    )
    now = time.time()
    shown = [
        {
            "id": entry["Id"],
            "tags": entry.get("RepoTags") or [],
            "project": (entry.get("Labels") or {}).get(PROJECT, ""),
            "service": (entry.get("Labels") or {}).get(SERVICE, ""),
            "bytes": entry["Size"],
            "built": f"{human(max(0.0, now - entry['Created']))} ago",
            "used": entry["Id"] in used,
        }
        for entry in sorted(images, key=lambda entry: -entry["Size"])[:SHOWN]
    ]
    endless = [item.name for item in containers if _log_grows(item.raw)]
    told = {"totals": usage, "largest_images": shown, "containers_without_log_rotation": endless}
    idle = sum(entry["Size"] for entry in images if entry["Id"] not in used)
    said = f"{len(images)} images, {idle / 1e6:.0f} MB of them in no container; {len(endless)} logs without rotation"
    return Captured(json.dumps(told, indent=2, ensure_ascii=False), said)


async def container_events(source: Source) -> Captured:
    """What the engine still knows to have happened to the service's containers within the hour: it keeps 256 events."""
    until = time.time()
    events = await source.engine.events(source.service, until - HOUR, until)
    # Health checks are execs, every few seconds: they would hide all else.
    told = [event for event in events if not str(event.get("Action", "")).startswith("exec_")][-SHOWN:]
    lines = [
        json.dumps(
            {
                "at": event.get("timeNano", 0) / 1e9,
                "action": event.get("Action"),
                "container": (event.get("Actor") or {}).get("Attributes", {}).get("name"),
                "exit_code": (event.get("Actor") or {}).get("Attributes", {}).get("exitCode"),
                "signal": (event.get("Actor") or {}).get("Attributes", {}).get("signal"),
            }
        )
        for event in told
    ]
    last = f", the last: {told[-1].get('Action')}" if told else ""
    return Captured("\n".join(lines), f"{len(told)} events within {human(HOUR)}{last}")


async def _usage(source: Source) -> dict[str, Any]:
    """The engine's count, or why there is none: it walks every layer, and must not stand in the way of the rest."""
    try:
        return dict(await source.engine.usage())
    except RemediatorError as error:
        return {"not_counted": str(error)}


def _rooms(mounts: str) -> Iterator[dict[str, Any]]:
    """Of each file system once: what proc(5) calls its mount, and statvfs(3) of it."""
    seen: set[int] = set()
    for line in mounts.splitlines():
        device, mount, kind, *_ = line.split()
        if kind in NO_DISK:
            continue
        try:
            place, room = Path(mount).stat().st_dev, os.statvfs(mount)
        except OSError:
            continue  # not ours to see
        if place in seen or not room.f_blocks:
            continue
        seen.add(place)
        yield {
            "mount": mount,
            "kind": kind,
            "device": device,
            "bytes": room.f_blocks * room.f_frsize,
            "free_bytes": room.f_bavail * room.f_frsize,
            "free_share": room.f_bavail / room.f_blocks,
            "inodes_free_share": room.f_favail / room.f_files if room.f_files else None,
        }


def largest(top: Path) -> dict[str, Any]:
    """The folders below `top` with most bytes in their own files, of its file system; by how much of it was walked.

    `complete` is False when the walk's bounds were met: then there may be larger ones.
    """
    ends = time.monotonic() + SECONDS
    sizes: dict[str, int] = {}
    todo, files = deque([str(top)]), 0
    try:
        device = top.stat().st_dev
    except OSError as error:
        return {"top": str(top), "error": error.strerror}
    while todo and files < FILES and time.monotonic() < ends:
        folder = todo.popleft()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    files += 1
                    found = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        if found.st_dev == device:
                            todo.append(entry.path)
                    else:
                        sizes[folder] = sizes.get(folder, 0) + found.st_blocks * 512
        except OSError:
            continue  # not ours to read, or gone by now
    ranked = sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN]
    return {"top": str(top), "bytes_by_folder": dict(ranked), "files": files, "complete": not todo}


def _log_grows(raw: Mapping[str, Any]) -> bool:
    """Does Docker keep this container's log in files without a largest size? (`json-file` has none by default.)"""
    log = ((raw.get("HostConfig") or {}).get("LogConfig")) or {}
    return log.get("Type") == "json-file" and not (log.get("Config") or {}).get("max-size")
