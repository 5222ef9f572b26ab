#!/bin/bash
# The entrypoint of the local PostgreSQL image: the part of the public image's contract that docker-compose.yml relies on.
#
# In: POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_USER, POSTGRES_DB, POSTGRES_INITDB_ARGS, PGDATA, and the files
# /docker-entrypoint-initdb.d/*.sh and *.sql, run once, in the order of their names, when the data folder is empty.
# Out: the command, with its arguments, as user postgres. The server that runs the init files listens on no network address, so that
# nobody connects to a half-made database.
set -Eeuo pipefail

# Sets variable $1 from itself or from the file that ${1}_FILE names; both at once is a mistake.
from_file() {
    local name="$1" file="${1}_FILE"
    if [ -n "${!name:-}" ] && [ -n "${!file:-}" ]; then
        echo >&2 "error: both $name and $file are set"
        exit 1
    fi
    [ -z "${!file:-}" ] || printf -v "$name" '%s' "$(<"${!file}")"
    export "${name?}"
    unset "$file"
}

create_cluster() {
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo >&2 "error: the data folder is empty and POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE) gives no password"
        exit 1
    fi
    # shellcheck disable=SC2086 # a list of arguments
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") ${POSTGRES_INITDB_ARGS:-} >/dev/null
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
}

run_init_files() {
    local file psql=(psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER")
    if [ "$POSTGRES_DB" != postgres ]; then
        "${psql[@]}" --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db"'
    fi
    for file in /docker-entrypoint-initdb.d/*; do
        [ -e "$file" ] || continue
        echo >&2 "running $file"
        case "$file" in
            *.sh)
                if [ -x "$file" ]; then
                    "$file"
                else
                    # shellcheck source=/dev/null
                    . "$file"
                fi
                ;;
            *.sql) "${psql[@]}" --dbname "$POSTGRES_DB" --file "$file" ;;
            *) echo >&2 "ignoring $file" ;;
        esac
    done
}

prepare() {
    from_file POSTGRES_PASSWORD
    from_file POSTGRES_USER
    from_file POSTGRES_DB
    export POSTGRES_USER="${POSTGRES_USER:-postgres}"
    export POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"
    [ ! -s "$PGDATA/PG_VERSION" ] || return 0
    create_cluster
    PGUSER="$POSTGRES_USER" pg_ctl --pgdata "$PGDATA" --wait --options "$(printf '%q ' "${@:2}" -c listen_addresses= -p 5432)" start
    PGPASSWORD="$POSTGRES_PASSWORD" run_init_files
    PGUSER="$POSTGRES_USER" pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
    unset POSTGRES_PASSWORD
}

if [ "${1:0:1}" = - ]; then
    set -- postgres "$@"
fi
if [ "$1" = postgres ]; then
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA" || true
    if [ "$(id -u)" = 0 ]; then
        chown -R postgres:postgres "$PGDATA" /var/run/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    prepare "$@"
fi
exec "$@"
