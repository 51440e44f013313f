# containerd with its runc shim on the runtime: by flag for ctr, by config.toml for CRI, as docs/runtime.md has it.
A=/run/containerd/containerd.sock
RUNTIME="--runtime io.containerd.runc.v2 --runc-binary /usr/local/bin/oci-runtime"
I=docker.io/library/busybox:latest

ctr() { command ctr --address $A "$@"; }

up() {
    mkdir -p /etc/containerd /etc/cni/net.d
    cat >/etc/containerd/config.toml <<'END'
version = 3

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "docker.io/library/pause:latest"

[plugins."io.containerd.cri.v1.runtime"]
# Where root has no CAP_SYS_RESOURCE nobody has less than it was started with.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "other"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.other]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.other.options]
BinaryName = "/usr/local/bin/oci-runtime"

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
END
    printf '%s' '{"cniVersion":"1.0.0","name":"lab","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
        "ipam":{"type":"host-local","ranges":[[{"subnet":"10.215.0.0/24"}]]}},{"type":"portmap","capabilities":{"portMappings":true}}]}' \
        >/etc/cni/net.d/10-lab.conflist
    start_containerd
    ctr image import /lab/images/busybox.tar
    ctr --namespace k8s.io image import /lab/images/busybox.tar
    pause_image >/tmp/pause.tar
    ctr --namespace k8s.io image import /tmp/pause.tar
}

start_containerd() {
    daemon containerd containerd
    until_true ctr version
}

# busybox with another command: what holds the namespaces of a pod.
pause_image() {
    local dir config
    dir=$(mktemp -d)
    tar -x -C "$dir" -f /lab/images/busybox.tar
    config=$(jq -r '.[0].Config' "$dir/manifest.json")
    jq -c '.config.Cmd = ["sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"]' "$dir/$config" >"$dir/pause.json"
    jq -c '.[0].Config = "pause.json" | .[0].RepoTags = ["docker.io/library/pause:latest"]' "$dir/manifest.json" >"$dir/m"
    mv "$dir/m" "$dir/manifest.json"
    tar -c -C "$dir" .
}

down() {
    local name
    for name in $(ctr task ls -q); do ctr task rm --force "$name"; done
    for name in $(ctr container ls -q); do ctr container rm "$name"; done
    end_daemon containerd
    until_true sh -c '! pgrep containerd-shim'
    ip link delete cni0
    rm -rf /run/netns/* 2>/dev/null
}

task() { ctr task ls | awk -v name="$1" '$1 == name { print $3 }'; }
stopped() { [ "$(task "$1")" = STOPPED ]; }

# cri METHOD [MESSAGE]: calls the CRI service; both messages are in protobuf's text form. Debian has no crictl, and gRPC is
# HTTP/2 with five bytes before each message: not compressed, and the length.
cri() {
    local method=$1 dir service=RuntimeService code
    case $method in *Image*) service=ImageService ;; esac
    dir=$(mktemp -d)
    printf '%s' "${2-}" | protoc -I /usr/share/cri --encode="runtime.v1.${method}Request" api.proto >"$dir/message" || return
    printf '%010x' "$(stat -c %s "$dir/message")" | sed 's/../\\x&/g' | xargs -0 printf >"$dir/body"
    cat "$dir/message" >>"$dir/body"
    curl --silent --http2-prior-knowledge --unix-socket $A --max-time 60 --header 'content-type: application/grpc' --header 'te: trailers' \
        --data-binary "@$dir/body" --dump-header "$dir/head" --output "$dir/answer" "http://cri/runtime.v1.$service/$method"
    code=$(sed -n 's/^grpc-status: *\([0-9]*\).*/\1/p' "$dir/head")
    if [ "${code:-99}" != 0 ]; then
        sed -n 's/^grpc-message: */cri: /p' "$dir/head" | tr -d '\r' >&2
        return "${code:-99}"
    fi
    tail -c +6 "$dir/answer" | protoc -I /usr/share/cri --decode="runtime.v1.${method}Response" api.proto
    rm -r "$dir"
}

# The first value of a field in an answer.
field() { sed -n "s/^ *$1: \"\(.*\)\"/\1/p" | head -1; }

# The ids of the steps' pod and containers.
pod() { cat /tmp/pod; }
container() { cat "/tmp/container-$1"; }
POD='metadata { name: "p" uid: "u" namespace: "n" } hostname: "inpod" log_directory: "/tmp/logs" linux { security_context { namespace_options { pid: CONTAINER } } }'

# create NAME FIELDS: a container in the pod.
create() {
    cri CreateContainer "pod_sandbox_id: \"$(pod)\" sandbox_config { $POD } config { metadata { name: \"$1\" } image { image: \"$I\" } log_path: \"$1.log\" $2 }" |
        field container_id >"/tmp/container-$1"
    [ -s "/tmp/container-$1" ]
}
state() { cri ContainerStatus "container_id: \"$(container "$1")\"" | sed -nE 's/^ *((state|exit_code|reason): .*)/\1/p'; }
exited() { state "$1" | grep -q CONTAINER_EXITED; }
execute() { cri ExecSync "container_id: \"$(container "$1")\" cmd: \"sh\" cmd: \"-c\" cmd: \"$2\" timeout: 20"; }
