"""The web configuration file: what is read, that promtool agrees, and that every mistake is told at its line."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import bcrypt
import pytest
import trustme

from exporter.errors import ConfigError
from exporter.gatekeeper import Gatekeeper
from exporter.web_config import load
from tests.support.run import program

PASSWORD = "passw0rd-of-the-scraper"
SALT = b"$2b$04$fixedsaltfixedsaltfixeu"
"""The same in each process: HASH is part of tests' names."""
HASH = bcrypt.hashpw(PASSWORD.encode(), SALT).decode()

WHOLE = f"""\
tls_server_config:
  cert_file: server.pem
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]
  curve_preferences: [CurveP256]
  prefer_server_cipher_suites: true
http_server_config:
  http2: false
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
basic_auth_users:
  prometheus: {HASH}
  nobody: ''
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    """A folder with a certificate, its key, and the authority."""
    made = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "server.pem").write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
    made.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text)
    return path


def promtool(path: Path) -> bool:
    done = subprocess.run(
        [program("promtool"), "check", "web-config", path], capture_output=True, timeout=20, check=False
    )
    return done.returncode == 0


def faults_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text))
    return [str(fault) for fault in caught.value.faults]


def test_whole_file_is_read_and_promtool_takes_it(folder: Path) -> None:
    """All that exporter-toolkit knows is known; relative paths start at the file."""
    path = written(folder, WHOLE.replace("  nobody: ''\n", ""))
    assert promtool(path)
    config = load(path)
    assert config.ssl is not None
    assert (config.ssl.verify_mode.name, config.ssl.minimum_version.name) == ("CERT_REQUIRED", "TLSv1_2")
    assert config.users == {"prometheus": HASH}
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"}
    assert config.watched == tuple(folder / name for name in ("web.yml", "server.pem", "server.key", "ca.pem"))
    assert HASH not in repr(config)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "basic_auth_users:\n",
        "tls_server_config: {}\n",
        "http_server_config:\n  http2: true\n",
        "# nothing\n{}\n",
    ],
)
def test_file_that_sets_nothing_is_plain_http(folder: Path, text: str) -> None:
    """As exporter-toolkit has it, and promtool agrees."""
    path = written(folder, text)
    assert promtool(path)
    config = load(path)
    assert (config.ssl, config.users, config.watched) == (None, {}, (path,))


def test_no_file_is_plain_http() -> None:
    """The default: everybody may read."""
    assert load(None).ssl is None


TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"


@pytest.mark.parametrize(
    ("text", "place", "told", "refused"),
    [
        ("basic_auth_users: {a: secret-in-clear}", ":1: basic_auth_users.a", "htpasswd", True),
        (f"basic_auth_users: {{a: {HASH.replace('$04$', '$31$')}}}", ":1: basic_auth_users.a", "cost of 31", False),
        (f"basic_auth_users: {{'a:b': {HASH}}}", ":1: basic_auth_users.a:b", "no name of a user", False),
        ("basic_auth_users: {a: 5}", ":1: basic_auth_users.a", "htpasswd", True),
        ("basic_auth_users: [a]", ":1: basic_auth_users", "not a mapping", True),
        ("basic_auth_user: {}", ":1: basic_auth_user", "did you mean basic_auth_users?", True),
        ("http_server_config: {headers: {X-Other: a}}", ":1: http_server_config.headers.X-Other", "those are", True),
        ("tls_server_config: {cert_file: server.pem}", ":1: tls_server_config.key_file", "is missing", True),
        (TLS.replace("server.pem", "none.pem"), ":2: tls_server_config.cert_file", "No such file", True),
        (TLS.replace("server.key", "server.pem"), ":2: tls_server_config.cert_file", "do not go together", True),
        (TLS.replace("server.pem", "ca.pem"), ":2: tls_server_config.cert_file", "do not go together", True),
        (TLS + "  client_ca_file: ca.pem\n", ":4: tls_server_config.client_ca_file", "is not used", True),
        (TLS + "  client_auth_type: RequireAndVerifyClientCert\n", ":4: tls_server_config.client_auth_type", "by no authority", False),
        (TLS + "  client_auth_type: RequestClientCert\n", ":4: tls_server_config.client_auth_type", "write one of", False),
        (TLS + "  client_allowed_sans: [a]\n", ":4: tls_server_config.client_allowed_sans", "set client_auth_type", True),
        (TLS + "  min_version: TLS13\n  max_version: TLS12\n", ":4: tls_server_config.min_version", "is newer", False),
        (TLS + "  min_version: SSL3\n", ":4: tls_server_config.min_version", "write one of", True),
        (TLS + "  cipher_suites: [A, B]\n", ":4: tls_server_config.cipher_suites.1", "no cipher suite", True),
        (TLS + "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: server.key\n", ":5: tls_server_config.client_ca_file", "holds no certificate", False),
        ("tls_server_config: [", ":1", "is not YAML", True),
        ("- a", "web.yml", "is a mapping", True),
    ],
)  # fmt: skip
def test_every_mistake_has_its_line_and_remedy(folder: Path, text: str, place: str, told: str, refused: bool) -> None:
    """What promtool refuses is refused (`refused`), and so is what Python's TLS would do in another way."""
    found = faults_of(folder, text)
    assert any(place in line and told in line for line in found), found
    assert not (refused and promtool(folder / "web.yml"))


def test_password_in_the_place_of_a_hash_is_not_repeated(folder: Path) -> None:
    """The most likely mistake must not end in a log."""
    assert all("secret-in-clear" not in line for line in faults_of(folder, "basic_auth_users: {a: secret-in-clear}"))


def test_mistakes_of_all_parts_are_told_at_once(folder: Path) -> None:
    """Users, certificate and policy."""
    found = faults_of(
        folder, "basic_auth_users: {a: x, b: y}\n" + TLS.replace("server.pem", "n") + "  client_ca_file: ca.pem\n"
    )
    assert len(found) == 4


def test_missing_file_is_told(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match="put the file there"):
        load(tmp_path / "none.yml")


async def test_guesses_push_no_scraper_out() -> None:
    """Who has logged in is let in at once, after hundreds of wrong guesses and while more wait than may."""
    keeper, users = Gatekeeper(lambda: load(None)), {"prometheus": HASH}
    assert await keeper.allowed("prometheus", PASSWORD.encode(), users)
    for number in range(200):
        assert not await keeper.allowed("prometheus", f"guess {number}".encode(), users)
    guesses = [
        asyncio.create_task(keeper.allowed("prometheus", f"more {number}".encode(), users)) for number in range(40)
    ]
    await asyncio.sleep(0)
    assert await keeper.allowed("prometheus", PASSWORD.encode(), users)
    assert set(await asyncio.gather(*guesses)) == {False, None}


async def test_password_is_checked_once_and_never_kept() -> None:
    """A scrape does not pay bcrypt each time; unknown users and wrong passwords are refused alike; 72 bytes count."""
    keeper, users = Gatekeeper(lambda: load(None)), {"prometheus": HASH}
    costly = bcrypt.hashpw(b"p", bcrypt.gensalt(12)).decode()
    assert await keeper.allowed("prometheus", PASSWORD.encode(), users)
    assert not await keeper.allowed("prometheus", b"wrong", users)
    assert not await keeper.allowed("nobody", PASSWORD.encode(), users)
    assert not await keeper.allowed("prometheus", PASSWORD.encode(), {"prometheus": costly}), (
        "a new hash is a new check"
    )
    long = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert await keeper.allowed("prometheus", b"x" * 100, {"prometheus": long})
    assert PASSWORD.encode() not in repr(vars(keeper)).encode()
