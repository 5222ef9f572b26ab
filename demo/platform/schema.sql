-- The demo platform's tables: database `prepchef`, owner prep_app. Safe to run again.
-- Run as a member of prep_app; every table belongs to the role that runs it (initdb/10-platform.sh sets it).

-- One row per check, written when the check arrives, before it waits for anything. `finished_at` and `result` are set
-- once, at its end. A row without them is a check that nobody has an answer to.
CREATE TABLE IF NOT EXISTS compliance_checks (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_ref   text NOT NULL,
    rule_set    text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    result      text CHECK (result IN ('pass', 'fail', 'error'))
);
CREATE INDEX IF NOT EXISTS compliance_checks_finished ON compliance_checks (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS compliance_checks_pending ON compliance_checks (created_at) WHERE finished_at IS NULL;

-- `stripe_payment_intent` is written before the intent is confirmed, so a charge never exists without its row.
CREATE TABLE IF NOT EXISTS payments (
    id                    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_ref             text NOT NULL,
    amount_minor          bigint NOT NULL CHECK (amount_minor > 0),
    currency              text NOT NULL,
    provider              text NOT NULL,
    method                text NOT NULL,
    status                text NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed', 'refunded')),
    failure_reason        text,
    stripe_payment_intent text UNIQUE,
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    finalized_at          timestamptz,
    attempts              int NOT NULL DEFAULT 0,
    -- Set once, with the state `refunded`; `finalized_at` stays what it was.
    refunded_at           timestamptz
);
-- For a database that was made before there were refunds.
ALTER TABLE payments ADD COLUMN IF NOT EXISTS refunded_at timestamptz;
-- What a retry needs: how it was to be paid, the fingerprint of that card (the provider's word for the same number, once it was asked),
-- and when the last retry began. `payment_method` is a token of the provider's; no card number is ever here.
ALTER TABLE payments ADD COLUMN IF NOT EXISTS payment_method text;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS card text;
ALTER TABLE payments ADD COLUMN IF NOT EXISTS tried_at timestamptz;
CREATE INDEX IF NOT EXISTS payments_finalized ON payments (finalized_at) WHERE finalized_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS payments_refunded ON payments (refunded_at) WHERE refunded_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS payments_pending ON payments (created_at) WHERE status = 'pending';
-- An order is paid at most once: a second payment is refused while one is open or has succeeded.
CREATE UNIQUE INDEX IF NOT EXISTS payments_one_per_order ON payments (order_ref) WHERE status IN ('pending', 'succeeded');

CREATE INDEX IF NOT EXISTS payments_by_order ON payments (order_ref);

-- One row per retry that began (demo/retries.py), written in the transaction that opens the payment again: what the card networks'
-- limits are counted in, and what settles a doubt. `outcome` is NULL while the payment is open. No foreign key: it outlives its payment.
CREATE TABLE IF NOT EXISTS payment_retries (
    attempt        text NOT NULL,
    payment_id     bigint NOT NULL,
    card           text NOT NULL,
    begun_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    outcome        text CHECK (outcome IN ('succeeded', 'failed')),
    failure_reason text,
    PRIMARY KEY (attempt, payment_id)
);
CREATE INDEX IF NOT EXISTS payment_retries_card ON payment_retries (card, begun_at);
CREATE INDEX IF NOT EXISTS payment_retries_payment ON payment_retries (payment_id);

-- Orders that are never paid from now on.
CREATE TABLE IF NOT EXISTS cancelled_orders (
    order_ref    text PRIMARY KEY,
    cancelled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What python-compliance evaluates; read once, when it starts. The language is told in demo/rules.py.
CREATE TABLE IF NOT EXISTS compliance_rules (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule_set   text NOT NULL,
    name       text NOT NULL,
    expression jsonb NOT NULL,
    enabled    boolean NOT NULL DEFAULT true,
    UNIQUE (rule_set, name)
);

-- RegEngine: the regulations that rules refer to, as documents. python-compliance keeps them in Redis for a while.
CREATE TABLE IF NOT EXISTS regulations (
    code       text PRIMARY KEY,
    title      text NOT NULL,
    document   jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Where analysts keep what they worked out: the one table that prep_analyst may write to.
CREATE TABLE IF NOT EXISTS analyst_reports (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Accounts of kitchens and couriers. `locked_at` is NULL while the account is open.
CREATE TABLE IF NOT EXISTS users (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_ref  text NOT NULL UNIQUE,
    locked_at timestamptz
);
CREATE INDEX IF NOT EXISTS users_locked ON users (locked_at) WHERE locked_at IS NOT NULL;

-- Who did what, append-only. A login of somebody unknown has a user_ref that no account has.
CREATE TABLE IF NOT EXISTS audit_log (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    event    text NOT NULL,
    outcome  text NOT NULL CHECK (outcome IN ('success', 'failure')),
    reason   text,
    user_ref text NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_log_logins ON audit_log (at) WHERE event IN ('login', 'account_locked');

-- One row that `payments` writes every few seconds (demo/heartbeat.py): what a replica has of it says how far behind it is, also
-- while nobody pays and when the link is cut.
CREATE TABLE IF NOT EXISTS replication_heartbeat (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    beat_at  timestamptz NOT NULL
);
