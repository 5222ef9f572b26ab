"""Nothing that is secret or personal gets into evidence; what people need to read stays."""

from __future__ import annotations

import json
import time

import pytest

from remediator.redaction import luhn, redact, sql_shape

CANARY = "c4nary-9f3b1e77"
CARD = "4242424242424242"

# Assembled from parts, so that no scanner of the repository takes a canary for a leak.
STRIPE = "sk" + "_live_" + "51H8canaryCANARYcanary00"
AWS = "AKIA" + "CANARYCANARY1234"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ"


@pytest.mark.parametrize(
    ("text", "planted"),
    [
        (f"connecting to postgresql://prep_app:{CANARY}@postgres:5432/prepchef", CANARY),
        (f"redis://:{CANARY}@redis:6379/0 refused", CANARY),
        (f"sqlalchemy.url = postgresql+asyncpg://app:{CANARY}@h/db?ssl=on", CANARY),
        (f"Authorization: Bearer {CANARY}", CANARY),
        (f'{{"Authorization": "Basic {CANARY}=="}}', CANARY),
        (f"curl -H 'authorization: bearer {CANARY}' http://x", CANARY),
        (f"password={CANARY}", CANARY),
        (f"POSTGRES_PASSWORD: {CANARY}", CANARY),
        (f'{{"password": "{CANARY}", "user": "anna"}}', CANARY),
        (f'{{"db_passwd":"with \\" quote {CANARY}"}}', CANARY),
        (f"passwd='{CANARY} and blanks'", CANARY),
        (f"api-key => {CANARY}", CANARY),
        (f"X-Api-Key: {CANARY}", CANARY),
        (f"client_secret={CANARY}&scope=all", CANARY),
        (f"Set-Cookie: session={CANARY}; Path=/", CANARY),
        (f"sessionid={CANARY}", CANARY),
        (f'{{"msg": "{{\\"token\\": \\"{CANARY}\\"}}"}}', CANARY),
        (f'password="cut in the middle {CANARY}', CANARY),
        (f"host=db user=app password='{CANARY}' dbname=x", CANARY),
        (f"ALTER ROLE app PASSWORD '{CANARY}'", CANARY),
        (f"stripe key {STRIPE} refused", STRIPE),
        (f"aws {AWS}", AWS),
        (f"token from header: {JWT}", JWT),
        (f"card {CARD} declined", CARD),
        ("card 4242 4242 4242 4242 declined", "4242 4242"),
        ("card 4242-4242-4242-4242 declined", "4242-4242"),
        ("amex 378282246310005 declined", "378282246310005"),
        (f'{{"number":"{CARD}","cvc":"737"}}', "737"),
        ("mail to anna.canary+eats@example.co.uk bounced", "anna.canary"),
        ("<anna@example.org>", "anna@"),
        ("iban DE89 3704 0044 0532 0130 00", "3704 0044"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{CANARY}\n-----END RSA PRIVATE KEY-----", CANARY),
        (f"-----BEGIN PRIVATE KEY-----\n{CANARY}\nand the log was cut here", CANARY),
    ],
)
def test_planted_canaries_do_not_get_through(text: str, planted: str) -> None:
    """Each kind of secret, card number and personal datum is taken out, and its place is marked."""
    assert planted not in redact(text)
    assert "[redacted:" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T20:11:12.123456789Z check 184467 took 5.21 s, pid 4242",
        "order 1234567890123456 pending",  # 16 digits, wrong check digit
        "0000000000000000 bytes",
        "sha256:8156b0cec46d4242424242424242aa01",
        "GET /v1/checks?rule_set=eu 200 in 251 ms",
        "backend 10.0.0.12:5432 is up, 17 tokens of cache left",
        "ERROR:  canceling statement due to user request",
    ],
)
def test_ordinary_lines_stay_as_they_are(text: str) -> None:
    """What an operator needs to read is not taken for a secret."""
    assert redact(text) == text


def test_redaction_keeps_json_readable() -> None:
    """A redacted JSON line is still JSON, with its other fields."""
    line = redact(json.dumps({"user": "app", "password": CANARY, "note": f"token={CANARY}", "n": 7}))
    assert json.loads(line) == {
        "user": "app",
        "password": "[redacted:secret]",
        "note": "token=[redacted:secret]",
        "n": 7,
    }


def test_redaction_is_linear_in_ugly_input() -> None:
    """Half a megabyte of what patterns dislike does not stop the process."""
    began = time.process_time()
    hostile = (
        "4 " * 100_000,
        "a" * 200_000,
        "password=" * 20_000,
        "a@" * 60_000,
        "eyJ." * 50_000,
        "-----BEGIN " * 20_000,
        'password="' * 20_000,
        "eyJ-" * 50_000,
        "x://a:" * 40_000,
        "a.-" * 70_000,
    )
    for ugly in hostile:
        redact(ugly)
    assert time.process_time() - began < 5.0


@pytest.mark.parametrize(
    ("digits", "right"), [(CARD, True), ("4242424242424241", False), ("79927398713", True), ("0", True)]
)
def test_luhn(digits: str, right: bool) -> None:
    """The check digit of ISO/IEC 7812-1, annex B."""
    assert luhn(digits) is right


@pytest.mark.parametrize(
    ("query", "shape"),
    [
        ("SELECT * FROM users WHERE id = 7", "SELECT * FROM users WHERE id = ?"),
        (f"select '{CANARY}'", "select ?"),
        (f"select 'it''s {CANARY}', x2 from t1", "select ?, x2 from t1"),
        (f"select E'a\\'{CANARY}' || b", "select ? || b"),
        (f"select $${CANARY}$$, $tag$ {CANARY} $$ $tag$", "select ?"),
        ("insert into t values (1, -2.5e3, 'x'), ($1, 4)", "insert into t values (?, -?), ($1, ?)"),
        ("select a in (1,2,3 , 4)", "select a in (?)"),
        (f"/* {CANARY} */ select 1 -- {CANARY}", "select ?"),
        (f"select 'cut in the middle {CANARY}", "select ?"),
        ('select "Weird Name 7" from "t"', 'select "Weird Name 7" from "t"'),
        (f"select U&'{CANARY}', x'1f'", "select ?"),
        ("select   a\n  from\tb", "select a from b"),
    ],
)
def test_sql_shape_has_no_literals(query: str, shape: str) -> None:
    """A statement is shown by its shape: names stay, values go."""
    assert sql_shape(query) == shape
    assert CANARY not in sql_shape(query)
