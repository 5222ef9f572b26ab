"""Bodies that mean harm, or that make no sense: for whoever takes Alertmanager's webhook.

In: a seed, and the names of targets. Out: (kind, body), the same for the same seed. Where a body is otherwise right it
names `sick` only in a way that must not be taken for it, and exactly only `well`, whose rule is not true: none of them
may have an effect.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.deliveries import REAL, read

LARGE = 1024 * 1024  # characters of one value
Json = Any


@dataclass(frozen=True, slots=True)
class Aim:
    """An alert that would be acted on if it named the sick target: what the bodies are made to look like.

    stale    another alertname of the same runbook: its alerts are too old or too new to be acted on, and stay with people
    marker   a file that nobody creates, unless a text is run somewhere as a command
    """

    alertname: str
    stale: str
    job: str
    environment: str
    sick: str
    well: str
    marker: Path


def texts(aim: Aim) -> list[str]:
    """Texts that do something in a shell, in SQL, PromQL, a template, a terminal, a log or a path."""
    touch = f"touch {aim.marker}"
    return [
        f"$({touch})", f"`{touch}`", f"; {touch}", f"| {touch} #", f"&& {touch}", f"\n{touch}\n", f"' -exec {touch} ;",
        "' OR '1'='1", "'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity; --", "\\'; DROP TABLE events; --",
        f"'; COPY (SELECT 1) TO PROGRAM '{touch}'; --", "%s %(x)s {0} {x}", "%n%n%n",
        f'{{{{ lookup("pipe", "{touch}") }}}}', f'{{{{ "" | shell("{touch}") }}}}', f"{{% for x in () %}}{touch}{{% endfor %}}",
        "{{ self.__init__.__globals__.__builtins__ }}", "${jndi:ldap://127.0.0.1:9/x}", "#{7*7}", "<%= 7*7 %>",
        '"} or vector(1) or {x="', '.*', '.+"} > bool 0 or up{job=~".*', "(a+)+$",
        "\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x1b]52;c;cm0gLXJmIC8=\x07", "\x9b31m", "\x90q\x9c", "\r\x1b[Kall is well",
        "[bold red]x[/]", "\u202egnp.exe", "\u200b", "\u2028", "\x00", "\ud800", "\ufeff", "e\u0301" * 50,
        "../../../../etc/passwd", "/containers/x/kill?", "?signal=KILL", "#", "%2e%2e%2f", "a b\tc", "", " ",
        "__proto__", "constructor", "-1", "0x7f000001", "true", "null", "x" * 300,
        'x"\n{"level":"info","event":"forged"}', "<script>alert(1)</script>", "=cmd|' /C calc'!A0",
    ]  # fmt: skip


def bodies(seed: int, count: int, aim: Aim, large: int = 10) -> Iterator[tuple[str, bytes]]:
    """`count` bodies, of which the first `large` carry a value of LARGE characters each."""
    random_ = random.Random(seed)
    maker = _Maker(random_, aim)
    for number in range(count):
        make = maker.large if number < large else random_.choice(maker.kinds)
        yield make.__name__, make()


class _Maker:
    """One method a kind of body."""

    def __init__(self, random_: random.Random, aim: Aim) -> None:
        self._random, self._aim = random_, aim
        self._texts = texts(aim)
        self._real = [read(name) for name in REAL]
        self.kinds: tuple[Callable[[], bytes], ...] = (
            self.damaged, self.damaged, self.noise, self.target, self.target, self.place, self.place, self.twice,
            self.constant, self.nested, self.other_value, self.other_value, self.moment, self.structure, self.encoding,
            self.stranger,
        )  # fmt: skip

    # -- an alert that is right but for one thing -------------------------------------------------------

    def _alert(self, service: str, **changes: Json) -> dict[str, Json]:
        aim = self._aim
        labels = {
            "alertname": aim.alertname,
            "job": aim.job,
            "environment": aim.environment,
            "service": service,
            "severity": "P2",
        }
        labels.update(changes.pop("labels", {}))
        return {
            "status": "firing",
            "labels": labels,
            "annotations": {"summary": "It is ill."},
            "startsAt": datetime.now(UTC).isoformat(),
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus:9090/graph",
            "fingerprint": f"{self._random.getrandbits(64):016x}",
            **changes,
        }

    def _body(self, *alerts: Json, **changes: Json) -> dict[str, Json]:
        around = {"version": "4", "receiver": "remediator", "status": "firing", "groupKey": "{}", "truncatedAlerts": 0}
        return {**around, "alerts": list(alerts), **changes}

    def _text(self) -> str:
        return self._random.choice(self._texts)

    def target(self) -> bytes:
        """The sick target's name with something about it; a target that is nearly it, or a list, or a pattern."""
        sick = self._aim.sick
        near = (
            sick.upper(), sick.title(), f" {sick}", f"{sick} ", f"{sick}\n", f"{sick}\x00", f"{sick}\u200b", f"/{sick}",
            f"{sick}-1", f"{sick},{sick}", f"({sick}|{self._aim.well})", f"{sick[:-1]}.", f"{sick[:-1]}*", sick[:-1],
            sick.replace("c", "\u0441").replace("e", "\u0435"), f'{sick}"', f"{sick}'", f"{sick}%00",
        )  # fmt: skip
        text = self._text() or "?"
        service = self._random.choice((*near, f"{sick}{text}", f"{text}{sick}", text))
        return _dump(self._body(self._alert(sick[:-1] if service == sick else service)))

    def place(self) -> bytes:
        """A text in any other place of an alert on the well target."""
        text, well = self._text(), self._aim.well
        made = self._random.choice(
            (
                lambda: self._body(self._alert(well, labels={self._random.choice(("alertname", "job")): text})),
                lambda: self._body(self._alert(well, labels={"environment": text})),
                lambda: self._body(self._alert(well, labels={text: "x", "severity": text, "instance": text})),
                lambda: self._body(self._alert(well, annotations={text: text, "runbook_url": text})),
                lambda: self._body(self._alert(well, fingerprint=text, generatorURL=text)),
                lambda: self._body(self._alert(well), receiver=text, groupKey=text, externalURL=text),
                lambda: {**self._body(self._alert(well)), text: text},
            )
        )
        return _dump(made())

    def stranger(self) -> bytes:
        """The sick target by its very name, from another environment, job or rule."""
        text = self._text() or "staging"
        label = self._random.choice(("environment", "job", "alertname"))
        return _dump(self._body(self._alert(self._aim.sick, labels={label: text})))

    def twice(self) -> bytes:
        """The same key twice in one object: the target is the well one or the sick one, by whoever reads it."""
        text = _dump(self._body(self._alert(self._aim.well))).decode()
        key = self._random.choice(("service", "alertname", "status", "alerts", "labels", "version"))
        value = {"alerts": [], "labels": {}}.get(key, self._aim.sick)
        return text.replace(f'"{key}":', f'"{key}": {json.dumps(value)}, "{key}":', 1).encode()

    def moment(self) -> bytes:
        """The sick target by its very name, at a time that no alert that is acted on has."""
        old, ahead = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) + timedelta(days=2)
        times = (
            "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1969-12-31T23:59:60Z", old.isoformat(), ahead.isoformat(),
            "2026-11-23", "now", "", "2026-13-45T99:99:99Z", "2026-11-23T06:22:47", 0, -1, 1e300, None, [], {},
        )  # fmt: skip
        name = {"alertname": self._aim.stale}
        return _dump(self._body(self._alert(self._aim.sick, labels=name, startsAt=self._random.choice(times))))

    # -- what makes no sense ----------------------------------------------------------------------------

    def constant(self) -> bytes:
        """Numbers that JSON does not have, or that no number holds."""
        word = self._random.choice(("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "0x10", "01", "1."))
        text = _dump(self._body(self._alert(self._aim.sick), truncatedAlerts="HERE")).decode()
        return text.replace('"HERE"', word).encode()

    def nested(self) -> bytes:
        """Deeper than any reader's stack."""
        depth = self._random.choice((50, 500, 5_000, 100_000))
        kind = self._random.choice(("[", '{"a":'))
        inner = kind * depth + "1" + ("]" if kind == "[" else "}") * depth
        if self._random.random() < 0.3:
            return inner.encode()
        text = _dump(self._body(self._alert(self._aim.well, annotations={"deep": "HERE"}))).decode()
        return text.replace('"HERE"', inner).encode()

    def other_value(self) -> bytes:
        """Any value in any place."""
        body = self._body(self._alert(self._aim.well), self._alert(self._aim.well))
        value = self._value(3)
        place = self._random.choice(("top", "alert", "label", "alerts"))
        if place == "top":
            body[self._random.choice(list(body))] = value
        elif place == "alerts":
            body["alerts"] = [self._value(2) for _ in range(self._random.randrange(4))]
        elif place == "alert":
            alert = body["alerts"][0]
            alert[self._random.choice(list(alert))] = value
        else:
            labels = body["alerts"][0]["labels"]
            labels[self._random.choice(list(labels))] = value
        return _dump(body)

    def _value(self, depth: int) -> Json:
        plain = (None, True, False, 0, -1, 2**63, 1.5, "", self._text(), "4", "firing", [], {})
        if depth == 0 or self._random.random() < 0.6:
            return self._random.choice(plain)
        if self._random.random() < 0.5:
            return [self._value(depth - 1) for _ in range(self._random.randrange(4))]
        return {self._text(): self._value(depth - 1) for _ in range(self._random.randrange(4))}

    def structure(self) -> bytes:
        """A body around the alerts that is another one than version 4's, or too much of it."""
        alert = self._alert(self._aim.well)
        many = [{"status": "firing", "labels": {"alertname": "x"}}] * 10_001
        crowd = {f"l{number}": "x" for number in range(2_000)}
        return _dump(
            self._random.choice(
                (
                    lambda: self._body(alert, version="5"),
                    lambda: self._body(alert, version=4),
                    self._body,
                    lambda: self._body(alert, truncatedAlerts=10**30),
                    lambda: self._body(alert, truncatedAlerts=-1),
                    lambda: {**self._body(), "alerts": many},
                    lambda: {**self._body(), "alerts": {"0": alert}},
                    lambda: self._body(self._alert(self._aim.well, labels=crowd)),
                    lambda: [self._body(alert)],
                    lambda: None,
                    lambda: self._body(alert, None, 1, "x", [], {}, {"status": "firing"}),
                )
            )()
        )

    def large(self) -> bytes:
        """One value of a mebibyte: a label, an annotation, a name of a label, an alertname, the target."""
        unit = self._random.choice(("x", "\u00e4", "\x1b[2J", "\U0001f600", "'"))
        value = unit * (LARGE // len(unit))
        return _dump(
            self._random.choice(
                (
                    lambda: self._body(self._alert(self._aim.well, labels={"instance": value})),
                    lambda: self._body(self._alert(self._aim.well, labels={value: "x"})),
                    lambda: self._body(self._alert(self._aim.well, labels={"alertname": value})),
                    lambda: self._body(self._alert(value)),
                    lambda: self._body(self._alert(f"{self._aim.sick}{value}")),
                    lambda: self._body(self._alert(self._aim.well, annotations={"description": value})),
                    lambda: self._body(self._alert(self._aim.well), groupKey=value),
                )
            )()
        )

    # -- bytes ------------------------------------------------------------------------------------------

    def damaged(self) -> bytes:
        """A real body, a few bytes of it overwritten, gone, or there twice."""
        body = bytearray(self._random.choice(self._real))
        for _ in range(self._random.randrange(1, 6)):
            at, length = self._random.randrange(len(body)), self._random.randrange(1, 12)
            piece = body[at : at + length]
            body[at : at + length] = self._random.choice((b"", self._random.randbytes(length), piece * 2))
        return bytes(body)

    def noise(self) -> bytes:
        """No body at all."""
        return self._random.randbytes(self._random.randrange(400))

    def encoding(self) -> bytes:
        """Text in another encoding than UTF-8, or in none."""
        text = _dump(self._body(self._alert(self._aim.well, annotations={"summary": "h\u00e4ngt"}))).decode()
        plain = text.replace("\\u00e4", "\u00e4")
        return self._random.choice(
            (
                lambda: plain.encode("utf-16"),
                lambda: plain.encode("utf-32-le"),
                lambda: plain.encode("latin-1"),
                lambda: b"\xef\xbb\xbf" + plain.encode(),
                lambda: plain.encode().replace(b"h\xc3\xa4ngt", b"\xc0\xaf\xed\xa0\x80\xff"),
                lambda: plain.encode() + b"\x00",
                lambda: plain.encode() * 2,
                lambda: plain.encode()[: self._random.randrange(len(plain))],
            )
        )()


def _dump(body: Json) -> bytes:
    return json.dumps(body).encode()
