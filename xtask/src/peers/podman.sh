# podman on the runtime, by containers.conf as docs/runtime.md has it.
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
# Networks are not the runtime's business, and cost more than all the rest.
N="--network none"

up() {
    containers_conf
    cat >/etc/containers/containers.conf <<'END'
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "oci-runtime"
runtime_supports_json = ["crun", "runc", "oci-runtime"]

[engine.runtimes]
oci-runtime = ["/usr/local/bin/oci-runtime"]
END
    useradd --system containers
    echo containers:2000000:1000000 | tee -a /etc/subuid >>/etc/subgid
    podman load --quiet --input /lab/images/busybox.tar
}

# The store stays mounted while it is used, and podman's own cgroups as long as it has ever run.
down() {
    podman pod rm --all --force --time 0
    podman rm --all --force --time 0
    podman volume prune --force
    podman image rm --all --force
}

# Waits until the container prints the line, or has printed it.
logged() { until_true sh -c "podman logs $1 2>&1 | grep -q '$2'"; }

# What ends is `stopped` until podman's own process has cleaned up.
cleaned_up() { [ "$(podman inspect "$1" --format '{{.State.Status}}')" = exited ]; }
