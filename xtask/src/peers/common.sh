# What the scripts and steps of all peers use.

# A terminal for a command line, without anyone who types: `script` would pass on the end of /dev/null.
terminal() {
    local fifo
    fifo=$(mktemp -u) && mkfifo "$fifo" || return
    script -qec "$*" /dev/null 0<>"$fifo"
    local code=$?
    rm -f "$fifo"
    return $code
}

# until_true COMMAND...: within ten seconds.
until_true() {
    for _ in {1..200}; do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.05
    done
    echo "never: $*" >&2
    return 1
}

# daemon NAME COMMAND...: in the background, with its log in /lab/said.
daemon() {
    local name=$1
    shift
    setsid "$@" >>"/lab/said/$name.log" 2>&1 </dev/null &
    echo $! >"/run/$name.leader"
}

# end_daemon NAME: ends it and waits for it.
end_daemon() {
    local pid
    pid=$(cat "/run/$1.leader")
    kill "$pid"
    until_true gone "$pid"
}

gone() { ! kill -0 "$1" 2>/dev/null; }

# What podman and skopeo trust, and where podman has its images.
containers_conf() {
    mkdir -p /etc/containers
    printf 'unqualified-search-registries = []\n' >/etc/containers/registries.conf
    printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' >/etc/containers/policy.json
    printf '[storage]\ndriver = "overlay"\ngraphroot = "/var/lib/containers/storage"\nrunroot = "/run/containers/storage"\n' \
        >/etc/containers/storage.conf
}
