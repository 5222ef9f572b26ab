"""Image drift: whether a container runs another image than the one its tag names now. Pure.

In: a container's image id and the name it was made from; `images/json`. Out: a yes or no. A name by digest or by id
cannot drift, so it is never a yes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_HUB = ("docker.io/", "index.docker.io/")
_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


def tag_of(name: str) -> str | None:
    """An image's name as Docker lists it: `docker.io/library/redis` -> `redis:latest`; None for a digest or an id.

    A tag of twelve or more hexadecimal digits and nothing else is taken for an id, as Docker's own command line does.
    """
    if "@" in name or _ID.fullmatch(name):
        return None
    for hub in _HUB:
        if name.startswith(hub):
            name = name.removeprefix(hub).removeprefix("library/")
    last = name.rsplit("/", 1)[-1]
    return name if ":" in last else f"{name}:latest"


def tagged(images: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """`images/json` to the id that each tag names."""
    return {tag: image["Id"] for image in images for tag in image.get("RepoTags") or ()}


def drifted(name: str, image_id: str, ids: Mapping[str, str]) -> bool:
    """Whether what the tag names now, if it still names anything, is another image than `image_id`."""
    tag = tag_of(name)
    return tag is not None and ids.get(tag) != image_id
