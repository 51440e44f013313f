# Images that go round among an engine and others: dockerd, podman, skopeo and a registry. The engine is longshored where it is
# in /lab/engine, else the same dockerd as the other one.
#
#   up            all of them, and what they trust
#   clear         no engine has an image
#   got_WHO       pulls, and says the digests of manifest and configuration that it sees then
#   loaded_WHO    loads an archive, and says the digest of the configuration
#
# A step fails with its first command that does.
set -eo pipefail
R=127.0.0.1:5000
export PODMAN_IGNORE_CGROUPSV1_WARNING=1

up() {
    containers_conf
    printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' $R >>/etc/containers/registries.conf
    mkdir -p /run/registry
    printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: /run/registry}}\nhttp: {addr: "%s"}\n' \
        $R >/run/registry.yml
    daemon registry docker-registry serve /run/registry.yml
    daemon dockerd dockerd --host unix:///run/docker.sock --pidfile /run/dockerd.pid --storage-driver overlay2 \
        --bip 10.213.0.1/24
    until_true docker version
    if [ -d /lab/engine ]; then
        daemon engine /lab/engine/longshored --host unix:///run/engine.sock --data-root /run/engine/data \
            --exec-root /run/engine/exec --pidfile /run/engine.pid --bridge none
    else
        ln -s docker.sock /run/engine.sock
    fi
    until_true engine version
    until_true curl -sf http://$R/v2/
    archive amd64 >/tmp/amd64.tar
    archive arm64 >/tmp/arm64.tar
}

down() {
    clear
    [ ! -d /lab/engine ] || end_daemon engine
    end_daemon dockerd
    end_daemon registry
}

docker() { command docker --host unix:///run/docker.sock "$@"; }
engine() { command docker --host unix:///run/engine.sock "$@"; }
copy() { skopeo copy --quiet --src-tls-verify=false --dest-tls-verify=false "$@"; }

# archive ARCHITECTURE: busybox as a docker-archive for that one.
archive() {
    local dir config new
    dir=$(mktemp -d)
    tar -C "$dir" -xf /lab/images/busybox.tar
    config=$(jq -r '.[0].Config' "$dir/manifest.json")
    jq -c ".architecture = \"$1\"" "$dir/$config" >"$dir/new"
    new=$(sha256sum <"$dir/new" | cut -c1-64).json
    mv "$dir/new" "$dir/$new"
    [ "$new" = "$config" ] || rm "$dir/$config"
    jq -c ".[0].Config = \"$new\" | .[0].RepoTags = [\"$1:latest\"]" "$dir/manifest.json" >"$dir/named"
    mv "$dir/named" "$dir/manifest.json"
    tar -C "$dir" -cf - .
    rm -r "$dir"
}

# Whoever has nothing has to ask.
clear() {
    local who ids
    for who in engine docker; do
        ids=$($who images -aq | sort -u)
        [ -z "$ids" ] || $who rmi -f $ids >/dev/null
    done
    podman rmi -af >/dev/null
}

# same WHAT A B
same() {
    [ "$2" = "$3" ] && echo "$1: same" && return
    echo "$1: $3 instead of $2"
    return 1
}

# What the registry has as REPOSITORY:1.
raw() { skopeo inspect --tls-verify=false --raw "docker://$R/$1:1"; }
manifest() { echo "sha256:$(raw "$1" | sha256sum | cut -c1-64)"; }
config() { raw "$1" | jq -r .config.digest; }

# Of the digests that a name has, the one that is asked for.
of_client() {
    local client=$1 ref=$R/$2:1 id
    $client pull --quiet "$ref" >/dev/null
    id=$($client image inspect "$ref" --format '{{.Id}}')
    $client image inspect "$ref" --format '{{range .RepoDigests}}{{println .}}{{end}}' |
        sed -n "s|^$R/$2@||p" | grep -Fx "$(manifest "$2")"
    echo "sha256:${id#sha256:}"
}
got_engine() { of_client engine "$1"; }
got_docker() { of_client docker "$1"; }
got_podman() { of_client podman "$1"; }
got_skopeo() {
    rm -rf /tmp/got
    copy "docker://$R/$1:1" dir:/tmp/got
    echo "sha256:$(sha256sum </tmp/got/manifest.json | cut -c1-64)"
    jq -r .config.digest /tmp/got/manifest.json
}

# everybody_gets REPOSITORY: with the digests that the registry has.
everybody_gets() {
    local who wanted
    wanted="$(manifest "$1") $(config "$1")"
    for who in engine docker podman skopeo; do
        clear
        same "$1 by $who" "$wanted" "$(echo $(got_$who "$1"))"
    done
}

# The only image that is there.
of_store() { echo "sha256:$("$@" images --quiet --no-trunc | sort -u | sed 's/^sha256://')"; }
loaded_engine() { engine load --quiet --input "$1" >/dev/null && of_store engine; }
loaded_docker() { docker load --quiet --input "$1" >/dev/null && of_store docker; }
loaded_podman() { podman load --quiet --input "$1" >/dev/null && of_store podman; }
loaded_skopeo() {
    rm -rf /tmp/got
    copy "$2:$1" dir:/tmp/got
    jq -r .config.digest /tmp/got/manifest.json
}

# load_by FILE TRANSPORT WHO...: every one of them sees the configuration that is in it. A docker-archive has busybox's; who
# makes a layout of it may write another one.
load_by() {
    local file=$1 transport=$2 wanted=$BUSYBOX who
    shift 2
    [ "$transport" = docker-archive ] || wanted=$(skopeo inspect --raw "$transport:$file" | jq -r .config.digest)
    for who in "$@"; do
        clear
        same "${file##*/} by $who" "$wanted" "$(loaded_$who "$file" "$transport")"
    done
}
BUSYBOX=sha256:$(tar -xOf /lab/images/busybox.tar manifest.json | jq -r '.[0].Config | rtrimstr(".json")')
