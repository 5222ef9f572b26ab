"""The machine's own redis-server as a container: a program and its libraries, from no registry."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path
from uuid import uuid4

from tests.support.docker_engine import RUN_LABEL, DockerEngine
from tests.support.run import program


def redis_image(engine: DockerEngine) -> str:
    """An image with redis-server under /bin and a folder /data; whoever makes it removes it."""
    binary = Path(program("redis-server")).resolve()
    said = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, timeout=10, check=True).stdout
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("data", 0o777), ("tmp", 0o1777), ("proc", 0o755), ("dev", 0o755)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        tar.add(binary, "bin/redis-server")
        for library in libraries:
            # Where the loader looks for it: the path that ldd gives, the file that it leads to.
            content = library.read_bytes()
            entry = tarfile.TarInfo(str(library).lstrip("/"))
            entry.mode, entry.size = 0o755, len(content)
            tar.addfile(entry, io.BytesIO(content))
    tag = f"{engine.run.id}-{uuid4().hex[:6]}"
    engine.client.api.import_image_from_data(
        buffer.getvalue(),
        repository="prep-test/redis",
        tag=tag,
        changes=["ENV PATH=/bin", f"LABEL {RUN_LABEL}={engine.run.id}"],
    )
    return f"prep-test/redis:{tag}"
