"""Images as Compose builds them, made in a moment and without a registry: one layer with random bytes."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping, Sequence

from tests.support.docker_engine import DockerEngine

PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"


def labels_of(project: str, service: str) -> dict[str, str]:
    """What `docker compose build` puts on an image."""
    return {PROJECT: project, SERVICE: service, "com.docker.compose.version": "2.39.0"}


def build(
    engine: DockerEngine, name: str, labels: Mapping[str, str], *, size: int = 1000, changes: Sequence[str] = ()
) -> str:
    """An image of this name (`repository:tag`) with `size` random bytes; its full id.

    Another image of the name loses it and is left dangling, as after a rebuild.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("payload")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    repository, tag = name.split(":")
    said = [*(f'LABEL {key}="{value}"' for key, value in labels.items()), "CMD /none", *changes]
    engine.client.api.import_image_from_data(buffer.getvalue(), repository=repository, tag=tag, changes=said)
    return str(engine.client.api.inspect_image(name)["Id"])
