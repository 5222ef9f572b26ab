"""The exporter's HTTP side as a process: TLS, users, formats and choices, with a real Prometheus and real certificates."""

from __future__ import annotations

import base64
import concurrent.futures
import gzip
import http.client
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt
import psutil
import pytest
import trustme
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.servers import PrometheusServer, Reply, Run, Service, free_port, program, scrape_config, wait_until

USER, PASSWORD = "prometheus", "c4nary-password-of-the-scraper"


def hashed(password: str, cost: int = 10) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


@dataclass
class Web:
    """An exporter that only looks at a disk, its folder, and a client for it."""

    service: Service
    port: int
    folder: Path
    authority: trustme.CA
    client: ssl.SSLContext | None = None
    credentials: str | None = None
    seen: list[bytes] = field(default_factory=list)

    @property
    def web_file(self) -> Path:
        return self.folder / "web.yml"

    def get(self, path: str = "/metrics", method: str = "GET", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.credentials is not None:
            named["Authorization"] = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            if self.client is None
            else http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.client)
        )
        try:
            connection.request(method, path, headers=named)
            if isinstance(connection, http.client.HTTPSConnection):
                self.seen.append(connection.sock.getpeercert(binary_form=True))
            answer = connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def status(self) -> int | str:
        """What a GET gives: a status, or the name of the error."""
        try:
            return self.get("/-/healthy").status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__

    def web_config(self, config: Mapping[str, Any]) -> None:
        """Write the file in one step, and have promtool look at it."""
        fresh = self.folder / "web.yml.new"
        fresh.write_text(yaml.safe_dump(dict(config)))
        fresh.replace(self.web_file)

    def certificate(self, *names: str) -> None:
        """A new certificate and key in the folder."""
        made = self.authority.issue_cert(*names)
        (self.folder / "server.pem").write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        made.private_key_pem.write_to_path(self.folder / "server.key")

    def trusting(self, *client_names: str) -> ssl.SSLContext:
        """A client that trusts the authority, with a certificate for these names of its own."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if client_names:
            self.authority.issue_cert(*client_names).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def web(run: Run, authority: trustme.CA) -> Iterator[Web]:
    """An exporter's files and a service that is not started."""
    port = free_port()
    folder = run.folder(f"web-{port}")
    config = {"web": {"listen_address": f"127.0.0.1:{port}"}, "collectors": {"disk": {"paths": {"/": "/"}}}}
    (folder / "exporter.yml").write_text(yaml.safe_dump(config))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    service = Service(
        run,
        ["prep-exporter", f"--config.file={folder}/exporter.yml", f"--web.config.file={folder}/web.yml"],
        ready_log="listening",
        name=f"web-exporter-{port}",
    )
    made = Web(service, port, folder, authority)
    made.certificate("127.0.0.1", "localhost")
    yield made
    service.kill()


TLS = {"cert_file": "server.pem", "key_file": "server.key"}


def test_prometheus_scrapes_over_tls_as_a_user(run: Run, web: Web) -> None:
    """A real Prometheus with the authority and the password is let in; with a wrong password it is not."""
    web.web_config({"tls_server_config": TLS, "basic_auth_users": {USER: hashed(PASSWORD)}})
    done = subprocess.run([program("promtool"), "check", "web-config", web.web_file], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    web.service.start()
    config = scrape_config({"good": web.port, "stranger": web.port})
    for job, password in zip(config["scrape_configs"], (PASSWORD, "wrong"), strict=True):
        job |= {
            "scheme": "https",
            "tls_config": {"ca_file": str(web.folder / "ca.pem")},
            "basic_auth": {"username": USER, "password": password},
            "scrape_interval": "500ms",
            "scrape_timeout": "500ms",
        }
    with PrometheusServer(run, config) as prometheus:
        prometheus.wait_for('up{job="good"} == 1')
        prometheus.wait_for('prep_filesystem_free_bytes{job="good"} > 0')
        prometheus.wait_for('up{job="stranger"} == 0')
        assert prometheus.query('prep_build_info{job="stranger"}') == []
    assert PASSWORD not in web.service.log_text()


def test_everything_is_behind_the_password(web: Web) -> None:
    """Unknown users, wrong passwords and none are refused alike, on every path, with the headers that were asked for."""
    web.web_config(
        {
            "basic_auth_users": {USER: hashed(PASSWORD, 4)},
            "http_server_config": {"headers": {"X-Frame-Options": "deny"}},
        }
    )
    web.service.start()
    answers = []
    for credentials in (None, f"{USER}:wrong", f"nobody:{PASSWORD}", f"{USER}:", ":"):
        web.credentials = credentials
        for path in ("/metrics", "/", "/-/healthy", "/nothing"):
            reply = web.get(path)
            answers.append((reply.status, reply.body, reply.headers.get("x-frame-options")))
            assert reply.headers["www-authenticate"].startswith("Basic ")
    assert set(answers) == {(401, b"unauthorized\n", "deny")}
    assert web.get(Authorization="Bearer x").status == 401
    web.credentials = f"{USER}:{PASSWORD}"
    assert {web.get(path).status for path in ("/metrics", "/", "/-/healthy")} == {200}
    missing = web.get("/nothing")
    assert (missing.status, missing.headers["x-frame-options"]) == (404, "deny")


def test_scrape_does_not_pay_for_the_password(web: Web) -> None:
    """bcrypt of cost 10 is 60 ms of CPU, once; guesses wait in line and cost one core, not the scraper."""
    web.web_config({"basic_auth_users": {USER: hashed(PASSWORD, 10)}})
    web.service.start()
    web.credentials = f"{USER}:{PASSWORD}"
    assert web.get().status == 200
    process = psutil.Process(web.service.pid)
    before = sum(process.cpu_times()[:2])
    for _ in range(40):
        assert web.get("/-/healthy").status == 200
    assert sum(process.cpu_times()[:2]) - before < 1.0
    with concurrent.futures.ThreadPoolExecutor(30) as pool:

        def guess(number: int) -> int:
            mine = Web(web.service, web.port, web.folder, web.authority, credentials=f"{USER}:guess {number}")
            return mine.get("/-/healthy").status

        guesses = [pool.submit(guess, number) for number in range(30)]
        began = time.monotonic()
        assert web.get().status == 200
        assert time.monotonic() - began < 1.5
        assert {each.result() for each in guesses} == {401, 503}


def test_clients_are_known_by_their_certificate(web: Web) -> None:
    """Without one TLS refuses, with one of another name the exporter does; the named one is let in."""
    web.web_config(
        {
            "tls_server_config": {
                **TLS,
                "client_auth_type": "RequireAndVerifyClientCert",
                "client_ca_file": "ca.pem",
                "client_allowed_sans": ["scraper.prep.example", "::1"],
            }
        }
    )
    web.service.start()
    web.client = web.trusting()
    assert web.status() != 200
    web.client = web.trusting("other.prep.example")
    assert web.status() == 403
    for name in ("scraper.prep.example", "::1"):
        web.client = web.trusting(name)
        assert web.status() == 200
    stranger = trustme.CA()
    web.client = web.trusting()
    stranger.issue_cert("scraper.prep.example").configure_cert(web.client)
    assert web.status() != 200


@pytest.mark.parametrize(("lowest", "highest"), [("TLS12", "TLS12"), ("TLS13", "TLS13")])
def test_versions_are_what_was_asked_for(web: Web, lowest: str, highest: str) -> None:
    """No older and no newer one is spoken."""
    web.web_config({"tls_server_config": {**TLS, "min_version": lowest, "max_version": highest}})
    web.service.start()
    for version, expected in ((ssl.TLSVersion.TLSv1_2, "TLS12"), (ssl.TLSVersion.TLSv1_3, "TLS13")):
        web.client = web.trusting()
        web.client.minimum_version = web.client.maximum_version = version
        assert (web.status() == 200) == (expected == lowest)


def test_file_is_followed_and_a_mistake_changes_nothing(web: Web) -> None:
    """A new password, a new certificate and the end of TLS count within seconds; a mistake keeps what was, and is shown."""
    web.web_config({"tls_server_config": TLS, "basic_auth_users": {USER: hashed("old-password", 4)}})
    web.service.start()
    web.client, web.credentials = web.trusting(), f"{USER}:old-password"
    assert "prep_web_config_last_reload_successful 1.0" in web.get().text

    web.web_config({"tls_server_config": TLS, "basic_auth_users": {USER: hashed("new-password", 4)}})
    wait_until(lambda: web.status() == 401, "the old password to be refused", 10)
    web.credentials = f"{USER}:new-password"
    assert web.status() == 200

    first = web.seen[-1]
    web.certificate("127.0.0.1", "new.prep.example")
    wait_until(lambda: web.status() == 200 and web.seen[-1] != first, "the new certificate to be served", 10)

    (web.folder / "server.key").write_text("no key")
    wait_until(lambda: "prep_web_config_last_reload_successful 0.0" in web.get().text, "the mistake to be shown", 10)
    assert web.status() == 200
    told = web.service.log_text().count("web configuration refused")
    time.sleep(2.2)
    assert web.service.log_text().count("web configuration refused") == told, "a mistake is told once"
    web.certificate("127.0.0.1")
    wait_until(lambda: "prep_web_config_last_reload_successful 1.0" in web.get().text, "the mended file to count", 10)

    web.web_config({})
    web.client = web.credentials = None
    wait_until(lambda: web.status() == 200, "plain HTTP", 10)
    assert "password" not in web.service.log_text()


def test_wrong_web_configuration_is_exit_code_2(web: Web) -> None:
    """At the start there is no last good one."""
    web.web_config({"basic_auth_users": {USER: PASSWORD}})
    assert web.service.run_to_end() == 2
    assert "web.yml:1: basic_auth_users.prometheus" in web.service.log_text().replace("web.yml:2", "web.yml:1")
    assert PASSWORD not in web.service.log_text()


def test_page_comes_in_every_format(web: Web) -> None:
    """Each answer says its own version, its own parser reads it, and promtool has no objection."""
    web.web_config({})
    web.service.start()
    for accept, content_type in (
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=underscores,text/plain;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        ("application/openmetrics-text;version=0.0.1", "application/openmetrics-text; version=0.0.1; charset=utf-8"),
    ):
        reply = web.get(Accept=accept)
        assert (reply.status, reply.headers["content-type"]) == (200, content_type)
        families = list((parse_openmetrics if "openmetrics" in content_type else parse_text)(reply.text))
        assert "prep_filesystem_free_bytes" in {family.name for family in families}
        if "openmetrics" not in content_type:
            done = subprocess.run(
                [program("promtool"), "check", "metrics"], input=reply.body, capture_output=True, check=False
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert "content-encoding" not in web.get(Accept_Encoding="gzip;q=0, *").headers
    zipped = web.get(Accept_Encoding="gzip")
    assert zipped.headers["vary"] == "Accept, Accept-Encoding"
    assert b"prep_filesystem_free_bytes" in gzip.decompress(zipped.body)


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage-c4nary\r\n\r\n",
        b"GET /c4nary HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: c4nary" + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff:c4nary\r\nAccept: ;q=,\xff\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
    ids=["no HTTP", "version", "long", "bytes", "TLS"],
)
def test_strangers_words_are_not_in_the_log(web: Web, sent: bytes) -> None:
    """A request that is none is answered or cut, and leaves no trace of what was in it."""
    web.web_config({"basic_auth_users": {USER: hashed(PASSWORD, 4)}})
    web.service.start()
    with socket.create_connection(("127.0.0.1", web.port), 10) as stranger:
        stranger.sendall(sent)
        answer = stranger.recv(4096)
    assert answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 401 "))
    assert web.status() == 401
    assert "c4nary" not in web.service.log_text()
    assert "Traceback" not in web.service.log_text()


def test_collectors_can_be_chosen(web: Web) -> None:
    """`collect[]` and `exclude[]` as node_exporter has them; what makes no sense is 400 with the reason."""
    web.web_config({})
    web.service.start()
    assert 'prep_scrape_collector_success{collector="disk"} 1.0' in web.get("/metrics?collect[]=disk").text
    without = web.get("/metrics?exclude%5B%5D=disk").text
    assert "prep_filesystem" not in without.replace('metric="prep_filesystem', "")
    assert "prep_build_info" in without
    for query, told in (("collect[]=disk&exclude[]=disk", "together"), ("collect[]=redis", "'redis'; there: disk")):
        reply = web.get(f"/metrics?{query}")
        assert reply.status == 400
        assert told in reply.text
