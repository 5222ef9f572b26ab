"""Commands that another package adds to prepctl: found by their entry points, loaded only when they are called."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

from demo import drill_command
from demo.drills.registry import ALL
from prepctl import plugins
from prepctl.cli import app
from prepctl.errors import Failure


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """A command line of one own command, `own`, beside what two entry points add."""
    found = [
        EntryPoint("drill", "demo.drill_command:main", plugins.GROUP),
        EntryPoint("own", "demo.drill_command:main", plugins.GROUP),
        EntryPoint("grouped", "demo.drill_command:main", plugins.GROUP),
        EntryPoint("broken", "no_such_package:main", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == plugins.GROUP else [])
    here = typer.Typer()
    here.command("own")(lambda: typer.echo("my own"))
    group = typer.Typer()
    group.command("grouped")(lambda: typer.echo("of a group"))
    here.add_typer(group)
    plugins.add_to(here)
    return here


def test_the_demo_is_found_by_its_entry_point() -> None:
    """The installed project adds `drill` to the real command line."""
    assert "drill" in {found.name for found in plugins.entry_points(group=plugins.GROUP)}
    assert "drill" not in {command.name for command in app.registered_commands}, "it would be part of the product"


def test_arguments_arrive_as_they_are(added: typer.Typer) -> None:
    """`drill` without a name lists every drill; a wrong name is wrong usage, with the names that there are."""
    listed = CliRunner().invoke(added, ["drill"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in ALL)
    wrong = CliRunner().invoke(added, ["drill", "nosuch"])
    assert wrong.exit_code == 2
    assert "high-database-cpu" in wrong.output
    assert "NAME" in CliRunner().invoke(added, ["drill", "--help"]).output


def test_an_own_command_is_never_taken_over(added: typer.Typer) -> None:
    """A package that names one of prepctl's commands does not get it."""
    assert CliRunner().invoke(added, ["own"]).output == "my own\n"
    assert CliRunner().invoke(added, ["grouped"]).output == "of a group\n"


def test_what_cannot_be_imported_says_so_and_harms_nothing_else(added: typer.Typer) -> None:
    """The fault of one package is told when its command is called."""
    broken = CliRunner().invoke(added, ["broken"])
    assert isinstance(broken.exception, Failure)
    assert "no_such_package" in broken.exception.message
    assert CliRunner().invoke(added, ["own"]).exit_code == 0


def test_every_drill_is_listed() -> None:
    """One row a drill."""
    assert drill_command.listed().row_count == len(ALL)
