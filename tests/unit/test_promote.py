"""`runbook:promote` on copies of the shipped files: only modes change, and nothing else becomes freer with it."""

from __future__ import annotations

import difflib
import json
import shutil
import stat
from pathlib import Path

import pytest
import yaml

from prepctl import modes, promote
from prepctl.errors import Exit, Failure
from remediator.runbooks import MODES, Mode

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.name for path in (ROOT / "runbooks").glob("*.yml"))
NAME = "compliance-engine-slow"
BECAUSE = "watched for a month: nothing wrong"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "runbooks").mkdir()
    for name in SHIPPED:
        shutil.copy(ROOT / "runbooks" / name, tmp_path / "runbooks" / name)
    return Path(shutil.copy(ROOT / "config" / "remediator.yml", tmp_path / "remediator.yml"))


def wish(to: Mode = "approve", name: str = NAME, despite: str = "") -> promote.Wish:
    return promote.Wish(name, to, "ada@desk", BECAUSE, despite, "2026-11-28 08:00:00 UTC")


def files_of(config: Path) -> promote.Files:
    return promote.read(config, config.parent / "runbooks")


def in_force(config: Path) -> dict[str, Mode]:
    files = files_of(config)
    return {book.name: min(book.mode, files.settings.mode, key=MODES.index) for book in files.books.values()}


def do(config: Path, wanted: promote.Wish) -> list[modes.Edit]:
    edits = promote.plan(files_of(config), wanted)
    for edit in edits:
        modes.replace(edit)
    return edits


def changed(edit: modes.Edit) -> list[str]:
    lines = difflib.unified_diff(edit.before.decode().splitlines(), edit.after.decode().splitlines(), n=0, lineterm="")
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_only_this_runbook_climbs(config: Path) -> None:
    """The settings' shadow held all of them: they rise, and every other one is held by its own file."""
    before = in_force(config)
    assert set(before.values()) == {"shadow"}
    edits = do(config, wish())
    assert in_force(config) == before | {NAME: "approve"}
    assert edits[-1].path == config
    assert edits[-2].path.name == f"{NAME}.yml"
    assert {edit.path.name for edit in edits[:-2]} == {name for name in SHIPPED if name != f"{NAME}.yml"}


@pytest.mark.parametrize("interrupted", (0, 1, 5, len(SHIPPED) - 1, len(SHIPPED)))
def test_interrupted_anywhere_nothing_is_freer(config: Path, interrupted: int) -> None:
    """After any number of the files: what has changed is the wanted runbook, or nothing."""
    before = in_force(config)
    edits = promote.plan(files_of(config), wish())
    assert len(edits) == len(SHIPPED) + 1
    for edit in edits[:interrupted]:
        modes.replace(edit)
    assert in_force(config) == before


def test_the_second_one_changes_its_own_file_only(config: Path) -> None:
    """Once the settings are as free as is wanted, one line and its reason."""
    do(config, wish())
    (edit,) = do(config, wish(name="redis-down", despite="it is Christmas"))
    assert set(changed(edit)) == {
        f"+# approve since 2026-11-28 08:00:00 UTC, by ada@desk: {BECAUSE}",
        "+# although the shadow report did not support it: it is Christmas",
        "-mode: shadow",
        "+mode: approve",
    }
    assert in_force(config)["redis-down"] == "approve"


def test_up_to_auto_and_every_step_is_told(config: Path) -> None:
    """Each climb leaves its line; the settings rise again and the first climber's own file holds nothing else up."""
    do(config, wish())
    do(config, wish("approve", "redis-down"))
    do(config, wish("auto"))
    assert {name: mode for name, mode in in_force(config).items() if mode != "shadow"} == {
        NAME: "auto",
        "redis-down": "approve",
    }
    text = (config.parent / "runbooks" / f"{NAME}.yml").read_text()
    assert text.index("# approve since") < text.index("# auto since") < text.index("\nmode: auto")


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_other_byte_stays(config: Path, name: str, newline: str) -> None:
    """Comments, layout, line ends: a person's file stays a person's file."""
    text = (ROOT / "runbooks" / name).read_text().replace("\n", newline)
    made = modes.with_mode(text, "shadow", "name", ["why"])
    kept = [line for line in made.split(newline) if line != "# why" and not line.startswith("mode:")]
    assert kept == [line for line in text.split(newline) if not line.startswith("mode:")]
    assert f"# why{newline}mode: shadow{newline}" in made


def test_a_file_without_a_mode_gets_one(config: Path) -> None:
    """The default is auto, which must be said when it is not so any more."""
    path = config.parent / "runbooks" / "redis-down.yml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("mode:")))
    do(config, wish())
    assert "name: redis-down\n# held at shadow since" in path.read_text()
    assert in_force(config)["redis-down"] == "shadow"


def test_what_is_no_promotion_is_refused(config: Path) -> None:
    """Already there, or not there at all."""
    do(config, wish("auto"))
    for wanted, said in ((wish("approve"), "is in auto already"), (wish(name="moon"), "No file has a runbook 'moon'")):
        with pytest.raises(Failure, match=said) as failure:
            promote.plan(files_of(config), wanted)
        assert failure.value.code is Exit.NO


def test_what_would_not_load_is_not_begun(config: Path) -> None:
    """A fault in any file, also in one that would not change, ends it before anything is written."""
    broken = config.parent / "runbooks" / "redis-down.yml"
    broken.write_text(broken.read_text().replace("format: 1", "format: 2"))
    before = {path: path.read_bytes() for path in (config, *broken.parent.glob("*.yml"))}
    with pytest.raises(Failure, match=r"redis-down\.yml: format"):
        do(config, wish())
    assert {path: path.read_bytes() for path in before} == before


def test_a_file_in_one_line_is_left_to_its_owner(config: Path) -> None:
    """JSON is YAML too, and has no line to change."""
    path = config.parent / "runbooks" / f"{NAME}.yml"
    path.write_text(json.dumps(yaml.safe_load(path.read_text())))
    with pytest.raises(Failure, match="is not written one key a line"):
        promote.plan(files_of(config), wish())


def test_a_file_that_changed_meanwhile_is_not_overwritten(config: Path) -> None:
    """Somebody edits it while the question waits for its answer."""
    edits = promote.plan(files_of(config), wish())
    edits[0].path.write_text(edits[0].path.read_text() + "# mine\n")
    with pytest.raises(Failure, match="changed by somebody meanwhile"):
        modes.replace(edits[0])
    assert edits[0].path.read_text().endswith("# mine\n")
    assert not list(edits[0].path.parent.glob(".*"))


def test_rights_and_links_stay(config: Path) -> None:
    """The file behind a link is replaced, not the link; who may read it stays."""
    real = config.parent / "real.yml"
    config.rename(real)
    config.symlink_to(real)
    real.chmod(0o640)
    do(config, wish())
    assert config.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "mode: approve" in real.read_text()


def test_what_cannot_be_replaced_is_told(config: Path) -> None:
    """With the way out."""
    edit = promote.plan(files_of(config), wish())[0]
    missing = modes.Edit(edit.path.parent / "gone" / "x.yml", edit.before, edit.after, "")
    with pytest.raises(Failure, match="cannot be replaced") as failure:
        modes.replace(missing)
    assert "mounted by itself" in failure.value.do


@pytest.mark.parametrize("said", ["two\nlines", "", " begins with a blank", "\x1b[31m", "x" * 501])
def test_words_that_would_break_the_file_are_refused(said: str) -> None:
    """They stand in a comment."""
    wanted = promote.Wish(NAME, "approve", "ada", said, "", "now")
    with pytest.raises(Failure, match="--reason is one line"):
        promote.demand_words(wanted)
