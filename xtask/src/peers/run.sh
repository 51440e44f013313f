#!/bin/bash
# run.sh: in the lab; runs the steps in /lab/steps, one after the other, and tells of each on standard output.
#
#   /lab/peer.sh                    functions of the peer: `up`, `down`, and what its steps use
#   /lab/steps/NAME                 shell
#   /lab/said/NAME.{out,err,code}   what the step printed, and its exit code
#   /lab/said/left.out              what was not there before: processes, mounts, cgroups
cd /lab || exit
. /lab/common.sh

things() {
    ps -eo args= | grep -vE '^(ps |grep |sed |sort|comm |bash /lab/run.sh|\[)' | sed 's/^/process /'
    awk '{ print "mount " $5 }' /proc/self/mountinfo
    find /sys/fs/cgroup -mindepth 2 -type d | sed 's/^/cgroup /'
}

call() { timeout --kill-after=5 90 bash -c '. /lab/common.sh; . /lab/peer.sh; cd /root; "$@"' call "$@"; }

mkdir -p /tmp/before said
things | sort >/tmp/before/things
if ! call up >said/up.log 2>&1; then
    echo "failed $?"
    exit
fi
for step in steps/*; do
    name=${step##*/}
    call . "/lab/$step" >"said/$name.out" 2>"said/$name.err" </dev/null
    echo $? >"said/$name.code"
    echo "step $name"
done
call down >said/down.log 2>&1 || echo "down: $?" >>said/down.log
# What ends, ends soon: shims and what removes containers outlive their clients for a moment.
for _ in {1..50}; do
    things | sort | comm -13 /tmp/before/things - >said/left.out
    [ -s said/left.out ] || break
    sleep 0.1
done
: >said/left.err
echo 0 >said/left.code
echo "step left"
echo "end"
