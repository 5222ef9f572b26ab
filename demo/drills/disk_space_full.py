"""Drills of the runbook disk-space-full: old images fill the engine's disk; and alike, the full disk is another one.

The first fills the disk that holds the engine's data, so it runs only where that is a small one made for it
(tests/e2e/test_disk_drill.py makes such an engine): nobody's machine is filled for a drill.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker.errors
import yaml

from demo.drills.base import Drill, Finding, Story
from demo.drills.untouched import LEFT_ALONE, people_know, refused_as
from demo.stack import PROJECT, Stack, StackError

SERVICE = "python-compliance"
LABELS = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": SERVICE}
VOLUME = f"{PROJECT}_drill-data"
SMALL = "/tmp"  # noqa: S108 - the exporter's own tmpfs of 16 MB, another file system than the engine's
PEOPLE = ("ann", "ben")
TOKENS = "/var/lib/prep-remediator/people"
IMAGES, IMAGE_MB = 9, 80
APART = 3.0  # seconds between the two persons' answers
MOST_GB = 8  # of the engine's disk: a larger one is somebody's own
FREE = 0.02  # of it, left by the fault: DiskFull is under 3 %


def settings_of(folder: Path) -> None:
    """Prune is switched on, for things of a few seconds; two persons have tokens of their own."""
    path = folder / "remediator.yml"
    settings = yaml.safe_load(path.read_text())
    settings["docker"]["prune"] = {"min_age": "2s"}
    settings["operators"] = {name: {"token_files": [f"{TOKENS}/{name}"]} for name in PEOPLE}
    path.write_text(yaml.safe_dump(settings, sort_keys=False))


def watched_volume(folder: Path) -> None:
    """The same, and the exporter watches a small disk of its own too."""
    settings_of(folder)
    path = folder / "exporter.yml"
    settings = yaml.safe_load(path.read_text())
    settings["collectors"]["disk"]["paths"][SMALL] = SMALL
    path.write_text(yaml.safe_dump(settings, sort_keys=False))


@contextmanager
def full_volume(stack: Stack, story: Story) -> Iterator[None]:
    """A disk that is not the engine's is filled; beside it lies what `docker system prune --volumes` would delete: a
    volume that no container uses, and old images.
    """
    left, size = _room(stack)
    if (free := left / size) < 0.12:
        raise StackError(f"the engine's own disk has {free:.0%} free: this drill needs one that is not full")
    images = _old_images(stack, 1)
    stack.docker.volumes.create(VOLUME, labels={"com.docker.compose.project": PROJECT})
    _in_volume(stack, f"head -c 1M /dev/urandom > {MOUNTED}/data")
    story.notes["checksum"] = checksum(stack)
    story.notes["images"] = ",".join(images)
    story.times["fault"] = time.time()
    stack.compose("exec", "-T", "exporter", "bash", "-c", f"head -c 64M /dev/zero > {SMALL}/full || true")
    story.notes["fault"] = f"{SMALL} of the exporter is full, the engine's disk is not ({free:.0%} free)"
    try:
        yield
    finally:
        stack.compose("exec", "-T", "exporter", "rm", "-f", f"{SMALL}/full", check=False)
        stack.docker.volumes.get(VOLUME).remove(force=True)
        _forget(stack, images)


@contextmanager
def full_engine(stack: Stack, story: Story) -> Iterator[None]:
    """Builds of weeks lie on the engine's disk, and a log grows until hardly anything can be written."""
    free, size = _room(stack)
    if size > MOST_GB * 1e9:
        raise StackError(
            f"the engine's disk has {size / 1e9:.0f} GB: this drill fills it, and only one of at most {MOST_GB} GB"
            " that was made for it (`pytest -m campaign tests/e2e/test_disk_drill.py`)"
        )
    _give_tokens(stack)
    images = _old_images(stack, IMAGES)
    stack.docker.volumes.create(VOLUME, labels={"com.docker.compose.project": PROJECT})
    free, _ = _room(stack)
    fill = int(free - FREE * size)
    story.notes["images"] = ",".join(images)
    story.times["fault"] = time.time()
    _in_volume(stack, f"head -c {fill} /dev/zero > {MOUNTED}/runaway.log")
    story.notes["checksum"] = checksum(stack)
    story.notes["free"] = str(_room(stack)[0])
    story.notes["fault"] = f"{float(story.notes['free']) / 1e6:.0f} MB of the engine's {size / 1e6:.0f} MB are free"
    try:
        yield
    finally:
        stack.docker.volumes.get(VOLUME).remove(force=True)
        _forget(stack, images)


def approve(stack: Stack, story: Story) -> None:
    """Two persons look at the same list, one after the other, and each says yes to it."""
    for asked in stack.api("/api/v1/approvals")["approvals"]:
        if asked["runbook"] != RUNBOOK:
            continue
        story.notes.setdefault("asked", str(asked["persons"]))
        story.notes["listed"] = ",".join(item["id"] for item in asked["items"])
        waiting = [name for name in PEOPLE if f"yes of {name}" not in story.times]
        if not waiting or time.time() - story.times.get(f"yes of {PEOPLE[0]}", 0.0) < APART:
            continue
        images = set(story.notes["images"].split(","))
        story.notes[f"images before {waiting[0]}"] = str(len(_there(stack) & images))
        said = {"digest": asked["digest"], "reason": "drill: old images may go", "who": waiting[0]}
        token = (stack.secrets / f"drill_{waiting[0]}").read_text()
        try:
            stack.get("remediator", f"/api/v1/approvals/{asked['id']}/approve", token, said)
        except StackError:
            return  # the list has changed in this very moment: what is asked now is another question
        story.times[f"yes of {waiting[0]}"] = time.time()


def inspect_pruned(stack: Stack, story: Story) -> list[Finding]:
    """Exactly what two persons were shown is gone, two builds to roll back to stay, and so does every volume."""
    images = story.notes["images"].split(",")
    listed = set(story.notes.get("listed", "").split(",")) - {""}
    there = _there(stack)
    gone = {each for each in images if each not in there}
    freed = _room(stack)[0] - float(story.notes["free"])
    kept = set(images[-3:])  # no container is made of one of them: the newest counts as what runs
    alone = story.notes.get(f"images before {PEOPLE[1]}", "?")
    return [
        Finding("two persons were asked", story.notes.get("asked") == "2", story.notes.get("asked", "nobody")),
        Finding("one yes alone deleted nothing (engine)", alone == str(len(images)), f"{alone} of {len(images)}"),
        Finding("gone is what was shown (engine)", bool(gone) and gone == listed, f"{len(gone)} of {len(listed)}"),
        Finding("the newest build and the two before it stay", kept <= there, f"{len(kept & there)} of 3"),
        Finding("room is back (statvfs)", freed > 0.5 * len(gone) * IMAGE_MB * 1e6, f"{freed / 1e6:.0f} MB"),
        Finding("the volume is as it was (SHA-256)", checksum(stack) == story.notes["checksum"], "checked"),
    ]


def inspect_untouched(stack: Stack, story: Story) -> list[Finding]:
    """Volume and images as they were, nobody asked, people told."""
    people = people_know(stack, story, "DiskFull")
    images = set(story.notes["images"].split(","))
    asked = [one for one in stack.api("/api/v1/approvals")["approvals"] if one["runbook"] == RUNBOOK]
    same = checksum(stack) == story.notes["checksum"]
    return [
        Finding("the volume is as it was (SHA-256)", same, story.notes["checksum"][:12]),
        Finding("no image is gone (engine)", images <= _there(stack), f"{len(images)} images"),
        Finding("nobody was asked to delete", not asked, f"{len(asked)} questions"),
        *people,
    ]


MOUNTED = "/drill"


def checksum(stack: Stack) -> str:
    """SHA-256 over everything in the drill's volume."""
    return _in_volume(stack, f"cd {MOUNTED} && sha256sum * | sha256sum").split(" ")[0]


def _in_volume(stack: Stack, command: str) -> str:
    """A shell's answer beside the volume, in a container that is gone afterwards."""
    image = str(stack.inspect("exporter")["Config"]["Image"])
    mount = {VOLUME: {"bind": MOUNTED, "mode": "rw"}}
    run = stack.docker.containers.run
    said = run(image, ["bash", "-c", command], volumes=mount, user="0", network_mode="none", remove=True)
    return bytes(said).decode()


def _old_images(stack: Stack, count: int) -> list[str]:
    """Earlier builds of a service, as a rebuilt tag leaves them: dangling, with Compose's labels; the oldest first."""
    made = []
    for number in range(count):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            entry = tarfile.TarInfo(f"build-{number}")
            entry.size = IMAGE_MB * 1_000_000
            tar.addfile(entry, _Bytes(entry.size))
        changes = [f"LABEL {name}={value}" for name, value in LABELS.items()]
        said = stack.docker.api.import_image_from_data(file.getvalue(), changes=changes)
        made.append(_id(said))
        time.sleep(1.1)  # the engine counts an image's age in whole seconds
    return made


class _Bytes(io.RawIOBase):
    """So many bytes of no meaning; different at each place, so that no layer is shared by chance."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override] # of io
        found = min(len(buffer), self._left)
        buffer[:found] = (f"{time.time_ns()}".encode() * (found // 19 + 1))[:found]
        self._left -= found
        return found


def _id(said: str | bytes) -> str:
    """The image's id out of the answer to an import: `{"status":"sha256:…"}`."""
    found = yaml.safe_load(said)
    return str(found["status"])


def _there(stack: Stack) -> set[str]:
    return {str(image["Id"]) for image in stack.docker.api.images()}


def _forget(stack: Stack, images: list[str]) -> None:
    for each in images:
        try:
            stack.docker.api.remove_image(each)
        except docker.errors.DockerException:
            continue  # gone, which is what the drill is about


def _room(stack: Stack) -> tuple[float, float]:
    """Bytes free and in all on the engine's disk, as statvfs(3) has it of the remediator's root."""
    asked = "import os; s = os.statvfs('/'); print(s.f_bavail * s.f_frsize, s.f_blocks * s.f_frsize)"
    free, size = stack.compose("exec", "-T", "remediator", "python3", "-c", asked).stdout.split()
    return float(free), float(size)


def _give_tokens(stack: Stack) -> None:
    """Two tokens, in the remediator's own volume and in the folder of secrets here."""
    for name in PEOPLE:
        token = f"{name}-{time.time_ns()}"
        file = stack.secrets / f"drill_{name}"
        file.unlink(missing_ok=True)
        file.write_text(token)
        write = f"mkdir -p {TOKENS} && printf %s {token} > {TOKENS}/{name}"
        stack.compose("exec", "-T", "remediator", "bash", "-c", write)


RUNBOOK = "disk-space-full"
ALERTS = ("DiskFull",)
HEALS = Drill(
    RUNBOOK,
    "Old images fill the engine's disk; two persons agree that they go",
    RUNBOOK,
    ALERTS,
    full_engine,
    inspect_pruned,
    seconds=300.0,
    meanwhile=approve,
    adapt=settings_of,
)
VOLUME_FULL = Drill(
    f"{RUNBOOK}-is-a-volume",
    "The full disk is not the engine's: nothing is deleted",
    RUNBOOK,
    ALERTS,
    full_volume,
    inspect_untouched,
    expect=("target_not_full",),
    until=LEFT_ALONE,
    untouched=True,
    meanwhile=refused_as("target_not_full"),
    adapt=watched_volume,
)
DRILLS = (VOLUME_FULL,)
"""Without HEALS: it wants an engine of its own, see above."""
