#!/bin/bash
# supervise.sh NAME COMMAND...: runs COMMAND in namespaces and cgroups of its own, and leaves nothing of it.
#
# Standard input is the leash: when it ends, because the caller wants so or is no more, everything is killed. Not by
# traps: the caller may get SIGKILL as well as Ctrl-C.
set -u
name=$1
shift

# One cgroup in every hierarchy.
made=()
while read -r _ point type _; do
    case $type in
    cgroup | cgroup2) ;;
    *) continue ;;
    esac
    if mkdir "$point/$name" 2>/dev/null; then
        made+=("$point/$name")
        # A cpuset of version 1 takes no process before it has these.
        for file in cpuset.mems cpuset.cpus; do
            [ ! -e "$point/$name/cgroup.clone_children" ] || [ ! -e "$point/$file" ] ||
                cat "$point/$file" >"$point/$name/$file"
        done
    fi
done </proc/mounts

exec 3<&0 </dev/null
(
    exec 3<&-
    for cgroup in "${made[@]}"; do echo "$BASHPID" >"$cgroup/cgroup.procs" || exit 1; done
    # The first process of the PID namespace dies with unshare, and all others with it.
    exec unshare --mount --net --uts --ipc --pid --cgroup --fork --kill-child=KILL --propagation private "$@"
) &
lab=$!
cat <&3 >/dev/null &
leash=$!
sleep 1200 &
limit=$!
wait -n "$lab" "$leash" "$limit"
# The shell would tell who was killed.
{
    kill -KILL "$lab" "$leash" "$limit"
    wait
} 2>/dev/null

# Processes are gone from their cgroups a moment after they died.
for _ in {1..100}; do
    left=()
    for cgroup in "${made[@]}"; do
        # Version 1 kills nothing that is frozen.
        find "$cgroup" -name freezer.state 2>/dev/null | while read -r file; do echo THAWED >"$file"; done 2>/dev/null
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
        [ ! -d "$cgroup" ] || left+=("$cgroup")
    done
    [ ${#left[@]} -gt 0 ] || exit 0
    sleep 0.1
done
echo "left behind: ${left[*]}" >&2
exit 1
