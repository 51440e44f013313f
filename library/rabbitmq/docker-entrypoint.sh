#!/bin/sh
# Writes the settings that variables ask for, and runs the server as its own user.
set -e
if [ "${1:-}" = rabbitmq-server ] && [ "$(id -u)" = 0 ]; then
    {
        # Without a user that was asked for, everybody may log in as guest: the port is published or not.
        echo "loopback_users.guest = false"
        for name in USER PASS VHOST; do
            value=$(printenv "RABBITMQ_DEFAULT_$name" || true)
            key=$(echo "default_$name" | tr '[:upper:]' '[:lower:]')
            [ -z "$value" ] || printf '%s = %s\n' "$key" "$value"
        done
    } >/etc/rabbitmq/rabbitmq.conf
    chown -R rabbitmq:rabbitmq /var/lib/rabbitmq /etc/rabbitmq
    export HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$@"
fi
exec "$@"
