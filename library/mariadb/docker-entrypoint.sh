#!/bin/bash
# Makes the data of a new volume, then runs the server as its own user. Variables begin with MARIADB_ or MYSQL_; those whose
# names end with _FILE name a file with the value.
set -euo pipefail

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

# The value of MARIADB_$1 or MYSQL_$1, of the variable or of the file.
value() {
    local prefix name file
    for prefix in MARIADB MYSQL; do
        name=${prefix}_$1 file=${prefix}_$1_FILE
        if [ -n "${!name:-}" ]; then
            printf %s "${!name}"
            return
        elif [ -n "${!file:-}" ]; then
            printf %s "$(<"${!file}")"
            return
        fi
    done
}

# A text as SQL has it between quotes.
quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\'\'}"
}

fail() {
    echo >&2 "error: $1"
    exit 1
}

sql() {
    mariadb --protocol=socket --socket="$socket" --user=root ${password:+--password="$password"} "$@"
}

# Accounts and the database that variables ask for.
accounts() {
    local database user user_password
    database=$(value DATABASE) user=$(value USER) user_password=$(value PASSWORD)
    # Those that mariadb-install-db makes without passwords, for addresses of this machine and of the container.
    echo "DELETE FROM mysql.global_priv WHERE User IN ('', 'root') AND NOT (User = 'root' AND Host = 'localhost');"
    echo "DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost'; FLUSH PRIVILEGES;"
    if [ -n "$root" ]; then
        echo "ALTER USER root@localhost IDENTIFIED BY $(quoted "$root");"
    fi
    echo "CREATE USER root@'%' IDENTIFIED BY $(quoted "$root");"
    echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
    [ -z "$database" ] || echo "CREATE DATABASE IF NOT EXISTS \`${database//\`/\`\`}\`;"
    if [ -n "$user" ]; then
        echo "CREATE USER $(quoted "$user")@'%' IDENTIFIED BY $(quoted "$user_password");"
        [ -z "$database" ] ||
            echo "GRANT ALL ON \`${database//\`/\`\`}\`.* TO $(quoted "$user")@'%';"
    fi
    echo "DROP DATABASE IF EXISTS test;"
}

scripts() {
    local file database
    database=$(value DATABASE)
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
            *.sh) echo "running $file" && . "$file" ;;
            *.sql) echo "running $file" && sql ${database:+"$database"} <"$file" ;;
            *.sql.gz) echo "running $file" && gunzip -c "$file" | sql ${database:+"$database"} ;;
        esac
    done
}

initialize() {
    root=$(value ROOT_PASSWORD)
    if [ -n "$(value RANDOM_ROOT_PASSWORD)" ]; then
        root=$(head -c 24 /dev/urandom | base64 | tr -d '\n')
        echo "GENERATED ROOT PASSWORD: $root"
    fi
    if [ -z "$root$(value ALLOW_EMPTY_PASSWORD)$(value ALLOW_EMPTY_ROOT_PASSWORD)" ]; then
        fail "no password for root: set MYSQL_ROOT_PASSWORD, MYSQL_ALLOW_EMPTY_PASSWORD or MYSQL_RANDOM_ROOT_PASSWORD"
    fi
    # Half a database of a container that was killed is not taken for a whole one.
    mariadb-install-db --user=mysql --datadir="$data" --skip-test-db --auth-root-authentication-method=normal >/dev/null
    # Nobody reaches it before it has its passwords.
    setpriv --reuid=mysql --regid=mysql --init-groups mariadbd --skip-networking --socket="$socket" &
    local server=$!
    password=
    until sql -e 'SELECT 1' >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || fail "the server ended while the data was made"
        sleep 0.2
    done
    accounts | sql
    password=$root
    scripts
    kill "$server"
    wait "$server"
    touch "$data/.initialized"
}

[ "${1#-}" = "$1" ] || set -- mariadbd "$@"
case $1 in
    mysqld) shift && set -- mariadbd "$@" ;;
esac
if [ "$1" = mariadbd ] && [ "$(id -u)" = 0 ]; then
    mkdir -p /run/mysqld
    chown mysql:mysql "$data" /run/mysqld
    if [ ! -e "$data/.initialized" ]; then
        [ ! -e "$data/mysql" ] || find "$data" -mindepth 1 -delete
        initialize
    fi
    exec setpriv --reuid=mysql --regid=mysql --init-groups "$@"
fi
exec "$@"
