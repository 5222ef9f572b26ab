"""Who may deliver: user and password, TLS and clients' certificates, tried by a real Alertmanager and by strangers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from remediator.settings import BasicAuth, Tls
from tests.integration.test_prepctl import Prepctl
from tests.integration.test_webhook import stored
from tests.integration.test_webhook_alertmanager import LABELS, until
from tests.support.deliveries import read
from tests.support.http_side import BEARER, OPERATOR, TOKEN, Side, serve
from tests.support.servers import AlertmanagerServer, Run

USER, PASSWORD, NEXT = "alertmanager", "password of the tests: ä", "the next password"


@dataclass(frozen=True)
class Pki:
    """An authority in `folder`: the server's certificate, one of Alertmanager, and one of somebody else."""

    folder: Path
    authority: trustme.CA

    def issue(self, name: str, *identities: str, by: trustme.CA | None = None) -> dict[str, str]:
        """A certificate with its key, in files."""
        made = (by or self.authority).issue_cert(*identities)
        files = {"cert_file": str(self.folder / f"{name}.pem"), "key_file": str(self.folder / f"{name}.key")}
        made.cert_chain_pems[0].write_to_path(files["cert_file"])
        made.private_key_pem.write_to_path(files["key_file"])
        return files

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def tls(self, **changes: Any) -> Tls:
        """Settings of a server that demands clients' certificates from the webhook's senders."""
        own = self.issue("server", "127.0.0.1")
        return Tls.model_validate({**own, "client_ca_file": self.ca_file, **changes})

    def trust(self, client: Mapping[str, str] | None = None) -> ssl.SSLContext:
        """A client's context."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if client is not None:
            context.load_cert_chain(client["cert_file"], client["key_file"])
        return context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Pki(tmp_path, authority)


@pytest.fixture
def basic(tmp_path: Path) -> BasicAuth:
    """The second file is there before its password is."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "password.next").write_text("")
    return BasicAuth(user=USER, password_files=(tmp_path / "password", tmp_path / "password.next"))


@contextlib.asynccontextmanager
async def alertmanager(run: Run, side: Side, **http_config: Any) -> AsyncIterator[AlertmanagerServer]:
    """An Alertmanager with one route to the webhook, and this `http_config`."""
    hook = {"url": side.hook, "send_resolved": True, "http_config": http_config}
    route = {
        "receiver": "remediator",
        "group_by": ["..."],
        "group_wait": "0s",
        "group_interval": "1s",
        "repeat_interval": "1h",
    }
    server = AlertmanagerServer(run, {"route": route, "receivers": [{"name": "remediator", "webhook_configs": [hook]}]})
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)


async def delivered(side: Side, server: AlertmanagerServer) -> None:
    """An alert is posted and stored, by the first try."""
    await asyncio.to_thread(server.post, LABELS)
    await until(lambda: side.count("prep_remediator_deliveries_total", result="stored") == 1)
    assert side.count("prep_remediator_deliveries_total", result="unauthorized") == 0


async def post(url: str, **options: Any) -> tuple[int, str]:
    """Post a real body on a connection of its own; the status and the word of the refusal."""
    async with aiohttp.ClientSession() as session, session.post(url, data=read("firing_1"), **options) as answer:
        said = await answer.json()
        return answer.status, said.get("error", {}).get("code", said.get("status"))


def basic_header(user: str, password: str) -> dict[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(user, password, encoding="utf-8")}


# -- by a real Alertmanager -------------------------------------------------------------------------------


async def test_alertmanager_by_user_and_password(tmp_path: Path, run: Run, basic: BasicAuth) -> None:
    """`basic_auth`, and no token at all."""
    async with (
        serve(tmp_path, tokens=False, basic=basic) as side,
        alertmanager(run, side, basic_auth={"username": USER, "password": PASSWORD}) as server,
    ):
        await delivered(side, server)


async def test_alertmanager_by_tls_and_token(tmp_path: Path, run: Run, pki: Pki) -> None:
    """`tls_config.ca_file` and a bearer token, no client's certificate."""
    async with (
        serve(tmp_path, tls=pki.tls(client_ca_file=None)) as side,
        alertmanager(
            run, side, tls_config={"ca_file": str(pki.ca_file)}, authorization={"credentials": TOKEN}
        ) as server,
    ):
        await delivered(side, server)


async def test_alertmanager_by_certificate(tmp_path: Path, run: Run, pki: Pki) -> None:
    """`tls_config.cert_file` alone: the certificate is who it is."""
    own = pki.issue("alertmanager", "alertmanager.test")
    async with (
        serve(tmp_path, tokens=False, tls=pki.tls(client_allowed_sans=("alertmanager.test",))) as side,
        alertmanager(run, side, tls_config={"ca_file": str(pki.ca_file), **own}) as server,
    ):
        await delivered(side, server)


async def test_alertmanager_by_certificate_and_password(tmp_path: Path, run: Run, pki: Pki, basic: BasicAuth) -> None:
    """Both are configured, and both are given."""
    own = pki.issue("alertmanager", "alertmanager.test")
    sent = {"tls_config": {"ca_file": str(pki.ca_file), **own}, "basic_auth": {"username": USER, "password": PASSWORD}}
    async with (
        serve(tmp_path, tokens=False, basic=basic, tls=pki.tls()) as side,
        alertmanager(run, side, **sent) as server,
    ):
        await delivered(side, server)


async def test_alertmanager_over_a_certificate_that_changed(tmp_path: Path, run: Run, pki: Pki) -> None:
    """The authority is replaced under a running server: who has the old certificate is refused, the new one delivers."""
    pki.issue("alertmanager", "alertmanager.test")
    own = {"cert_file": str(tmp_path / "alertmanager.pem"), "key_file": str(tmp_path / "alertmanager.key")}
    async with (
        serve(tmp_path, tokens=False, tls=pki.tls()) as side,
        alertmanager(run, side, tls_config={"ca_file": str(pki.ca_file), **own}) as server,
    ):
        await delivered(side, server)
        before = pki.trust(own)
        following = Pki(tmp_path, trustme.CA())
        following.authority.cert_pem.write_to_path(str(pki.ca_file))
        following.issue("server", "127.0.0.1")
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(10):
                while True:
                    await post(side.hook, ssl=before)
                    await asyncio.sleep(0.1)
        following.issue("alertmanager", "alertmanager.test")
        had = len(stored(tmp_path))
        await asyncio.to_thread(server.post, {**LABELS, "instance": "another"})
        await until(lambda: len(stored(tmp_path)) > had)


# -- who is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, "password_missing"),
        ({"Authorization": "Basic"}, "password_missing"),
        ({"Authorization": "Basic !"}, "password_wrong"),
        ({"Authorization": "Basic z\u00e4hne"}, "password_wrong"),
        ({"Authorization": "Basic bm9jb2xvbg=="}, "password_wrong"),
        (BEARER, "password_missing"),
        (basic_header(USER, ""), "password_wrong"),
        (basic_header(USER, PASSWORD + "x"), "password_wrong"),
        (basic_header("somebody", PASSWORD), "password_wrong"),
    ],
)
async def test_without_user_and_password_nothing_is_taken(
    tmp_path: Path, basic: BasicAuth, header: dict[str, str], code: str
) -> None:
    """401 with the challenge of RFC 7617, nothing stored, counted as refused."""
    async with serve(tmp_path, tokens=False, basic=basic) as side:
        assert await post(side.hook, headers=header) == (401, code)
        assert side.count("prep_remediator_deliveries_total", result="unauthorized") == 1
        async with aiohttp.ClientSession() as session, session.post(side.hook, headers=header) as answer:
            assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert stored(tmp_path) == []


async def test_passwords_are_rotated_without_a_gap(tmp_path: Path, basic: BasicAuth) -> None:
    """Two are valid while both files hold one; an emptied file ends its password at once; none at all is 503."""
    old, new = basic_header(USER, PASSWORD), basic_header(USER, NEXT)
    async with serve(tmp_path, tokens=False, basic=basic) as side:
        assert (await post(side.hook, headers=new))[0] == 401
        (tmp_path / "password.next").write_text(NEXT)
        assert [(await post(side.hook, headers=each))[0] for each in (old, new)] == [200, 200]
        (tmp_path / "password").write_text("")
        assert [(await post(side.hook, headers=each))[0] for each in (old, new)] == [401, 200]
        (tmp_path / "password.next").unlink()
        assert await post(side.hook, headers=new) == (503, "no_password_configured")


async def test_token_or_password_where_both_are_configured(tmp_path: Path, basic: BasicAuth) -> None:
    """While Alertmanager is moved from the one to the other, either is enough; a wrong one is not."""
    async with serve(tmp_path, basic=basic) as side:
        assert (await post(side.hook, headers=BEARER))[0] == 200
        assert (await post(side.hook, headers=basic_header(USER, PASSWORD)))[0] == 200
        assert await post(side.hook, headers=basic_header(USER, "wrong")) == (401, "password_wrong")
        assert await post(side.hook) == (401, "token_missing")


async def test_without_the_right_certificate_nothing_is_taken(tmp_path: Path, pki: Pki) -> None:
    """None at all, one of another name, one of another authority; a token beside it does not help."""
    tls = pki.tls(client_allowed_sans=("alertmanager.test", "10.0.0.1"))
    async with serve(tmp_path, tls=tls) as side:
        assert await post(side.hook, headers=BEARER, ssl=pki.trust()) == (403, "certificate_missing")
        other = pki.trust(pki.issue("other", "somebody.test"))
        assert await post(side.hook, headers=BEARER, ssl=other) == (403, "certificate_name")
        stranger = pki.trust(pki.issue("stranger", "alertmanager.test", by=trustme.CA()))
        with pytest.raises(aiohttp.ClientError):
            await post(side.hook, headers=BEARER, ssl=stranger)
        assert stored(tmp_path) == []
        known = pki.trust(pki.issue("known", "10.0.0.1"))
        assert await post(side.hook, ssl=known) == (401, "token_missing")
        assert await post(side.hook, headers=BEARER, ssl=known) == (200, "stored")


# -- what else is served there ----------------------------------------------------------------------------


async def test_health_metrics_and_api_ask_for_no_certificate(tmp_path: Path, pki: Pki) -> None:
    """Health and metrics are open, the API wants its token, and prepctl gets there by the authority's file alone."""
    async with serve(tmp_path, tls=pki.tls()) as side, aiohttp.ClientSession() as session:
        for path, headers, status in (
            ("/-/healthy", {}, 200),
            ("/-/ready", {}, 200),
            ("/metrics", {}, 200),
            ("/api/v1/status", {}, 401),
            ("/api/v1/status", BEARER, 401),
            ("/api/v1/status", OPERATOR, 200),
        ):
            async with session.get(side.url + path, headers=headers, ssl=pki.trust()) as answer:
                assert (path, answer.status) == (path, status)
        operator = Prepctl(side.url, tmp_path / "api-token")
        refused = await operator("episodes:list")
        assert refused.code != 0
        operator.environment["SSL_CERT_FILE"] = str(pki.ca_file)
        told = await operator("episodes:list")
        assert (told.code, told.err) == (0, "")


async def test_files_that_cannot_be_used_change_nothing(
    tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that does not fit its certificate: the former ones hold, told once; the right one is taken when it comes."""
    tls = pki.tls(client_ca_file=None)
    key = tls.key_file.read_bytes()
    async with serve(tmp_path, tls=tls) as side:
        first = await serial(side.url)
        pki.issue("server", "127.0.0.1")
        wanted = tls.key_file.read_bytes()
        tls.key_file.write_bytes(key)
        await until(lambda: "TLS files refused" in capsys.readouterr().out)
        await asyncio.sleep(2.5)
        assert "TLS files refused" not in capsys.readouterr().out
        assert await serial(side.url) == first
        tls.key_file.write_bytes(wanted)
        async with asyncio.timeout(10):
            while await serial(side.url) == first:
                await asyncio.sleep(0.1)
        assert (await post(side.hook, headers=BEARER, ssl=pki.trust()))[0] == 200


async def serial(url: str) -> str:
    """Which certificate a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
