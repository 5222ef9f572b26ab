-- The demo platform's roles. Safe to run again: passwords and memberships are set anew. Run by a superuser, through psql only.
--
-- Passwords come from files, so that they stand in no process list and no history: `secrets_dir` is their folder.
-- A role whose file is missing is made without a password, and with password authentication cannot log in.
\set ON_ERROR_STOP on

SELECT format('CREATE ROLE %I LOGIN', name)
FROM unnest(ARRAY['prep_app', 'prep_exporter', 'prep_remediator', 'prep_analyst', 'prep_replication']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

\set app_password `cat "$SECRETS_DIR/postgres_app_password"`
\set exporter_password `cat "$SECRETS_DIR/postgres_exporter_password"`
\set remediator_password `cat "$SECRETS_DIR/postgres_remediator_password"`
\set analyst_password `cat "$SECRETS_DIR/postgres_analyst_password" 2>/dev/null`
\set replication_password `cat "$SECRETS_DIR/postgres_replication_password" 2>/dev/null`

-- An empty password is no password: PostgreSQL stores NULL and refuses the log-in.
ALTER ROLE prep_app PASSWORD :'app_password' CONNECTION LIMIT 40;
ALTER ROLE prep_exporter PASSWORD :'exporter_password' CONNECTION LIMIT 5;
ALTER ROLE prep_remediator PASSWORD :'remediator_password' CONNECTION LIMIT 10;
ALTER ROLE prep_analyst PASSWORD :'analyst_password' CONNECTION LIMIT 10;
ALTER ROLE prep_replication REPLICATION PASSWORD :'replication_password' CONNECTION LIMIT 4;

GRANT pg_monitor TO prep_exporter;
GRANT pg_signal_backend, pg_read_all_stats TO prep_remediator;

-- The owner of a database may create in its schema `public` (pg_database_owner, PostgreSQL 15).
SELECT format('ALTER DATABASE %I OWNER TO prep_app', current_database())
\gexec
