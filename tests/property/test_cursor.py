"""The cursor on a model of a table: late commits, clocks that differ, refunds, other states, deleted rows, and kills
between any two steps.

The model is what PostgreSQL promises: a row is seen once its transaction has committed, and it carries a time no
earlier than its transaction's start less the clocks' difference. A row becomes final once, and may be refunded later:
two events with a key each, as the collector `payments` numbers them. What is checked is per event, not only in sum:
every one since the start is counted once, unless the cursor has counted a look in which it could not be sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from exporter.cursor import Advance, Bounds, Row, State, View, advance, fresh, must_be_saved, resume
from exporter.statefile import decode, encode

BOUNDS = Bounds(overlap=1000, margin=20, batch=3, remembered=40, catching_up_after=500)
SOURCE, LAYOUT = "cluster", "one key a row"


@dataclass(eq=False)
class Transaction:
    """An open transaction: its start, and the events (key and time) that its commit will bring."""

    start: int
    rows: dict[int, int] = field(default_factory=dict)


STATES = ("succeeded", "failed")


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
        self.state: dict[int, str] = {}
        """Of each row, by its number; what it is now."""
        # The exporter: what it has in memory, where it is in a scrape, and its disk.
        self.memory: State | None = None
        self.looked: tuple[int, int | None] | None = None
        self.next: tuple[State, Advance] | None = None
        self.saved: tuple[bytes | None, Advance] | None = None
        self.disk: bytes | None = None
        self.unsynced: bytes | None = None
        self.origin: int | None = None
        self.begun_at: int | None = None
        self.shown: dict[str, int] = {}
        self.shown_cuts = 0

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
        transaction=transactions,
        own_clock=st.booleans(),
        behind=st.integers(0, BOUNDS.margin),
        rows=st.integers(1, 5),
    )
    def finish_rows(self, transaction: Transaction, own_clock: bool, behind: int, rows: int) -> None:
        """clock_timestamp() or now(), by a clock that may be behind the server's by up to the margin."""
        for _ in range(rows):
            transaction.rows[2 * self.next_id] = (self.now if own_clock else transaction.start) - behind
            self.state[self.next_id] = STATES[self.next_id % 2]
            self.next_id += 1

    @precondition(lambda self: any(key % 2 == 0 for key in self.table))
    @rule(transaction=transactions, own_clock=st.booleans(), behind=st.integers(0, BOUNDS.margin), data=st.data())
    def refund(self, transaction: Transaction, own_clock: bool, behind: int, data: st.DataObject) -> None:
        """Of a row that is final, counted or not, however long ago; once."""
        row = data.draw(st.sampled_from(sorted(key // 2 for key in self.table if key % 2 == 0)))
        key = 2 * row + 1
        if key not in self.ever_final and not any(key in each.rows for each in self.open):
            transaction.rows[key] = (self.now if own_clock else transaction.start) - behind

    @precondition(lambda self: self.table)
    @rule(data=st.data(), state=st.sampled_from(STATES))
    def change_state(self, data: st.DataObject, state: str) -> None:
        """A correction by hand, which leaves the row's times alone."""
        self.state[data.draw(st.sampled_from(sorted(self.table))) // 2] = state

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
        row = data.draw(st.sampled_from(sorted(self.table))) // 2
        for events in (self.table, *(each.rows for each in self.open)):
            events.pop(2 * row, None)
            events.pop(2 * row + 1, None)

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
        rows = [Row(id_, at, (id_, self.state[id_ // 2])) for at, id_ in found[: BOUNDS.batch]]
        step = advance(state, View(now, oldest, rows), lambda event: {str(event[0]): 1, event[1]: 1}, BOUNDS)
        self.looked, self.next = None, (state, step)

    def rename_file(self) -> None:
        """The temporary file is synced and renamed, the directory is not yet synced; or there was nothing to save."""
        assert self.next is not None
        step, saved = self.next[1], decode(self.disk.decode()) if self.disk is not None else None
        self.unsynced = encode(step.state) if must_be_saved(saved, step.state, BOUNDS) else None
        self.saved, self.next = (self.unsynced, step), None

    def sync_and_show(self) -> None:
        assert self.saved is not None
        written, step = self.saved
        self.disk = written or self.disk
        self.unsynced, self.saved = None, None
        if self.origin is None:
            self.origin = self.begun_at
        self.memory = step.state
        assert step.state.cuts > 0 or not step.overlap_cut, "a cut was not counted"
        assert step.state.cuts >= self.shown_cuts, "a cut was taken back"
        self.shown_cuts = step.state.cuts
        for key, value in self.shown.items():
            assert step.state.totals[key] >= value, "a counter went back"
        self.shown = dict(step.state.totals)

    @rule(power_cut=st.booleans())
    def kill(self, power_cut: bool) -> None:
        """kill -9 keeps a rename that was made; after a power cut it may be there or not."""
        if self.unsynced is not None and not power_cut:
            self.disk = self.unsynced
            assert self.saved is not None
            if self.origin is None:
                self.origin = self.begun_at
        self.looked = self.next = self.saved = self.unsynced = None
        self.memory = decode(self.disk.decode()) if self.disk is not None else None
        assert self.disk is None or self.memory is not None, "its own file is unreadable"

    # --- The promises ---

    @property
    def counted(self) -> dict[int, int]:
        """How often each event was counted."""
        return {int(key): value for key, value in self.shown.items() if key not in STATES}

    @invariant()
    def no_event_is_counted_twice(self) -> None:
        assert all(value == 1 for value in self.counted.values())

    @invariant()
    def every_event_is_counted_as_one_thing(self) -> None:
        """Also when the row is another thing later."""
        assert sum(self.shown.get(state, 0) for state in STATES) == len(self.counted)

    @invariant()
    def nothing_from_before_the_start_is_counted(self) -> None:
        assert all(self.ever_final[key] >= (self.origin or 0) for key in self.counted)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.memory is None or len(self.memory.seen) <= BOUNDS.remembered

    def teardown(self) -> None:
        """When all is quiet, everything that still stands has been counted, or a look was counted as unsure."""
        for transaction in self.open:
            self.table.update(transaction.rows)
            self.ever_final.update(transaction.rows)
        self.open = []
        for _ in range(len(self.table) + 2):
            for step in self._rest_of_scrape():
                step()
        refunds = sum(key % 2 for key in self.counted)
        event(f"origin {self.origin is not None}, sure {not self.shown_cuts}, counted {bool(self.counted)}")
        event(f"refunds counted {refunds > 0}")
        if self.origin is None or self.shown_cuts:
            return
        missing = {key for key, at in self.table.items() if at >= self.origin} - set(self.counted)
        assert not missing, f"events {missing} were never counted"

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
