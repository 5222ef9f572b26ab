"""Real Prometheus and Alertmanager servers for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.support.daemon import Daemon, write_config
from tests.support.run import Run, program
from tests.support.waiting import fetch, free_port, post_json, wait_until

Config = str | Path | Mapping[str, Any]


def config_text(config: Config) -> str:
    """A server's configuration as text: given as such, as a file, or as a mapping."""
    if isinstance(config, Path):
        return config.read_text()
    return config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant query: its labels, its value, and its time (UNIX seconds)."""

    labels: Mapping[str, str]
    value: float
    at: float


class PrometheusServer(Daemon):
    """prometheus on 127.0.0.1.

    config   prometheus.yml as text, file or mapping; `{rules}` in its text is where the rule files lie. A mapping gets
             `rule_files` by itself
    rules    rule files by name (`compliance.rules.yml`), each as text, file or mapping
    """

    def __init__(
        self,
        run: Run,
        config: Config,
        rules: Mapping[str, Config] | None = None,
        options: Sequence[str] = (),
        *,
        name: str = "prometheus",
    ) -> None:
        super().__init__(run, name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config_file = self.folder / "prometheus.yml"
        self._rules_folder = self.folder / "rules"
        self._rules_folder.mkdir()
        self._options = list(options)
        self._write(config, rules or {})

    def argv(self) -> list[str]:
        return [
            program("prometheus"),
            f"--config.file={self.config_file}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--web.enable-lifecycle",
            "--web.enable-admin-api",
            "--log.level=warn",
            *self._options,
        ]

    def ready(self) -> bool:
        return fetch(f"{self.url}/-/ready", timeout=2).status == 200

    def reload(self, config: Config | None = None, rules: Mapping[str, Config] | None = None) -> None:
        """Write new files (if any) and have them loaded. Raises AssertionError with what Prometheus refuses."""
        self._write(config, rules or {})
        answer = fetch(f"{self.url}/-/reload", "POST", timeout=20)
        if answer.status != 200:
            raise AssertionError(f"prometheus refused its configuration: {answer.text}\n{self.tail()}")

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """An instant query, now or at UNIX seconds; scalars become one sample without labels."""
        parameters = {"query": expression} | ({} if at is None else {"time": str(at)})
        data = self.api(f"query?{urlencode(parameters)}")
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]), float(data["result"][0]))]
        return [Sample(each["metric"], float(each["value"][1]), float(each["value"][0])) for each in data["result"]]

    def value(self, expression: str) -> float | None:
        """The value of an expression that has at most one series; None = no series."""
        samples = self.query(expression)
        if len(samples) > 1:
            raise AssertionError(f"{len(samples)} series for {expression}: {[dict(s.labels) for s in samples[:5]]}")
        return samples[0].value if samples else None

    def wait_for(
        self, expression: str, predicate: Callable[[list[Sample]], bool] = bool, deadline: float = 30.0
    ) -> list[Sample]:
        """Ask until `predicate` holds of the answer; by default: until there is one."""
        last: list[Sample] = []

        def good() -> bool:
            nonlocal last
            last = self.query(expression)
            return predicate(last)

        wait_until(good, f"prometheus to see {expression}", deadline, 0.1, seen=lambda: f"last answer: {last}")
        return last

    def alerts(self) -> list[dict[str, Any]]:
        """Pending and firing alerts (/api/v1/alerts)."""
        return list(self.api("alerts")["alerts"])

    def targets(self) -> dict[str, str]:
        """Health (`up`, `down`, `unknown`) by address of each target."""
        return {each["scrapeUrl"]: each["health"] for each in self.api("targets")["activeTargets"]}

    def api(self, path: str) -> Any:
        """`data` of an answer of /api/v1; raises AssertionError with the error otherwise."""
        answer = fetch(f"{self.url}/api/v1/{path}", timeout=10)
        body = answer.json()
        if body.get("status") != "success":
            raise AssertionError(f"prometheus answered {answer.status} to {path}: {body.get('error')}")
        return body["data"]

    def _write(self, config: Config | None, rules: Mapping[str, Config]) -> None:
        for file_name, rule_file in rules.items():
            write_config(self._rules_folder / file_name, config_text(rule_file))
        if config is None:
            return
        if isinstance(config, Mapping) and "rule_files" not in config:
            config = {**config, "rule_files": [f"{self._rules_folder}/*.yml"]}
        write_config(self.config_file, config_text(config).replace("{rules}", str(self._rules_folder)))


def scrape_config(
    targets: Mapping[str, int],
    alertmanagers: Sequence[int] = (),
    interval: str = "200ms",
    **external_labels: str,
) -> dict[str, Any]:
    """A quick configuration: jobs by name with the port on 127.0.0.1 each is scraped from, and who gets the alerts."""
    jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in targets.items()]
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "scrape_configs": jobs,
    }
    if external_labels:
        config["global"]["external_labels"] = external_labels
    if alertmanagers:
        addresses = [f"127.0.0.1:{port}" for port in alertmanagers]
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": addresses}]}]}
    return config


class AlertmanagerServer(Daemon):
    """alertmanager on 127.0.0.1; alone unless `peers` are given, with whom it then gossips."""

    def __init__(
        self,
        run: Run,
        config: Config,
        peers: Sequence[AlertmanagerServer] = (),
        *,
        cluster: bool = False,
        name: str = "alertmanager",
    ) -> None:
        super().__init__(run, name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config_file = write_config(self.folder / "alertmanager.yml", config_text(config))
        self._peers = list(peers)
        self.cluster_port = free_port() if cluster or peers else None

    def argv(self) -> list[str]:
        address = f"127.0.0.1:{self.cluster_port}" if self.cluster_port else ""
        return [
            program("alertmanager", "prometheus-alertmanager"),
            f"--config.file={self.config_file}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--cluster.listen-address={address}",
            "--log.level=info",
            *(f"--cluster.peer=127.0.0.1:{peer.cluster_port}" for peer in self._peers),
        ]

    def ready(self) -> bool:
        return fetch(f"{self.url}/-/ready", timeout=2).status == 200

    def reload(self, config: Config) -> None:
        """Write a new configuration and have it loaded. Raises AssertionError when it is refused."""
        write_config(self.config_file, config_text(config))
        answer = fetch(f"{self.url}/-/reload", "POST")
        if answer.status != 200:
            raise AssertionError(f"alertmanager refused its configuration: {answer.text}\n{self.tail()}")

    def post(
        self, *label_sets: Mapping[str, str], annotations: Mapping[str, str] | None = None, **times: datetime
    ) -> None:
        """Post alerts as Prometheus does; `startsAt=`, `endsAt=` as datetimes with a zone."""
        stamps = {key: value.isoformat() for key, value in times.items()}
        body = [{"labels": dict(labels), "annotations": dict(annotations or {}), **stamps} for labels in label_sets]
        answer = post_json(f"{self.url}/api/v2/alerts", body)
        if answer.status != 200:
            raise AssertionError(f"alertmanager answered {answer.status}: {answer.text}")

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """Alerts that are active now, silenced and inhibited ones too, with these labels."""
        found = fetch(f"{self.url}/api/v2/alerts").json()
        return [each for each in found if all(each["labels"].get(key) == value for key, value in labels.items())]

    def wait_alert(self, deadline: float = 15.0, **labels: str) -> dict[str, Any]:
        """Wait until an alert with these labels is active; the first."""
        return wait_until(lambda: self.alerts(**labels), f"an alert with {labels} in alertmanager", deadline)[0]

    def silence(self, seconds: float = 600.0, comment: str = "by a test", **labels: str) -> str:
        """Silence alerts with these labels for `seconds`; the silence's id."""
        now = datetime.now(UTC)
        matchers = [{"name": key, "value": value, "isRegex": False, "isEqual": True} for key, value in labels.items()]
        times = {"startsAt": now.isoformat(), "endsAt": (now + timedelta(seconds=seconds)).isoformat()}
        answer = post_json(
            f"{self.url}/api/v2/silences",
            {"matchers": matchers, **times, "createdBy": "test", "comment": comment},
        )
        return str(answer.json()["silenceID"])

    def expire(self, silence: str) -> None:
        """End a silence now."""
        answer = fetch(f"{self.url}/api/v2/silence/{silence}", "DELETE")
        if answer.status != 200:
            raise AssertionError(f"alertmanager answered {answer.status}: {answer.text}")

    def wait_peers(self, count: int, deadline: float = 20.0) -> None:
        """Wait until the cluster has `count` members, this one counted."""

        def members() -> int:
            return len(fetch(f"{self.url}/api/v2/status").json()["cluster"].get("peers", []))

        wait_until(
            lambda: members() == count,
            f"alertmanager's cluster to have {count} members",
            deadline,
            0.1,
            self.tail,
        )
