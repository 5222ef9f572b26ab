-- What each role may do in `prepchef`. Safe to run again. Roles themselves: roles.sql.

-- The exporter counts what becomes final: it needs times and states, never whose order it was. pg_monitor comes with the role.
GRANT SELECT (id, created_at, finished_at, result) ON compliance_checks TO prep_exporter;
GRANT SELECT (id, amount_minor, currency, provider, method, status, failure_reason, created_at, finalized_at, refunded_at,
    attempts) ON payments TO prep_exporter;
-- Which logins failed and how many accounts are locked, never whose.
GRANT SELECT (id, at, event, outcome, reason) ON audit_log TO prep_exporter;
GRANT SELECT (locked_at) ON users TO prep_exporter;
-- When the replica was last heard of: the heartbeat.
GRANT SELECT (beat_at) ON replication_heartbeat TO prep_exporter;

-- The remediator reads sessions and ends them; it sees no table. Its two memberships come with the role.

-- The analyst reads business data and keeps reports: a person with a report that runs too long (demo/faults.py).
GRANT SELECT ON payments, compliance_checks TO prep_analyst;
GRANT SELECT, INSERT ON analyst_reports TO prep_analyst;
