"""An engine of the test's own on a small disk of its own, with the demo's images in it: a disk that may be filled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from demo.stack import BUILD, PROJECT, Stack, read_env
from tests.support.docker_engine import DockerEngine
from tests.support.mounts import small
from tests.support.run import Run, program

MEGABYTES = 3500
"""Of the disk, in memory: the demo's images unpacked are 1,300, what a drill builds 720."""


@contextmanager
def small_engine(run: Run, patch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    """Everything that asks for an engine gets this one for the block."""
    images = [value for name, value in read_env(BUILD / "images.env").items() if name.startswith("PREP_IMAGE_")]
    assert images, "the demo's images are missing: scripts/engine run scripts/images"
    with small(run.folder("engines-disk"), MEGABYTES) as disk:
        engine = DockerEngine.own(run, disk)
        try:
            _copy([image for image in images if image], engine.host)
            patch.setenv("DOCKER_HOST", engine.host)
            patch.setenv("PREP_DOCKER_SOCKET", str(engine.socket))
            patch.setenv("PREP_DOCKER_GID", str(engine.socket.stat().st_gid))
            yield engine
        finally:
            engine.close()


def _copy(images: list[str], host: str) -> None:
    """From the engine that has them to this one."""
    with subprocess.Popen([program("docker"), "save", *images], stdout=subprocess.PIPE) as saved:
        load = [program("docker"), "--host", host, "load", "--quiet"]
        subprocess.run(load, stdin=saved.stdout, check=True, timeout=300, stdout=subprocess.DEVNULL)
    assert saved.returncode == 0, "the images could not be read from the engine that has them"


@contextmanager
def talking(stack: Stack) -> Iterator[None]:
    """Containers of this engine reach each other: it writes no rule of iptables itself, since it would share Docker's
    chains with every other engine of the machine, and another engine's policy may forbid what no rule allows.
    """
    stack.compose("create", "--no-build")
    networks = stack.docker.networks.list(filters={"label": f"com.docker.compose.project={PROJECT}"})
    rules = [
        ["FORWARD", "-i", name, "-o", name, "-j", "ACCEPT"] for name in (f"br-{str(one.id)[:12]}" for one in networks)
    ]
    iptables = [program("iptables"), "-w"]
    try:
        for rule in rules:
            subprocess.run([*iptables, "-I", *rule], check=True, timeout=20)
        yield
    finally:
        for rule in rules:
            subprocess.run([*iptables, "-D", *rule], check=False, timeout=20)
