#!/bin/sh
# Flags and a configuration alone are those of redis-server, which runs as its own user.
set -e
case ${1:-} in
    -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "${1:-}" = redis-server ]; then
    shift
    case " $* " in
        # Who publishes the port wants others to reach it, as with the image of Docker Hub.
        *" --protected-mode "* | *.conf\ *) ;;
        *) set -- "$@" --protected-mode no ;;
    esac
    set -- redis-server "$@"
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis:redis '{}' +
        exec setpriv --reuid=redis --regid=redis --init-groups "$@"
    fi
fi
exec "$@"
