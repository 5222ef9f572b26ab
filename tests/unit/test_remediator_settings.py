"""What the remediator's settings may not say together, and TLS files that cannot be used: told before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from remediator.__main__ import main
from remediator.errors import ConfigError
from remediator.settings import Tls, parse
from remediator.tls import context

BASE = """
environment: test
prometheus: {urls: ["http://prometheus:9090"]}
alertmanager: {urls: ["http://alertmanager:9093"]}
"""
TLS = "listen: {tls: {cert_file: /c, key_file: /k"


@pytest.mark.parametrize(
    "said",
    [
        "webhook: {token_files: [/t]}",
        "webhook: {basic_auth: {user: u, password_files: [/p]}}",
        f"webhook: {{}}\n{TLS}, client_ca_file: /a}}}}",
    ],
)
def test_one_way_to_know_the_sender_is_enough(said: str) -> None:
    """Token, password or certificate."""
    assert parse(BASE + said, "x.yml").environment == "test"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("webhook: {}", "x.yml: webhook: would take alerts from anybody"),
        ("webhook: {token_files: []}", "x.yml: webhook: would take alerts from anybody"),
        (f"webhook: {{}}\n{TLS}}}}}", "x.yml: webhook: would take alerts from anybody"),
        ("webhook: {basic_auth: {user: u, password_files: []}}", "webhook.basic_auth.password_files"),
        ("webhook: {basic_auth: {user: 'u:v', password_files: [/p]}}", "webhook.basic_auth.user"),
        (
            f"webhook: {{token_files: [/t]}}\n{TLS}, client_allowed_sans: [a]}}}}",
            "x.yml: listen.tls.client_allowed_sans: is nothing without",
        ),
        (
            "webhook: {token_files: [/t]}\nservices: {postgres: {}}",
            "x.yml: services.postgres: is on the never list (remove it here)",
        ),
        (
            "webhook: {token_files: [/t]}\nservices: {prometheus: {}}\nnever: []",
            "x.yml: services.prometheus: is what the remediator itself stands on",
        ),
        (
            "webhook: {token_files: [/t]}\nservices: {gate: {}}\ndocker: {gate_url: 'http://gate:2375'}",
            "x.yml: services.gate: is what the remediator itself stands on",
        ),
        (
            "webhook: {token_files: [/t]}\nservices: {db: {}}\njournal: {url: 'postgresql+asyncpg://u@db/journal'}",
            "x.yml: services.db: is what the remediator itself stands on",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(said: str, fault: str) -> None:
    """Each by its place, with what to do."""
    with pytest.raises(ConfigError) as refused:
        parse(BASE + said, "x.yml")
    assert fault in str(refused.value)


def test_every_tls_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Not only the first one: what is not there, and what is no certificate."""
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError) as refused:
        context(Tls(cert_file=tmp_path / "c", key_file=tmp_path / "k", client_ca_file=tmp_path / "ca.pem"))
    assert [fault.where for fault in refused.value.faults] == [
        "listen.tls.cert_file, key_file",
        "listen.tls.client_ca_file",
    ]
    assert "No such file or directory" in str(refused.value)


def test_faults_of_tls_and_of_runbooks_are_told_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--config.check` with both: exit code 2, each by its place, so that nobody has to come again."""
    (tmp_path / "runbooks").mkdir()
    said = f"webhook: {{token_files: [/t]}}\nrunbooks: {tmp_path}/runbooks\n{TLS}}}}}"
    (tmp_path / "x.yml").write_text(BASE + said)
    assert main([f"--config.file={tmp_path}/x.yml", "--config.check"]) == 2
    told = capsys.readouterr().err
    assert "listen.tls.cert_file, key_file: /c, /k: cannot be used: No such file or directory" in told
    assert f"{tmp_path}/runbooks: no runbook here" in told
