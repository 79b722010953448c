#!/bin/busybox sh
# The first process of a guest: mounts, loads modules, runs each line of /steps (name, seconds, command), and says on
# the second serial port what came of it. Logs, and what tests leave in /out, go as an archive to the disk.
/bin/busybox --install -s /bin
# Its `ip` knows no namespaces; the real one is in /sbin.
rm -f /bin/ip /bin/tc
export PATH=/bin:/sbin HOME=/ LC_ALL=C
export SIP_FILTER_REQUIRE_KERNEL=1 SIP_FILTER_VERIFIER_DIR=/out
[ ! -e /renew ] || export SIP_FILTER_RENEW_BUDGET=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t bpf bpf /sys/fs/bpf
for module in /modules/*; do
    insmod "$module" || echo "cannot load $module"
done
ip link set lo up

report() {
    read -r up rest </proc/uptime
    echo "$* $up" >/dev/ttyS1
}

report booted
while read -r name seconds command; do
    report begin "$name"
    # The words of the command are its arguments.
    (cd /tmp && exec timeout -k 5 "$seconds" /programs/$command) </dev/null >"/out/$name.log" 2>&1
    code=$?
    [ "$code" = 0 ] || tail -n 50 "/out/$name.log"
    report end "$name" "$code"
done </steps

dmesg >/out/dmesg.log
tar -C /out -cf /dev/vda .
sync
echo "done" >/dev/ttyS1
poweroff -f
