# dockerd with the runtime as its default, as docs/runtime.md has it.
export DOCKER_HOST=unix:///run/docker.sock
N="--network none"

up() {
    mkdir -p /etc/docker
    cat >/etc/docker/daemon.json <<'END'
{
  "runtimes": {"other": {"path": "/usr/local/bin/oci-runtime"}},
  "default-runtime": "other",
  "live-restore": true,
  "experimental": true
}
END
    start_dockerd
    docker load --quiet --input /lab/images/busybox.tar
}

# BuildKit, which is part of dockerd, knows no other way to another runtime.
start_dockerd() {
    DOCKER_BUILDKIT_RUNC_COMMAND=/usr/local/bin/oci-runtime daemon dockerd dockerd --host "$DOCKER_HOST" \
        --pidfile /run/dockerd.pid --storage-driver overlay2 --bip 10.213.0.1/24 --add-runtime flagged=/usr/local/bin/oci-runtime
    until_true docker version
}

# With live-restore containers go on: `end_daemon dockerd; start_dockerd` shows it.
down() {
    local ids
    ids=$(docker ps -aq)
    [ -z "$ids" ] || docker rm --force --volumes $ids
    docker network prune --force
    end_daemon dockerd
    # Its mounts in the store are its own.
    until_true sh -c '! pgrep containerd-shim'
}

logged() { until_true sh -c "docker logs $1 2>&1 | grep -q '$2'"; }
status() { docker inspect "$1" --format '{{.State.Status}} {{.State.ExitCode}}'; }
running() { [ "$(docker inspect "$1" --format '{{.State.Running}}')" = true ]; }
ended() { ! running "$1"; }
removed() { ! docker inspect "$1"; }
