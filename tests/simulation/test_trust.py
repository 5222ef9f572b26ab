"""docs/trust.md: the page says what its figures say, the figures are of enough, and README quotes them."""

from __future__ import annotations

from pathlib import Path

from simulation import report
from simulation.bugs import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "trust.md"
ENOUGH = 10_000  # incidents


def test_the_page_is_made_of_its_figures() -> None:
    """And of the promises as they are written now: `report.save` makes it anew."""
    assert PAGE.read_text() == report.text(report.read(PAGE))


def test_the_figures_are_of_enough_and_of_every_planted_bug() -> None:
    """Ten thousand incidents without a broken promise, and each bug that is planted was hunted and caught."""
    figures = report.read(PAGE)
    assert sum(row["incidents"] for row in figures["total"]["rows"].values()) >= ENOUGH
    assert figures["total"]["violations"] == []
    assert [row["name"] for row in figures["mutants"]] == [mutant.name for mutant in MUTANTS]
    assert [row["name"] for row in figures["mutants"] if not row["caught"]] == []


def test_readme_quotes_it() -> None:
    """Word by word."""
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert report.headline(report.read(PAGE)) in readme
