"""Backups in real directories and on a real S3 server (moto), both well and ill."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import obstore
import pytest
import trustme

from exporter.background_settings import BackupsCollector as BackupsSettings
from exporter.collectors.backups import BackupsCollector
from tests.integration.exporter_parts import in_seconds, shown, values
from tests.support.s3 import KEY_ID, SECRET_KEY
from tests.support.servers import Answer, Request, Run, S3Server, StubServer, free_port


@pytest.fixture(scope="module")
def s3(run: Run) -> Iterator[S3Server]:
    """An S3 server for these tests; one that freezes it thaws it again."""
    server = S3Server(run).start()
    yield server
    server.stop()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Settings that name the files of a key."""
    (tmp_path / "id").write_text(f"{KEY_ID}\n")
    (tmp_path / "key").write_text(f"{SECRET_KEY}\n")
    return {"access_key_id_file": str(tmp_path / "id"), "secret_access_key_file": str(tmp_path / "key")}


def collector(**sources: Mapping[str, Any]) -> BackupsCollector:
    return BackupsCollector(BackupsSettings.model_validate(sources))


def backup(folder: Path, name: str, size: int, ago: float) -> float:
    """A file that was last written so many seconds before now (not before the run began, which may be long ago); that
    time."""
    written = time.time() - ago
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    os.utime(file, (written, written))
    return written


def of(found: Mapping[tuple[str, ...], float], source: str) -> dict[str, float]:
    return {key[0].removeprefix("backup_"): value for key, value in found.items() if key[1] == source}


# Directories


async def test_directory_tells_its_backups(tmp_path: Path) -> None:
    """Newest and the one before, in folders too; links, other files and files under way are none."""
    (tmp_path / "db").mkdir()
    before = backup(tmp_path, "db/2026/prep-1.dump", 2000, 90_000)
    newest = backup(tmp_path, "db/prep-2.dump", 1500, 3600)
    tried = backup(tmp_path, "db/prep-3.dump.part", 9000, 60)
    growing = backup(tmp_path, "db/prep-3.dump", 10, 1)
    restored = backup(tmp_path, "db/restored", 0, 7200)
    backup(tmp_path, "elsewhere.dump", 1, 5000)
    (tmp_path / "db" / "latest.dump").symlink_to("prep-2.dump")
    (tmp_path / "db" / "loop").symlink_to(tmp_path / "db")
    rules = {"path": str(tmp_path / "db"), "files": "*.dump", "attempts": "*.part", "restore_marker": "restored"}
    backups = collector(directories={"local": rules})
    found = shown(await backups.collect(in_seconds(10)))
    await backups.close()
    assert before < newest < tried < growing
    assert of(found, "local") == pytest.approx(
        {
            "listed": 1,
            "last_success_timestamp_seconds": newest,
            "last_attempt_timestamp_seconds": growing,
            "size_bytes": 1500,
            "previous_size_bytes": 2000,
            "last_verified_restore_timestamp_seconds": restored,
        }
    )


async def test_directory_that_is_not_there_or_too_full_is_told(tmp_path: Path) -> None:
    """`listed` 0 and nothing else of it; the good one has all; and it comes back by itself."""
    good, full, missing = tmp_path / "good", tmp_path / "full", tmp_path / "missing"
    for folder, number in ((good, 1), (full, 5)):
        for each in range(number):
            backup(folder, f"{each}.dump", 1, 3600)
    directories = {
        folder.name: {"path": str(folder), "files": "*.dump", "max_entries": 4} for folder in (good, full, missing)
    }
    backups = collector(directories=directories)
    collected = await backups.collect(in_seconds(10))
    found = values(collected.samples)
    assert collected.fault is not None
    assert "holds more than 4 files" in collected.fault
    assert "cannot be listed: No such file or directory" in collected.fault
    assert (of(found, "full"), of(found, "missing")) == ({"listed": 0}, {"listed": 0})
    assert of(found, "good")["size_bytes"] == 1
    (full / "0.dump").unlink()
    missing.mkdir()
    found = shown(await backups.collect(in_seconds(10)))
    assert (of(found, "missing"), of(found, "full")["listed"]) == ({"listed": 1}, 1)
    await backups.close()


async def test_hung_mount_costs_one_thread_and_its_own_timeout(hung_mount: Path, tmp_path: Path) -> None:
    """Listing after listing: in time, told, no thread more, and the good directory is there."""
    backup(tmp_path, "good/1.dump", 5, 3600)
    backups = collector(
        directories={
            "good": {"path": str(tmp_path / "good"), "files": "*.dump"},
            "hung": {"path": str(hung_mount), "files": "*.dump", "timeout": "300ms"},
        }
    )
    threads = []
    for _ in range(3):
        began = time.monotonic()
        collected = await backups.collect(in_seconds(10))
        assert time.monotonic() - began < 1
        found = values(collected.samples)
        assert (of(found, "hung"), of(found, "good")["size_bytes"]) == ({"listed": 0}, 5)
        assert collected.fault is not None
        threads.append(threading.active_count())
    assert len(set(threads)) == 1
    await backups.close()


# Buckets


def bucket(s3: S3Server, name: str, keys: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    return {"bucket": name, "endpoint": s3.url, "files": "*.dump", "timeout": "5s", **keys, **changes}


async def test_bucket_tells_its_backups(s3: S3Server, keys: dict[str, str]) -> None:
    """Below the prefix only, and complete only with the marker: the newest without one is an attempt."""
    name = s3.bucket()
    for key, size in (
        ("daily/1.dump", 300), ("daily/1.dump.ok", 0), ("daily/2.dump", 200), ("daily/2.dump.ok", 0), ("daily/3.dump", 9),
        ("daily/restored", 1), ("daily2/4.dump", 50), ("daily2/4.dump.ok", 0), ("5.dump", 60),
    ):  # fmt: skip
        s3.put(name, key, size)
        if key in ("daily/1.dump.ok", "daily/2.dump.ok"):
            await asyncio.sleep(1.1)  # S3's times are whole seconds
    rules = {"marker_suffix": ".ok", "restore_marker": "restored"}
    backups = collector(buckets={"s3": bucket(s3, name, keys, prefix="daily/", **rules)})
    found = of(shown(await backups.collect(in_seconds(10))), "s3")
    await backups.close()
    assert (found["listed"], found["size_bytes"], found["previous_size_bytes"]) == (1, 200, 300)
    assert found["last_success_timestamp_seconds"] < found["last_attempt_timestamp_seconds"]
    assert found["last_verified_restore_timestamp_seconds"] == pytest.approx(time.time(), abs=20)


async def test_large_bucket_is_listed_to_its_end_and_no_further_than_allowed(
    s3: S3Server, keys: dict[str, str]
) -> None:
    """More than the 1000 objects of one answer are all seen; more than `max_entries` are told."""
    name = s3.bucket()
    store = s3.store(name)
    for begin in range(0, 1100, 100):
        many = (obstore.put_async(store, f"{number:04}.dump", b"xx") for number in range(begin, begin + 100))
        await asyncio.gather(*many)
    await obstore.put_async(store, "last.dump", b"x" * 77)  # in the second answer
    whole, part = bucket(s3, name, keys, files="last.dump"), bucket(s3, name, keys, max_entries=1050)
    backups = collector(buckets={"whole": whole, "part": part})
    collected = await backups.collect(in_seconds(20))
    await backups.close()
    found = values(collected.samples)
    assert of(found, "whole")["size_bytes"] == 77
    assert of(found, "part") == {"listed": 0}
    assert collected.fault is not None
    assert "holds more than 1050 objects" in collected.fault


async def test_frozen_refusing_and_missing_stores_are_told_and_come_back(
    run: Run, s3: S3Server, keys: dict[str, str], tmp_path: Path
) -> None:
    """A frozen S3 costs its own timeout; the others have all their samples; once thawed it is there at once."""
    name = s3.bucket()
    s3.put(name, "1.dump", 10)
    backup(tmp_path, "local/1.dump", 5, 3600)
    backups = collector(
        directories={"local": {"path": str(tmp_path / "local"), "files": "*.dump"}},
        buckets={
            "ill": bucket(s3, name, keys, timeout="1s"),
            "refusing": bucket(s3, name, keys, timeout="1s", endpoint=f"http://127.0.0.1:{free_port()}"),
        },
    )
    with s3.frozen():
        for _ in range(2):
            began = time.monotonic()
            collected = await backups.collect(in_seconds(10))
            assert time.monotonic() - began < 2
            found = values(collected.samples)
            assert (of(found, "ill"), of(found, "refusing")) == ({"listed": 0}, {"listed": 0})
            assert of(found, "local")["size_bytes"] == 5
            assert collected.fault is not None
            assert f"backup ill: bucket {name}: no answer in time" in collected.fault
    found = values((await backups.collect(in_seconds(10))).samples)
    assert of(found, "ill")["size_bytes"] == 10
    await backups.close()
    missing = collector(buckets={"gone": bucket(s3, "no-such-bucket", keys)})
    collected = await missing.collect(in_seconds(10))
    assert collected.fault == "backup gone: bucket no-such-bucket: there is no such bucket (NoSuchBucket)"
    await missing.close()


EMPTY = b'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>'


class Store(StubServer):
    """Answers every request in one way, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.says = Answer(200, EMPTY)

    def answer(self, request: Request) -> Answer:
        return self.says


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (Answer(403, b"<Error><Code>AccessDenied</Code></Error>"), "the key may not list it (AccessDenied)"),
        (Answer(403, b"<Error><Code>InvalidAccessKeyId</Code><AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId></Error>"), "the key is not known (InvalidAccessKeyId)"),
        (Answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"), "the secret key is not right"),
        (Answer(403, b"no"), "the store answered 403"),
        (Answer(401, b"no"), "the store answered 401"),
        (Answer(400, b"<Error><Code>SecretWord</Code></Error>"), "the store answered 400"),
        (Answer(503, b"SlowDown"), "the store answered 503"),
        (Answer(200, b"hello"), "cannot be listed (GenericError)"),
        (Answer(200, b"\xff\x00"), "cannot be listed (GenericError)"),
        (Answer(200, b"<ListBucketResult><Contents><Key>x</Key></Contents></ListBucketResult>"), "cannot be listed (GenericError)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_refusals_and_garbage_are_told_in_our_words(says: Answer, told: str, keys: dict[str, str]) -> None:
    """What to mend is said; nothing of the store's own text, nor a key, is in it."""
    with Store() as store:
        store.says = says
        rules = {"bucket": "backups", "endpoint": store.url, "files": "*", "timeout": "2s", **keys}
        backups = collector(buckets={"s3": rules})
        collected = await backups.collect(in_seconds(5))
        await backups.close()
    assert values(collected.samples) == {("backup_listed", "s3"): 0}
    assert collected.fault is not None
    assert told in collected.fault
    assert not any(word in collected.fault for word in (KEY_ID, SECRET_KEY, "SecretWord", "hello", "SlowDown"))


async def test_rotated_key_is_used_without_a_restart(keys: dict[str, str]) -> None:
    """The files are read at each listing; one that is gone is told as such, and nothing is asked with an old key."""
    with Store() as store:
        rules = {"bucket": "backups", "endpoint": store.url, "files": "*", **keys}
        backups = collector(buckets={"s3": rules})
        assert of(shown(await backups.collect(in_seconds(5))), "s3") == {"listed": 1}
        Path(keys["access_key_id_file"]).write_text("AKIDROTATED\n")
        await backups.collect(in_seconds(5))
        Path(keys["secret_access_key_file"]).unlink()
        collected = await backups.collect(in_seconds(5))
        await backups.close()
        used = [request.headers["authorization"].split("Credential=")[1].split("/")[0] for request in store.snapshot()]
        paths = {request.path.split("?")[0] for request in store.snapshot()}
        assert {request.method for request in store.snapshot()} == {"GET"}
    assert used == [KEY_ID, "AKIDROTATED"]
    assert paths == {"/backups"}
    assert collected.fault is not None
    assert "secret cannot be read" in collected.fault


async def test_store_behind_an_authority_of_its_own(run: Run, keys: dict[str, str], tmp_path: Path) -> None:
    """With its certificate the store is listed; without, it is not trusted."""
    ca, (chain, key, trusted) = trustme.CA(), (tmp_path / name for name in ("chain.pem", "key.pem", "ca.pem"))
    made = ca.issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(str(chain))
    made.private_key_pem.write_to_path(str(key))
    ca.cert_pem.write_to_path(str(trusted))
    with S3Server(run, name="s3-tls", certificate=(chain, key)) as s3:
        rules = bucket(s3, "no-such-bucket", keys)
        backups = collector(buckets={"trusted": {**rules, "ca_file": str(trusted)}, "not": rules})
        collected = await backups.collect(in_seconds(10))
        await backups.close()
    assert collected.fault is not None
    assert "backup trusted: bucket no-such-bucket: there is no such bucket" in collected.fault
    assert "backup not: bucket no-such-bucket: cannot be listed (GenericError)" in collected.fault
