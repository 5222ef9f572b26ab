"""Where backups lie: a directory or an S3 bucket, as a list of names, sizes and times.

In: settings. Out: `Entry` values, names below the source. A directory is walked in a thread of its own (a dead mount
hangs); a bucket is listed by obstore, whose client has the same timeout. Neither must ever read or write a file's
content, or list more than was allowed.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from obstore.exceptions import BaseError
from obstore.store import S3Store

from exporter.background_settings import BackupBucket, BackupDirectory
from exporter.errors import Permanent, Transient, Unreachable
from exporter.settings import secret
from exporter.workers import Worker

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_PAGE = 1000
"""Objects that S3 gives in one answer at most (ListObjectsV2)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or object: its name below the source with slashes, bytes, UNIX seconds."""

    name: str
    size: int
    modified: float


class Source(Protocol):
    """One place."""

    async def entries(self, deadline: float) -> list[Entry]:
        """All that is there. Raises Transient or Permanent; ConfigError when a secret cannot be read."""

    def close(self) -> None:
        """Let go of what is held."""


class DirectorySource:
    """A directory and all below it."""

    def __init__(self, name: str, settings: BackupDirectory) -> None:
        self._settings = settings
        self._worker = Worker(f"directory of {name}")

    async def entries(self, deadline: float) -> list[Entry]:
        path, limit = self._settings.path, self._settings.max_entries
        try:
            return await self._worker.run(lambda: list(_walk(path, limit)), deadline)
        except OSError as error:
            raise Permanent(f"{path} cannot be listed: {error.strerror}") from error

    def close(self) -> None:
        self._worker.close()


def _walk(root: Path, limit: int) -> Iterator[Entry]:
    """Regular files. A file that goes away while we look is not there. Raises OSError and Transient."""
    folders, seen = [root], 0
    while folders:
        with os.scandir(folders.pop()) as found:
            for each in found:
                seen += 1
                if seen > limit:
                    raise Transient(f"{root} holds more than {limit} files and folders")
                if each.is_dir(follow_symlinks=False):
                    folders.append(Path(each.path))
                elif each.is_file(follow_symlinks=False):
                    try:
                        status = each.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield Entry(Path(each.path).relative_to(root).as_posix(), status.st_size, status.st_mtime)


class BucketSource:
    """A bucket, or a folder in it."""

    def __init__(self, name: str, settings: BackupBucket) -> None:
        self._name = name
        self._settings = settings
        self._store: tuple[tuple[str | None, ...], S3Store] | None = None

    async def entries(self, deadline: float) -> list[Entry]:
        settings, found = self._settings, list[Entry]()
        folder = settings.prefix.strip("/")
        try:
            async with asyncio.timeout_at(deadline):
                async for page in self._opened().list(folder or None, chunk_size=_PAGE):
                    found += [
                        Entry(one["path"].removeprefix(f"{folder}/"), one["size"], one["last_modified"].timestamp())
                        for one in page
                    ]
                    if len(found) > settings.max_entries:
                        raise Transient(f"bucket {settings.bucket} holds more than {settings.max_entries} objects")
        except TimeoutError:
            raise Unreachable(f"bucket {settings.bucket}: no answer in time") from None
        except (BaseError, OSError, ValueError) as error:
            raise _refusal(settings.bucket, error) from error
        return found

    def close(self) -> None:
        self._store = None

    def _opened(self) -> S3Store:
        """The store, made anew when a secret or the authority's file has another content."""
        settings = self._settings
        files = (
            settings.access_key_id_file, settings.secret_access_key_file, settings.session_token_file, settings.ca_file,
        )  # fmt: skip
        secrets = tuple(secret(file) if file is not None else None for file in files)
        if self._store is None or self._store[0] != secrets:
            self._store = secrets, _store(settings, *secrets)
        return self._store[1]


_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})\b")
_MEANING = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "the key may not list it",
    "InvalidAccessKeyId": "the key is not known",
    "SignatureDoesNotMatch": "the secret key is not right",
    "InvalidToken": "the session token is not right",
    "ExpiredToken": "the session token has expired",
    "RequestTimeTooSkewed": "the clocks differ too much",
    "PermanentRedirect": "it is in another region",
    "AuthorizationHeaderMalformed": "it is in another region",
}
"""Codes of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html that an operator has to mend."""


def _refusal(bucket: str, error: Exception) -> Transient | Permanent:
    """An error of obstore's in our words: its own text holds addresses, headers and what the store said."""
    code = _CODE.search(str(error))
    if code is not None and code[1] in _MEANING:
        return Permanent(f"bucket {bucket}: {_MEANING[code[1]]} ({code[1]})")
    if (status := _STATUS.search(str(error))) is not None:
        words = f"bucket {bucket}: the store answered {status[1]}"
        return Permanent(words) if status[1] in ("401", "403") else Transient(words)
    return Transient(f"bucket {bucket}: cannot be listed ({type(error).__name__})")


def _store(
    settings: BackupBucket, key: str | None, secret_key: str | None, token: str | None, authority: str | None
) -> S3Store:
    config: S3Config = {"region": settings.region, "virtual_hosted_style_request": settings.virtual_hosted}
    if settings.endpoint is not None:
        config["endpoint"] = settings.endpoint.rstrip("/")
    if key is not None and secret_key is not None:
        config["access_key_id"], config["secret_access_key"] = key, secret_key
    if token is not None:
        config["session_token"] = token
    timeout = timedelta(seconds=settings.timeout)
    client: ClientConfig = {
        "timeout": timeout,
        "connect_timeout": timeout,
        "allow_http": (settings.endpoint or "").startswith("http://"),
        "user_agent": "prep-exporter",
    }
    if authority is not None:
        client["root_certificate"] = authority
    return S3Store(
        settings.bucket,
        config=config,
        client_options=client,
        retry_config={"max_retries": 2, "retry_timeout": timeout},
    )
