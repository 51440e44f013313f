#!/bin/bash
# Makes the data of a new volume, then runs the server as its own user. Variables whose names end with _FILE name a file with
# the value.
set -euo pipefail

value() {
    local name=POSTGRES_$1 file=POSTGRES_$1_FILE
    if [ -n "${!name:-}" ]; then
        printf %s "${!name}"
    elif [ -n "${!file:-}" ]; then
        printf %s "$(<"${!file}")"
    fi
}

sql() {
    psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --host=/run/postgresql --username="$user" "$@"
}

scripts() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) echo "running $file" && . "$file" ;;
            *.sql) echo "running $file" && sql --dbname="$database" -f "$file" ;;
            *.sql.gz) echo "running $file" && gunzip -c "$file" | sql --dbname="$database" ;;
        esac
    done
}

initialize() {
    local password method
    password=$(value PASSWORD) method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -z "$password" ] && [ "$method" != trust ]; then
        echo >&2 "error: no password for $user: set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust"
        exit 1
    fi
    initdb --username="$user" --pwfile=<(printf '%s\n' "$password") ${POSTGRES_INITDB_ARGS:-} >/dev/null
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
    # Nobody reaches it before it has its databases.
    pg_ctl -w -o "-c listen_addresses=''" start >/dev/null
    if [ "$database" != postgres ]; then
        sql --dbname=postgres -v name="$database" <<<'CREATE DATABASE :"name";' >/dev/null
    fi
    scripts
    pg_ctl -m fast -w stop >/dev/null
    touch "$PGDATA/.initialized"
}

[ "${1#-}" = "$1" ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA"
        chown postgres:postgres "$PGDATA" /run/postgresql
        chmod 700 "$PGDATA"
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    user=$(value USER) user=${user:-postgres}
    database=$(value DB) database=${database:-$user}
    if [ ! -e "$PGDATA/.initialized" ]; then
        # Half a database of a container that was killed is not taken for a whole one.
        [ ! -e "$PGDATA/PG_VERSION" ] || find "$PGDATA" -mindepth 1 -delete
        initialize
    fi
    shift
    set -- postgres -c listen_addresses='*' "$@"
fi
exec "$@"
