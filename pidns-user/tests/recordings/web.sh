#!/bin/bash
# Runs the scenario of web.ndjson, as root and with pidns-trace, podman and busybox in the PATH: web.sh FILE.
#
# PID 1 of the container `web` is a server that neither reaps orphans nor handles SIGTERM. Three of its workers end
# and stay zombies. Podman's SIGTERM has no effect, and a cleanup script kills the server and with it two workers.
# Meanwhile a program forks twice into a namespace whose PID 1 has ended, and only a file holds an older namespace.
#
# The recorder sees the whole machine. FILE gets only the lines about the scenario's namespaces and processes.
set -u
file=$1
work=$(mktemp -d)
all=$work/all.ndjson
podman() { command podman --runtime runc --cgroup-manager cgroupfs "$@"; }
recorder= holder=
cleanup() {
    kill $recorder $holder
    podman rm --force --time 0 web
    podman rmi --force localhost/shop:1.4
    rm -rf "$work"
} >/dev/null 2>&1
trap cleanup EXIT

# `read` fails here, because the file ends without a newline.
first_child() { read -r child _ <"/proc/$1/task/$1/children"; [ -n "$child" ] && echo "$child"; }
number() { readlink "/proc/$1/ns/pid" | tr -dc 0-9; }
pause() { sleep 0.3; }
# Makes a program with this name from a script. The kernel takes the process's name from the file.
program() { cat >"$work/$1"; chmod 755 "$work/$1"; }

mkdir -p "$work/rootfs/bin"
cp "$(command -v busybox)" "$work/rootfs/bin/busybox"
for name in sh sleep true mkfifo; do ln -s busybox "$work/rootfs/bin/$name"; done
cat >"$work/rootfs/bin/server" <<'SERVER'
#!/bin/sh
mkfifo /requests
# Workers whose parent ends at once, so that PID 1 adopts them. It waits for none.
for seconds in 2 2 2 1000 1000; do (worker $seconds &); done
read -r _ <>/requests
SERVER
printf '#!/bin/sh\nread -r -t $1 _ <>/requests\n' >"$work/rootfs/bin/worker"
chmod 755 "$work/rootfs/bin/server" "$work/rootfs/bin/worker"
tar -C "$work/rootfs" -c . | podman import -q - localhost/shop:1.4 >/dev/null

program exporter <<'EXPORTER'
#!/bin/bash
exec 8<"/proc/$1/ns/pid"
read -r <>"$0.fifo"
EXPORTER
program cleanup.sh <<'CLEANUP'
#!/bin/bash
kill -KILL "$1"
CLEANUP
program deploy <<'DEPLOY'
#!/bin/sh
/bin/true; /bin/true; exit 0
DEPLOY

# Only a file holds this namespace, which is older than the recording.
unshare --pid --fork sleep 1000 & unshare=$!
pause
init=$(first_child $unshare)
held=$(number "$init")
mkfifo "$work/exporter.fifo"
"$work/exporter" "$init" & holder=$!
pause
kill -KILL "$init"
wait $unshare 2>/dev/null

# The recorder sees "example" as the name of its host.
unshare --uts sh -c "hostname example; exec pidns-trace record --force '$all' -q" & recorder=$!
until [ -s "$all" ]; do pause; done
pause

podman run --detach --name web --network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 localhost/shop:1.4 /bin/server >/dev/null
init=$(podman inspect --format '{{.State.Pid}}' web)
[ "$init" -gt 1 ] || exit 1
ns=$(number "$init")
# The first three workers end, and stay zombies until that is a finding.
sleep 4
podman exec web true
pause
podman kill --signal TERM web >/dev/null
pause
unshare --pid "$work/deploy" & refused=$!
wait $refused
sleep 2
"$work/cleanup.sh" "$init" & killer=$!
wait $killer
sleep 1.5

kill -TERM $recorder
wait $recorder
kill $holder


# Other programs create namespaces meanwhile, and the kernel reuses an inode number at once. For each number, keep
# only the lines from the start of our namespace to the start of the next one.
# Replace the cgroup of this script, which is of no interest.
own=$(cut -d: -f3- /proc/self/cgroup | sort -u | grep -v '^/$' | head -n 1)
awk -v held="$held" -v own="${own:-/}" -v init="$init" -v refused="$refused" -v processes="$holder $refused $killer" '
    function field(name,    at) {
        return match($0, "\"" name "\":[0-9]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : ""
    }
    BEGIN { split(processes, list, " "); for (i in list) mine[list[i]] = 1 }
    # The first pass over the file finds the namespaces of the scenario.
    FNR == NR {
        if (/"event":"namespace.init"/ && match($0, "\"process\":\\{\"pid\":" init ",")) ids[field("kernel_id")] = 1
        if (/"event":"namespace.create"/ && match($0, "\"creator\":\\{\"pid\":" refused ",")) ids[field("kernel_id")] = 1
        if (/"event":"snapshot.namespace"/ && field("inum") == held) ids[field("kernel_id")] = 1
        # The ends of outside processes whose children start there are part of the scenario.
        if (/"event":"namespace.(create|join)"/) entering[field("kernel_id")] = entering[field("kernel_id")] " " field("pid")
        next
    }
    FNR == 1 {
        for (id in ids) { split(entering[id], list, " "); for (i in list) mine[list[i]] = 1 }
    }
    /"ns":\{"inum"/ && field("kernel_id") != "" { ours[field("inum")] = (field("kernel_id") in ids) }
    {
        kept = /"event":"stream\./ || /"event":"snapshot.namespace".*"inum":4026531836,/
        number = match($0, /"ns":\{"inum":[0-9]+/) ? substr($0, RSTART + 13, RLENGTH - 13) : ""
        if (number != "") kept = kept || ours[number]
        else {
            line = $0
            while (match(line, /"ns":[0-9]+/)) {
                if (ours[substr(line, RSTART + 5, RLENGTH - 5)]) kept = 1
                line = substr(line, RSTART + RLENGTH)
            }
            line = $0
            while (match(line, /"pid":[0-9]+/)) {
                if (substr(line, RSTART + 6, RLENGTH - 6) in mine) kept = 1
                line = substr(line, RSTART + RLENGTH)
            }
        }
    }
    # A gap in the sequence numbers would count as damage.
    kept {
        sub(/"seq":[0-9]+/, "\"seq\":" ++lines)
        at = index($0, "\"cgroup\":\"" own "\"")
        if (at) $0 = substr($0, 1, at + 9) "/" substr($0, at + 10 + length(own))
        print
    }
' "$all" "$all" >"$file"
