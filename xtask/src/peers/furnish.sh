#!/bin/bash
# furnish.sh CHROOT SHARED PROGRAM IMAGES: the first process in the namespaces; makes them a machine and goes on as run.sh.
#
#   /                  CHROOT below an overlay; what is written is in memory
#   /lab               SHARED: scripts, steps, what they said; /lab/images: IMAGES, read-only
#   /usr/local/bin/oci-runtime    PROGRAM, a runtime; or
#   /lab/engine                   PROGRAM, a directory, read-only
set -eu
chroot=$1 shared=$2 program=$3 images=$4
hierarchies=$(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2, $3, $4 }' /proc/mounts)

mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$chroot,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
root=/mnt/root
mkdir -p $root/lab $root/old
mount --bind "$shared" $root/lab
mkdir -p $root/lab/images
mount --bind -o ro "$images" $root/lab/images
if [ -d "$program" ]; then
    mkdir -p $root/lab/engine
    mount --bind -o ro "$program" $root/lab/engine
else
    # Not bound: runc runs from an overlay of its directory, which has no binds.
    cp "$program" $root/usr/local/bin/oci-runtime
fi

mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount --bind /dev $root/dev
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts $root/dev/pts
mount -t tmpfs tmpfs $root/dev/shm
mount -t tmpfs -o mode=755 tmpfs $root/run
mount -t tmpfs -o mode=1777 tmpfs $root/tmp
# An overlay cannot have its upper directory on another one.
for store in containers containerd docker; do
    mkdir -p $root/var/lib/$store
    mount -t tmpfs -o mode=711 tmpfs $root/var/lib/$store
done

if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
    mount -t tmpfs -o mode=755 tmpfs $root/sys/fs/cgroup
    echo "$hierarchies" | while read -r point type options; do
        mkdir "$root$point"
        # Of the options the last ones name the hierarchy: rw,relatime,cpu,cpuacct or rw,name=systemd.
        options=$(echo "$options" | tr , '\n' | grep -vxE 'rw|relatime|nosuid|nodev|noexec|xattr|nsdelegate|memory_.*|clone_children|release_agent=.*' | paste -sd,)
        mount -t "$type" ${options:+-o "$options"} cgroup "$root$point"
    done
else
    mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
    # Where processes are, no controllers are handed down.
    mkdir $root/sys/fs/cgroup/lab
    echo 0 >$root/sys/fs/cgroup/lab/cgroup.procs
    for controller in $(cat $root/sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >$root/sys/fs/cgroup/cgroup.subtree_control || :
    done
fi

cd $root
pivot_root . old
umount -l /old
mount --make-rshared /
hostname lab
echo "127.0.0.1 localhost lab" >/etc/hosts
: >/etc/resolv.conf
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=xterm \
    bash /lab/run.sh
