"""The cursor on a model of a table: late commits, clocks that differ, deleted rows, kills between any two steps.

The model is what PostgreSQL promises: a row is seen once its transaction has committed, and it carries a time no
earlier than its transaction's start less the clocks' difference. What is checked is per row, not only in sum: every row
that became final since the start is counted once, unless the cursor said that it could not be sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from exporter.cursor import Advance, Bounds, Row, State, View, advance, fresh, resume
from exporter.statefile import decode, encode

BOUNDS = Bounds(overlap=1000, margin=20, batch=3, remembered=40, catching_up_after=500)
SOURCE, LAYOUT = "cluster", "one key a row"


@dataclass(eq=False)
class Transaction:
    """An open transaction: its start, and the rows that it will make final when it commits."""

    start: int
    rows: dict[int, int] = field(default_factory=dict)


class CursorMachine(RuleBasedStateMachine):
    """One exporter and one table. Time in microseconds, moved only by `pass_time`."""

    transactions = Bundle("transactions")

    def __init__(self) -> None:
        super().__init__()
        self.now = 10_000
        self.next_id = 1
        self.open: list[Transaction] = []
        self.table: dict[int, int] = {}
        self.ever_final: dict[int, int] = {}
        self.deleted: set[int] = set()
        # The exporter: what it has in memory, where it is in a scrape, and its disk.
        self.memory: State | None = None
        self.looked: tuple[int, int | None] | None = None
        self.next: tuple[State, Advance] | None = None
        self.saved: tuple[bytes, Advance] | None = None
        self.disk: bytes | None = None
        self.unsynced: bytes | None = None
        self.origin: int | None = None
        self.begun_at: int | None = None
        self.shown: dict[str, int] = {}
        self.unsure = False

    # --- The platform ---

    @rule(seconds=st.one_of(st.integers(1, 30), st.integers(1, 300), st.integers(1, 1500)))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=transactions)
    def begin(self) -> Transaction:
        transaction = Transaction(self.now)
        self.open.append(transaction)
        return transaction

    @rule(
        transaction=transactions, own_clock=st.booleans(), behind=st.integers(0, BOUNDS.margin), rows=st.integers(1, 5)
    )
    def finish_rows(self, transaction: Transaction, own_clock: bool, behind: int, rows: int) -> None:
        """clock_timestamp() or now(), by a clock that may be behind the server's by up to the margin."""
        for _ in range(rows):
            transaction.rows[self.next_id] = (self.now if own_clock else transaction.start) - behind
            self.next_id += 1

    @rule(behind=st.integers(0, BOUNDS.margin), rows=st.integers(1, 5))
    def write_at_once(self, behind: int, rows: int) -> None:
        transaction = self.begin()
        self.finish_rows(transaction, True, behind, rows)
        self.commit(transaction)

    @rule(transaction=consumes(transactions))
    def commit(self, transaction: Transaction) -> None:
        self.open.remove(transaction)
        self.table.update(transaction.rows)
        self.ever_final.update(transaction.rows)

    @rule(transaction=consumes(transactions))
    def roll_back(self, transaction: Transaction) -> None:
        self.open.remove(transaction)

    @precondition(lambda self: self.table)
    @rule(data=st.data())
    def delete_row(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.table)))
        del self.table[row]
        self.deleted.add(row)

    # --- The exporter, one step of a scrape at a time ---

    @rule(steps=st.sampled_from((1, 2, 3, 4, 4, 4, 4)))
    def scrape(self, steps: int) -> None:
        """Go on with the scrape that is under way, or begin one; a scrape has four steps."""
        for step in self._rest_of_scrape()[:steps]:
            step()

    def read_bounds(self) -> None:
        self.looked = self.now, min((each.start for each in self.open), default=None)

    def read_rows(self) -> None:
        assert self.looked is not None
        now, oldest = self.looked
        if self.memory is None:
            state = fresh(SOURCE, LAYOUT, now)
            self.begun_at = state.floor
        else:
            state = resume(self.memory, SOURCE, LAYOUT, now)
        found = sorted((at, id_) for id_, at in self.table.items() if at >= state.floor and id_ not in state.seen)
        rows = [Row(id_, at, id_) for at, id_ in found[: BOUNDS.batch]]
        self.looked, self.next = (
            None,
            (state, advance(state, View(now, oldest, rows), lambda id_: {str(id_): 1}, BOUNDS)),
        )

    def rename_file(self) -> None:
        """The temporary file is synced and renamed; the directory is not yet synced."""
        assert self.next is not None
        step = self.next[1]
        self.unsynced = encode(step.state)
        self.saved, self.next = (self.unsynced, step), None

    def sync_and_show(self) -> None:
        assert self.saved is not None
        self.disk, step = self.saved
        self.unsynced, self.saved = None, None
        if self.origin is None:
            self.origin = self.begun_at
        self.memory = step.state
        self.unsure = self.unsure or step.overlap_cut
        for key, value in self.shown.items():
            assert step.state.totals[key] >= value, "a counter went back"
        self.shown = dict(step.state.totals)

    @rule(power_cut=st.booleans())
    def kill(self, power_cut: bool) -> None:
        """kill -9 keeps a rename that was made; after a power cut it may be there or not."""
        if self.unsynced is not None and not power_cut:
            self.disk = self.unsynced
            assert self.saved is not None
            self.unsure = self.unsure or self.saved[1].overlap_cut
            if self.origin is None:
                self.origin = self.begun_at
        self.looked = self.next = self.saved = self.unsynced = None
        self.memory = decode(self.disk.decode()) if self.disk is not None else None
        assert self.disk is None or self.memory is not None, "its own file is unreadable"

    # --- The promises ---

    @invariant()
    def no_row_is_counted_twice(self) -> None:
        assert all(value == 1 for value in self.shown.values())

    @invariant()
    def nothing_from_before_the_start_is_counted(self) -> None:
        assert all(self.ever_final[int(key)] >= (self.origin or 0) for key in self.shown)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.memory is None or len(self.memory.seen) <= BOUNDS.remembered

    def teardown(self) -> None:
        """When all is quiet, every row that still stands has been counted, or the cursor has said that it is unsure."""
        for transaction in self.open:
            self.table.update(transaction.rows)
            self.ever_final.update(transaction.rows)
        self.open = []
        for _ in range(len(self.table) + 2):
            for step in self._rest_of_scrape():
                step()
        event(f"origin {self.origin is not None}, sure {not self.unsure}, rows counted {len(self.shown) > 0}")
        if self.origin is None or self.unsure:
            return
        expected = {str(id_) for id_, at in self.table.items() if at >= self.origin}
        missing = expected - set(self.shown)
        assert not missing, f"rows {missing} were never counted"

    def _rest_of_scrape(self) -> list[Callable[[], None]]:
        """The steps that end the scrape that is under way, or a whole new one."""
        steps: list[Callable[[], None]] = [self.read_bounds, self.read_rows, self.rename_file, self.sync_and_show]
        if self.saved is not None:
            return steps[3:]
        if self.next is not None:
            return steps[2:]
        return steps[1:] if self.looked is not None else steps


TestCursor = CursorMachine.TestCase
TestCursor.settings = settings(max_examples=150, stateful_step_count=80, deadline=None)
