#!/bin/bash
# A streaming replica of the demo's primary: copies it once, then follows it. Runs on the public postgres image and on the local one.
#
# In: PRIMARY_HOST, REPLICATION_USER, REPLICATION_PASSWORD_FILE, PGDATA; the command's arguments go to postgres. Runs as user postgres.
# A copy that was broken off is thrown away and begun anew: only a complete one has the mark.
set -euo pipefail

MARK="$PGDATA/prep-replica-complete"
# Beside the data, not in it, and made at each start: the password itself is then in no file that outlives the container.
PASSFILE=/tmp/pgpass
COPY_SECONDS=120

(umask 077 && printf '*:*:*:%s:%s\n' "$REPLICATION_USER" "$(<"$REPLICATION_PASSWORD_FILE")" >"$PASSFILE")

if [ ! -e "$MARK" ]; then
    chmod 0700 "$PGDATA"
    deadline=$((SECONDS + COPY_SECONDS))
    until find "$PGDATA" -mindepth 1 -delete && pg_basebackup --pgdata "$PGDATA" --write-recovery-conf --wal-method stream --checkpoint fast \
        --dbname "host=$PRIMARY_HOST user=$REPLICATION_USER passfile=$PASSFILE application_name=postgres-replica"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo >&2 "error: no copy of $PRIMARY_HOST within $COPY_SECONDS s"
            exit 1
        fi
        sleep 1
    done
    touch "$MARK"
fi
exec postgres "$@"
