"""The poisoned rule: somebody saves a rule that the engine cannot understand.

python-compliance reads its rules when it starts, so the running one goes on; the next start ends with exit code 1.
"""

from __future__ import annotations

import argparse

import asyncpg

from demo.environment import Environment, Postgres
from demo.fault_report import FaultError, tell

RULE_SET = "food-safety"
NAME = "drill-poisoned-rule"
EXPRESSION = '{"below": [{"item": "temperature_c"}, 5]}'
"""`below` is no operator: what a person writes who knows the language from hearsay."""


async def poison_rule(_: argparse.Namespace, environment: Environment) -> None:
    """Add the rule; nothing changes when it is there already."""
    status = await _execute(
        environment,
        "INSERT INTO compliance_rules (rule_set, name, expression, enabled) VALUES ($1, $2, $3::jsonb, true)"
        " ON CONFLICT (rule_set, name) DO UPDATE SET expression = excluded.expression, enabled = true",
        RULE_SET, NAME, EXPRESSION,
    )  # fmt: skip
    tell("poisoned", rule_set=RULE_SET, rule=NAME, rows=int(status.split()[-1]))


async def unpoison_rule(_: argparse.Namespace, environment: Environment) -> None:
    """Take the rule out; nothing changes when it is not there."""
    status = await _execute(
        environment, "DELETE FROM compliance_rules WHERE rule_set = $1 AND name = $2", RULE_SET, NAME
    )
    tell("unpoisoned", rule_set=RULE_SET, rule=NAME, rows=int(status.split()[-1]))


async def _execute(environment: Environment, statement: str, *values: str) -> str:
    """Run one statement as the platform's own role; its command tag."""
    login = Postgres.read(environment)
    try:
        connection = await asyncpg.connect(
            host=login.host, port=login.port, database=login.database, user=login.user, password=login.password,
            timeout=5.0, command_timeout=10.0, server_settings={"application_name": "demo-faults"},
        )  # fmt: skip
        try:
            return str(await connection.execute(statement, *values))
        finally:
            connection.terminate()
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise FaultError(f"{login.host}:{login.port} as {login.user}: {error}") from error
