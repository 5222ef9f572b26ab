"""The demo platform without containers: real PostgreSQL, Redis and Stripe's double, and its services as processes.

The database is made by the very script that the PostgreSQL image runs (demo/platform/initdb), with its own secrets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.servers import PASSWORD, PostgresServer, RedisServer, Run, Service, fetch, free_port, post_json

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "prepchef"
SECRETS = ("app", "exporter", "remediator", "analyst", "replication")

GOOD_ORDER: Mapping[str, Any] = {
    "items": [{"holding": "cold", "temperature_c": 4, "hours_since_prep": 6, "allergens": ["milk"]}],
    "delivery": {"minutes": 35, "region": "CA"},
    "kitchen": {"permit": "commissary", "permit_days_left": 120, "inspection_grade": 94},
    "guest": {"age": 30},
    "amount_minor": 3000,
    "currency": "usd",
    "alcohol_units": 0,
}


def localstripe_python() -> Path:
    """The interpreter of localstripe's own environment, made from its lock file when it is not there yet."""
    folder = Path(os.environ.get("PREP_LOCALSTRIPE_ENV", ROOT / "build" / "localstripe"))
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=120)
        lock = str(ROOT / "demo" / "localstripe.lock")
        pip = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--require-hashes",
            "-r",
            lock,
        ]
        subprocess.run(pip, check=True, timeout=300)
        (folder / "complete").touch()
    return python


def lines(fault: Service) -> list[dict[str, Any]]:
    """What a fault has told so far."""
    return [json.loads(line) for line in fault.words.splitlines() if line.startswith("{")]


class Platform:
    """Servers and services of one test module. `start()` starts servers; services are started by the test."""

    def __init__(self, run: Run, postgres: PostgresServer, redis: RedisServer) -> None:
        self._run = run
        self.postgres = postgres
        self.redis = redis
        self.secrets = run.folder("secrets")
        for name in SECRETS:
            (self.secrets / f"postgres_{name}_password").write_text(f"{name}-it's secret\\\n")
        self.ports = {name: free_port() for name in ("stripe", "payments", "compliance", "load", "inbox")}
        self.environment = self._environment()
        self._make_database()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def service(self, name: str, **env: str) -> Service:
        """A service of ours (`compliance`, `payments`, `load`, `inbox`), not started yet."""
        settings = {**self.environment, "PREP_LISTEN_PORT": str(self.ports[name]), **env}
        argv = ["python", "-m", f"demo.{name}"]
        return Service(self._run, argv, ready_url=f"{self.url(name)}/health", env=settings, name=name)

    def stripe(self) -> Service:
        """Stripe's double, not started yet."""
        double = ROOT / "demo" / "stripe_double.py"
        argv: list[str | Path] = [localstripe_python(), double, "--host=127.0.0.1", f"--port={self.ports['stripe']}"]
        return Service(self._run, argv, ready_url=f"{self.url('stripe')}/_config/health", name="stripe")

    def fault(self, *words: str, deadline: float = 60.0) -> list[dict[str, Any]]:
        """Run `python -m demo.faults` to its end, which must be a good one; the JSON objects that it printed."""
        fault = self._fault(*words)
        code = fault.run_to_end(deadline)
        assert code == 0, f"demo.faults {' '.join(words)} ended with {code}\n{fault.tail()}"
        return lines(fault)

    def start_fault(self, *words: str) -> Service:
        """The same, left running once it has printed its first object; read them with `lines()`."""
        return self._fault(*words, ready_log=r"(?m)^\{").start()

    def start_broken_fault(self, *words: str) -> Service:
        """The same, not waited for: the test looks at how it ends."""
        fault = self._fault(*words)
        fault.launch()
        return fault

    def _fault(self, *words: str, ready_log: str | None = None) -> Service:
        argv = ["python", "-m", "demo.faults", *words]
        return Service(self._run, argv, env=self.environment, name="fault", ready_log=ready_log)

    def sql(self, text: str, user: str | None = None) -> list[list[str]]:
        """Run SQL as the superuser, or as one of the platform's roles."""
        if user is None:
            return self.postgres.sql(text, DATABASE)
        return self.postgres.sql(text, DATABASE, f"prep_{user}", self.password(user))

    def password(self, role: str) -> str:
        """The password of `prep_<role>`."""
        return (self.secrets / f"postgres_{role}_password").read_text().rstrip("\n")

    def metric(self, service: str, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 when there is none."""
        families = text_string_to_metric_families(fetch(f"{self.url(service)}/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def check(self, order: Mapping[str, Any] = GOOD_ORDER, rule_set: str = "food-safety", timeout: float = 10.0) -> Any:
        """One compliance check; the answer with its status."""
        body = {"order_ref": "test", "rule_set": rule_set, "order": order}
        return post_json(f"{self.url('compliance')}/v1/checks", body, timeout=timeout)

    def pay(self, order_ref: str, card: str = "pm_card_visa", amount_minor: int = 2500, timeout: float = 25.0) -> Any:
        """One payment; the answer with its status."""
        body = {"order_ref": order_ref, "amount_minor": amount_minor, "currency": "usd", "payment_method": card}
        return post_json(f"{self.url('payments')}/v1/payments", body, timeout=timeout)

    def _environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "PREP_POSTGRES_HOST": "127.0.0.1",
            "PREP_POSTGRES_PORT": str(self.postgres.port),
            "PREP_POSTGRES_APP_PASSWORD_FILE": str(self.secrets / "postgres_app_password"),
            "PREP_POSTGRES_ANALYST_PASSWORD_FILE": str(self.secrets / "postgres_analyst_password"),
            "PREP_REDIS_URL": self.redis.url,
            "PREP_LISTEN_HOST": "127.0.0.1",
            "PREP_COMPLIANCE_URL": self.url("compliance"),
            "PREP_PAYMENTS_URL": self.url("payments"),
            "STRIPE_API_BASE": self.url("stripe"),
        }

    def _make_database(self) -> None:
        self.postgres.sql(f'create database "{DATABASE}"')
        self.initialize()

    def initialize(self) -> None:
        """Run the image's own script against the server, as its entrypoint would."""
        login = {"PGHOST": "127.0.0.1", "PGPORT": str(self.postgres.port), "PGPASSWORD": PASSWORD}
        environment = {**os.environ, **login, "PREP_SECRETS_DIR": str(self.secrets), "PGDATA": str(self.postgres.data)}
        script = ROOT / "demo" / "platform" / "initdb" / "10-platform.sh"
        done = subprocess.run(
            ["bash", str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
