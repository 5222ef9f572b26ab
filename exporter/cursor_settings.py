"""What the cursors over the platform's tables are told: bounds, names of tables, columns and words, and their meaning.

Names are Prep's by default. They are identifiers and plain words by their pattern, and are quoted where they go into
SQL: nothing of this file can become a statement of its own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from exporter.durations import Duration
from exporter.setting_types import AbsolutePath, Name, Strict

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
"""A column's name, in the case in which the database has it."""
TableName = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}$")]
"""A table's name, with or without its schema."""
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/ -]{1,64}$")]
"""What stands in a column of states or reasons."""
Words = tuple[Word, ...]
Names = Annotated[tuple[Word, ...], Field(min_length=1, max_length=8)]
"""Names that become a label's values; with few of them, so that their combinations stay few."""


class CursorSettings(Strict):
    """What every cursor is told."""

    enabled: bool = True
    """Whether it runs."""
    server: Name = "postgres"
    """A key of `collectors.postgres.servers`; it must be the primary."""
    state_file: AbsolutePath
    """Where the cursor's position and totals are kept; a file of this exporter's own, on a volume that stays."""
    overlap: Duration = 600.0
    """How far back the cursor looks at most for rows that were committed late. A transaction that stays open for
    longer may be missed, which is shown."""
    margin: Duration = 10.0
    """How far back it looks always, for clocks that differ."""
    batch_rows: int = Field(default=20_000, ge=1, le=1_000_000)
    """New rows counted in one scrape at most; the rest follows in the next ones."""
    remembered_rows: int = Field(default=100_000, ge=1)
    """Ids remembered at most; some 100 bytes of memory each."""
    catching_up_after: Duration = 120.0
    """After this long without counting, what is then counted is flagged as catching up."""


class ComplianceTable(Strict):
    """The table of checks, and what its columns and words are called."""

    name: TableName = "compliance_checks"
    """With its schema when that is not in the role's search_path."""
    id: Identifier = "id"
    """A whole number that no two rows share."""
    created_at: Identifier = "created_at"
    """When the check arrived; timestamptz."""
    finished_at: Identifier = "finished_at"
    """When it ended, set once; NULL until then."""
    result: Identifier = "result"
    """How it ended."""
    error_results: Words = ("error",)
    """Results that are no answer."""


class ComplianceCollector(CursorSettings):
    """Collector `compliance`: a cursor over the platform's checks."""

    state_file: AbsolutePath = Path("/var/lib/prep-exporter/compliance.json")
    """Where the cursor's position and totals are kept; a file of this exporter's own, on a volume that stays."""
    table: ComplianceTable = ComplianceTable()
    """Where the checks are."""


class PaymentsTable(Strict):
    """The table of payments, and what its columns and words are called."""

    name: TableName = "payments"
    """With its schema when that is not in the role's search_path."""
    id: Identifier = "id"
    """A whole number below 2^62 that no two rows share."""
    created_at: Identifier = "created_at"
    """When the payment began; timestamptz."""
    finalized_at: Identifier = "finalized_at"
    """When it became final, set once; NULL until then."""
    refunded_at: Identifier | None = "refunded_at"
    """When it was refunded, set once; null where there is no such column: refunds are not counted then."""
    status: Identifier = "status"
    """Its state."""
    failure_reason: Identifier = "failure_reason"
    """The word that says why it failed."""
    provider: Identifier = "provider"
    """Who was to take the money."""
    method: Identifier = "method"
    """How the customer paid."""
    pending_status: Word = "pending"
    """The state of a payment that is not final."""
    failed_status: Word = "failed"
    """The state of a final payment without money; every other one is taken for a success."""


class FailureWords(Strict):
    """Failures of ours and of those we depend on, by the word in `failure_reason`; any other word is `other`."""

    platform: Words = ("abandoned", "internal", "invalid_request", "parameter_invalid_integer", "resource_missing")
    """The platform's own."""
    provider: Words = (
        "provider_error",
        "provider_rate_limited",
        "intent_missing",
        "canceled",
        "api_error",
        "processing_error",
    )
    """The provider answered, but did not do what it is for."""
    network: Words = ("provider_timeout", "provider_unreachable", "timeout", "connection_error")
    """No answer came from the provider."""


class DeclineWords(Strict):
    """Words in `failure_reason` that say that the customer's bank or card refused; they are no failures."""

    refused_by_bank: Words = ("card_declined", "declined", "generic_decline", "do_not_honor")
    """No, and no more."""
    insufficient_funds: Words = ("insufficient_funds", "card_velocity_exceeded")
    """Not enough money, or a limit of the card."""
    expired_card: Words = ("expired_card",)
    """Out of date."""
    wrong_details: Words = ("incorrect_number", "incorrect_cvc", "incorrect_zip", "invalid_expiry_year")
    """Typed wrongly."""
    authentication_required: Words = ("authentication_required",)
    """The bank wants to see the customer."""
    suspected_fraud: Words = ("fraudulent", "lost_card", "stolen_card", "pickup_card")
    """The bank or the provider suspects fraud."""
    other: Words = ()
    """Further words that are refusals."""


class PaymentsCollector(CursorSettings):
    """Collector `payments`: a cursor over the platform's payments."""

    state_file: AbsolutePath = Path("/var/lib/prep-exporter/payments.json")
    """Where the cursor's position and totals are kept; a file of this exporter's own, on a volume that stays."""
    providers: Names = ("stripe",)
    """Values of the label `provider`; all others are `other`."""
    methods: Names = ("card",)
    """Values of the label `method`; all others are `other`."""
    table: PaymentsTable = PaymentsTable()
    """Where the payments are."""
    failures: FailureWords = FailureWords()
    """Which reason is whose failure."""
    declines: DeclineWords = DeclineWords()
    """Which reasons are refusals of a bank."""

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        _refuse_repeated(self.failures, self.declines)
        return self


class AuditTable(Strict):
    """The audit log, and what its columns and words are called."""

    name: TableName = "audit_log"
    """With its schema when that is not in the role's search_path."""
    id: Identifier = "id"
    """A whole number that no two rows share."""
    at: Identifier = "at"
    """When it happened; timestamptz."""
    event: Identifier = "event"
    """What happened."""
    outcome: Identifier = "outcome"
    """How it ended."""
    reason: Identifier = "reason"
    """The word that says why it was refused."""
    login_event: Word = "login"
    """An attempt to log in."""
    lock_event: Word = "account_locked"
    """An account was locked."""
    failed_outcome: Word = "failure"
    """The outcome of a login that was refused."""


class AccountsTable(Strict):
    """The table of accounts, and what its columns are called."""

    name: TableName = "users"
    """With its schema when that is not in the role's search_path."""
    locked_at: Identifier = "locked_at"
    """Since when the account is locked; NULL when it is not."""


class LoginFailureWords(Strict):
    """Why a login was refused, by the word in `reason`; a word that is in no list is `other`."""

    wrong_password: Words = ("wrong_password", "bad_password", "invalid_credentials")
    """The account is there, the password is not its."""
    unknown_user: Words = ("unknown_user", "no_such_user")
    """There is no such account."""
    account_locked: Words = ("account_locked", "locked")
    """The account is locked, whatever the password."""
    second_factor: Words = ("second_factor", "mfa_failed", "invalid_otp")
    """The second factor was wrong or missing."""


class SecurityCollector(CursorSettings):
    """Collector `security`: a cursor over the platform's audit log."""

    state_file: AbsolutePath = Path("/var/lib/prep-exporter/security.json")
    """Where the cursor's position and totals are kept; a file of this exporter's own, on a volume that stays."""
    table: AuditTable = AuditTable()
    """Where the events are."""
    accounts: AccountsTable | None = AccountsTable()
    """Where the locked accounts are; null where there is no such table: they are not counted then."""
    reasons: LoginFailureWords = LoginFailureWords()
    """Which word is which reason."""

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        _refuse_repeated(self.reasons)
        return self


def _refuse_repeated(*groups: Strict) -> None:
    """Raise ValueError when a word stands in two lists: it would have two meanings."""
    words = Counter(word for group in groups for words in vars(group).values() for word in set(words))
    if repeated := sorted(word for word, times in words.items() if times > 1):
        raise ValueError(f"{', '.join(repeated)} in more than one list of reasons")
