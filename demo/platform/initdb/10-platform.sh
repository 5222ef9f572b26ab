#!/bin/bash
# Roles, tables, grants and seed of the demo platform's database.
#
# Run once by the PostgreSQL image (docker-entrypoint-initdb.d), executed or sourced, or by hand against any server that the
# PG* variables of libpq point to. In: POSTGRES_USER (a superuser, default postgres), POSTGRES_DB (default prepchef),
# PREP_SECRETS_DIR (default /run/secrets), PREP_PLATFORM_DIR (the *.sql files; default: the folder above this one, and
# /etc/prep/platform where this folder is mounted alone). Fails at the first error, and then the server does not start.
(
    set -euo pipefail

    here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    sql="${PREP_PLATFORM_DIR:-$here/..}"
    [ -r "$sql/schema.sql" ] || sql=/etc/prep/platform
    SECRETS_DIR="${PREP_SECRETS_DIR:-/run/secrets}"
    export SECRETS_DIR

    psql=(psql -X --quiet --no-password --set ON_ERROR_STOP=1
        --username "${POSTGRES_USER:-postgres}" --dbname "${POSTGRES_DB:-prepchef}")

    for name in app exporter remediator; do
        if [ ! -s "$SECRETS_DIR/postgres_${name}_password" ]; then
            echo >&2 "error: $SECRETS_DIR/postgres_${name}_password is missing or empty"
            exit 1
        fi
    done

    "${psql[@]}" --file "$sql/roles.sql"
    "${psql[@]}" --single-transaction --command 'SET ROLE prep_app' --file "$sql/schema.sql" --file "$sql/grants.sql" \
        --file "$sql/seed.sql"

    # The replica logs in by this line; `all` in pg_hba.conf does not mean replication. Read at the server's next start.
    if [ -w "${PGDATA:-}/pg_hba.conf" ] && ! grep -q prep_replication "$PGDATA/pg_hba.conf"; then
        echo 'host replication prep_replication all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    fi
)
