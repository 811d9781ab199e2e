#!/bin/busybox sh
# The guest's PID 1. Two serial ports lead out: the console, and /dev/ttyS1. xtask reads the latter: marks (lines that
# begin with @), and the output of tests and bench. PIDNS_VM_JOB names the job, if there is one. The kernel passes
# PIDNS_… from its command line as environment variables.
/bin/busybox --install -s /bin
# The real programs come before busybox's.
export PATH=/usr/bin:/bin HOME=/ TMPDIR=/tmp RUST_BACKTRACE=0

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
# The agent serves on the loopback interface.
ip link set lo up
# Mount both cgroup versions, because a test sets a limit of v1.
mount -t tmpfs cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/pids /sys/fs/cgroup/unified
mount -t cgroup -o pids pids /sys/fs/cgroup/pids
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
hostname guest

exec >/dev/ttyS1 2>&1 </dev/null
stty -F /dev/ttyS1 raw -echo
echo "@boot $(uname -r)"
case $PIDNS_VM_JOB in
tests)
    set -- --duration 1s -o json
    if [ "$PIDNS_TEST_HOOKS" != auto ]; then
        set -- --hooks "$PIDNS_TEST_HOOKS" "$@"
    fi
    # The first line of the stream names the hooks.
    pidns-trace "$@" >/tmp/stream
    echo "@start $(head -n 1 /tmp/stream)"
    # shellcheck disable=SC2086 # words of a command line
    kernel-tests --format json $PIDNS_VM_ARGS
    echo "@exit $?"
    ;;
bench)
    # Keep the report separate from the output during the run.
    # shellcheck disable=SC2086 # words of a command line
    bench --bench $PIDNS_VM_ARGS >/tmp/report
    code=$?
    echo @report
    cat /tmp/report
    echo "@exit $code"
    ;;
esac
sync
poweroff -f
