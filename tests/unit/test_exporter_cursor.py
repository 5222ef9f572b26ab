"""The cursor's rules by table, and its file: whole or not at all, one writer, never a dead end."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exporter.cursor import Bounds, Clocks, Row, State, View, advance, fresh, resume, set_back
from exporter.errors import StateError
from exporter.statefile import DiskFiles, StateFile, decode, encode

BOUNDS = Bounds(overlap=600, margin=10, batch=3, remembered=5, catching_up_after=120)
STATE = State("cluster", "layout", floor=100, looked=195, seen={7: 120}, totals={"rows": 1})


def rows(*pairs: tuple[int, int]) -> list[Row[int]]:
    return [Row(id_, at, 1) for id_, at in pairs]


def step(state: State, now: int, oldest: int | None, *pairs: tuple[int, int]) -> tuple[State, bool, bool]:
    done = advance(state, View(now, oldest, rows(*pairs)), lambda value: {"rows": value}, BOUNDS)
    return done.state, done.catching_up, done.overlap_cut


def test_worked_example_of_the_module() -> None:
    """Rows are counted, and the floor stops a margin before the oldest open transaction."""
    state, catching_up, cut = step(STATE, 200, 150, (1, 120), (2, 199))
    assert (state.floor, state.totals, state.seen) == (140, {"rows": 3}, {2: 199})
    assert (catching_up, cut, state.looked) == (False, False, 200)


@pytest.mark.parametrize(
    ("now", "oldest", "floor", "cut"),
    [
        (200, None, 190, False),  # nothing is open: up to the margin
        (200, 150, 140, False),
        (200, 50, 100, False),  # never back; and that transaction was older than the cursor itself
        (1000, 300, 400, True),  # open for longer than the overlap
        (1000, 410, 400, False),
        (1000, 409, 400, True),  # its rows may be stamped up to the margin before it began
        (90, None, 100, True),  # the server's clock was set back behind the floor
    ],
)
def test_floor_goes_as_far_as_is_safe(now: int, oldest: int | None, floor: int, cut: bool) -> None:
    """Up to the oldest open transaction, at most the overlap back, never backwards; what is unsafe is said, counted."""
    state, _, told = step(STATE, now, oldest)
    assert (state.floor, told, state.cuts) == (floor, cut, int(cut))
    assert step(state, now, oldest)[0].cuts >= state.cuts


def test_full_batch_stops_the_floor_at_its_last_row() -> None:
    """What may lie behind a full batch is read in the next scrape, and people are told meanwhile."""
    state, catching_up, cut = step(STATE, 300, None, (1, 150), (2, 160), (3, 170))
    assert (state.floor, state.seen, catching_up, cut) == (170, {3: 170}, True, False)
    assert state.looked == STATE.looked


def test_many_rows_of_one_moment_are_all_counted() -> None:
    """A statement that ends many checks at one time is counted batch by batch."""
    state, _, _ = step(STATE, 300, None, (1, 150), (2, 150), (3, 150))
    state, catching_up, cut = step(state, 301, None, (4, 150))
    assert (state.totals["rows"], catching_up, cut) == (5, False, False)


def test_more_rows_of_one_moment_than_are_remembered_are_told() -> None:
    """What is passed unread is not passed in silence."""
    state, cuts = STATE, []
    for first in range(1, 12, 3):
        unseen = [(id_, 150) for id_ in range(first, first + 3) if id_ not in state.seen]
        if state.floor <= 150:
            state, _, cut = step(state, 300, None, *unseen)
            cuts.append(cut)
    assert state.floor > 150
    assert cuts[-1]
    assert state.cuts == 1


@pytest.mark.parametrize(
    ("before", "now", "back"),
    [
        (None, Clocks(100, 5), False),  # the first look knows no other
        (Clocks(100, 0), Clocks(115, 15), False),
        (Clocks(100, 0), Clocks(105, 15), False),  # within the margin, which the floor keeps away anyway
        (Clocks(100, 0), Clocks(104, 15), True),
        (Clocks(100, 0), Clocks(90, 1), True),
        (Clocks(100, 0), Clocks(105, 65), True),  # another server took over, with a clock that is behind
        (Clocks(100, 0), Clocks(4000, 15), False),  # set forward: nothing is below the floor that was not
    ],
)
def test_a_clock_that_went_back_between_two_looks_is_told(before: Clocks | None, now: Clocks, back: bool) -> None:
    """Also when it has caught up with the floor by then."""
    assert set_back(before, now, margin=10) is back
    done = advance(STATE, View(200, None, rows(), back), lambda value: {"rows": value}, BOUNDS)
    assert done.overlap_cut is back


def test_memory_is_bounded_and_says_when_that_costs_something() -> None:
    """More ids than may be remembered: the oldest are given up, which is flagged."""
    state, _, cut = step(STATE, 200, 100, (1, 130), (2, 131), (3, 132))
    assert not cut
    state, _, cut = step(state, 201, 100, (4, 133), (5, 134), (6, 135))
    assert cut
    assert state.seen == {2: 131, 3: 132, 4: 133, 5: 134, 6: 135}
    assert state.floor == 131


def test_downtime_is_flagged_as_catching_up() -> None:
    """What was counted after a long silence is a jump, also when it came in one batch."""
    state, catching_up, _ = step(STATE, 400, None, (1, 300))
    assert catching_up
    assert not step(state, 415, None)[1]


def test_row_that_was_counted_is_never_counted_again() -> None:
    """A query that answers a counted id is a mistake, not a second count."""
    with pytest.raises(ValueError, match="counted before"):
        step(STATE, 200, None, (7, 120))


def test_fresh_cursor_begins_now() -> None:
    """The past is not counted in one jump."""
    state = fresh("cluster", "layout", 500)
    assert (state.floor, state.totals, state.seen) == (500, {}, {})
    assert step(state, 505, None)[0].floor == 500


def test_another_cluster_keeps_the_totals_and_begins_now() -> None:
    """The counters must not go back when the database is another; its position means nothing there."""
    state = resume(STATE, "other", "layout", 900)
    assert (state.floor, state.seen, state.totals) == (900, {}, {"rows": 1})


def test_other_buckets_keep_the_position_and_begin_the_totals_again() -> None:
    """Totals of other buckets cannot be added to."""
    state = resume(STATE, "cluster", "new layout", 900)
    assert (state.floor, state.seen, state.totals) == (100, {7: 120}, {})


def test_file_gives_back_what_it_was_given(tmp_path: Path) -> None:
    """What was saved is what is loaded, by another process too."""
    first = StateFile(tmp_path / "cursor.json")
    assert first.load() is None
    first.save(STATE)
    first.close()
    second = StateFile(tmp_path / "cursor.json")
    assert second.load() == STATE
    assert not second.put_aside
    second.close()


def test_file_of_an_earlier_release_is_read() -> None:
    """It knew no cuts: the position is kept, and they begin at 0."""
    assert decode(encode(STATE).replace(b',"cuts":0', b"").decode()) == STATE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"version": 99}',
        encode(STATE)[:-20],
        encode(STATE).replace(b'"floor":100', b'"floor":"100"'),
        encode(STATE).replace(b'"floor":100', b'"floor":100.5'),
        encode(STATE).replace(b'"floor":100', b'"floor":999'),
        encode(STATE).replace(b'"rows":1', b'"rows":-1'),
        encode(STATE).replace(b'"rows":1', b'"rows":true'),
        encode(STATE).replace(b'"cuts":0', b'"cuts":-1'),
    ],
)
def test_unreadable_file_is_put_aside(tmp_path: Path, content: bytes) -> None:
    """A file that is not what we write is kept for people and is no dead end; it is said."""
    path = tmp_path / "cursor.json"
    path.write_bytes(content)
    file = StateFile(path)
    assert file.load() is None
    assert file.put_aside
    assert path.with_name("cursor.json.unreadable").read_bytes() == content
    file.save(STATE)
    assert file.load() == STATE
    file.close()


def test_second_writer_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    """Two exporters on one file would count each other's rows."""
    first, second = StateFile(tmp_path / "cursor.json"), StateFile(tmp_path / "cursor.json")
    first.load()
    with pytest.raises(StateError, match="in use by another exporter"):
        second.load()
    first.close()
    assert second.load() is None
    second.close()


class SlowFiles(DiskFiles):
    """A disk that takes its time: a write waits in the kernel until it is let go."""

    def __init__(self) -> None:
        self.entered, self.door = threading.Event(), threading.Event()

    def write_synced(self, path: Path, data: bytes) -> None:
        self.entered.set()
        assert self.door.wait(10)
        super().write_synced(path, data)


def test_lock_is_not_given_back_under_a_write(tmp_path: Path) -> None:
    """Closed while a write hangs, a file has its successor only after that write: none is lost, none is mixed."""
    files = SlowFiles()
    first, second = StateFile(tmp_path / "cursor.json", files), StateFile(tmp_path / "cursor.json")
    first.load()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(first.save, STATE)
        assert files.entered.wait(10)
        first.close()
        with pytest.raises(StateError, match="in use"):
            second.load()
        files.door.set()
        writing.result(10)
    assert second.load() == STATE
    with pytest.raises(StateError, match="given back"):
        first.save(STATE)
    second.close()


def test_missing_directory_is_told(tmp_path: Path) -> None:
    """A volume that is not mounted is an error with its path, not a crash."""
    with pytest.raises(StateError, match="nowhere"):
        StateFile(tmp_path / "nowhere" / "cursor.json").load()


class Killed(Exception):
    """The process died here."""


class DyingFiles(DiskFiles):
    """A disk on which the process dies before its n-th step, or in the middle of writing."""

    def __init__(self, steps: int, torn: bool = False) -> None:
        self.left = steps
        self.torn = torn

    def _step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def write_synced(self, path: Path, data: bytes) -> None:
        if self.left == 0 and self.torn:
            super().write_synced(path, data[: len(data) // 2])
        self._step()
        super().write_synced(path, data)

    def replace(self, old: Path, new: Path) -> None:
        self._step()
        super().replace(old, new)

    def sync_directory(self, path: Path) -> None:
        self._step()
        super().sync_directory(path)


@pytest.mark.parametrize(("steps", "torn"), [(0, False), (0, True), (1, False), (2, False)])
def test_kill_between_any_two_steps_leaves_a_whole_file(tmp_path: Path, steps: int, torn: bool) -> None:
    """After a kill anywhere in a save the file is the former state or the new one, never something else."""
    path, new = tmp_path / "cursor.json", fresh("cluster", "layout", 500)
    before = StateFile(path)
    before.load()
    before.save(STATE)
    before.close()
    dying = StateFile(path, DyingFiles(steps, torn))
    dying.load()
    with pytest.raises(Killed):
        dying.save(new)
    dying.close()
    after = StateFile(path)
    assert after.load() == (new if steps == 2 else STATE)
    assert not after.put_aside
    after.close()


class FullDisk(DiskFiles):
    """A disk without room."""

    def write_synced(self, path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")


def test_full_disk_is_a_state_error_and_keeps_the_former_state(tmp_path: Path) -> None:
    """What cannot be saved is not shown, and the old file is not harmed."""
    path = tmp_path / "cursor.json"
    file = StateFile(path)
    file.load()
    file.save(STATE)
    file.close()
    full = StateFile(path, FullDisk())
    assert full.load() == STATE
    with pytest.raises(StateError, match="No space left"):
        full.save(fresh("cluster", "layout", 500))
    assert full.load() == STATE
    full.close()


def test_file_holds_no_more_than_it_must(tmp_path: Path) -> None:
    """The file is plain JSON with its version, and no temporary file stays."""
    file = StateFile(tmp_path / "cursor.json")
    file.load()
    file.save(STATE)
    assert json.loads((tmp_path / "cursor.json").read_text())["version"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cursor.json", "cursor.json.lock"]
    assert decode(encode(STATE).decode()) == STATE
    file.close()
