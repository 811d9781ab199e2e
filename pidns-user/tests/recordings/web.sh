#!/bin/bash
# Plays the story that web.ndjson records, as root and with pidns-trace, podman and busybox in the PATH: web.sh FILE.
#
# A container `web` runs a server that is PID 1 and neither reaps orphans nor handles SIGTERM. Three of its workers end and
# stay zombies. Podman asks it to end, in vain; a cleanup script kills it, and two workers with it. Beside it a program
# forks twice into a namespace whose PID 1 has ended, and a file alone holds a namespace from before.
#
# The recorder sees the whole machine. FILE gets what is about the namespaces and processes of the story.
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

# The file ends without a newline, at which read fails.
first_child() { read -r child _ <"/proc/$1/task/$1/children"; [ -n "$child" ] && echo "$child"; }
number() { readlink "/proc/$1/ns/pid" | tr -dc 0-9; }
pause() { sleep 0.3; }
# A program of this name, from a script: the kernel takes the name of the file.
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

# A namespace that a file alone holds, from before the recording.
unshare --pid --fork sleep 1000 & unshare=$!
pause
init=$(first_child $unshare)
held=$(number "$init")
mkfifo "$work/exporter.fifo"
"$work/exporter" "$init" & holder=$!
pause
kill -KILL "$init"
wait $unshare 2>/dev/null

# The recorder calls its host "example".
unshare --uts sh -c "hostname example; exec pidns-trace record --force '$all' -q" & recorder=$!
until [ -s "$all" ]; do pause; done
pause

podman run --detach --name web --network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 localhost/shop:1.4 /bin/server >/dev/null
init=$(podman inspect --format '{{.State.Pid}}' web)
[ "$init" -gt 1 ] || exit 1
ns=$(number "$init")
# The first three workers end, and stay zombies until it is a finding.
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


# Other programs make namespaces meanwhile, and the kernel gives an inode number to the next one at once: of each number the
# lines count that stand between the start of our namespace and that of the next one.
# The cgroup of this script is of no interest.
own=$(cut -d: -f3- /proc/self/cgroup | sort -u | grep -v '^/$' | head -n 1)
awk -v held="$held" -v own="${own:-/}" -v init="$init" -v refused="$refused" -v processes="$holder $refused $killer" '
    function field(name,    at) {
        return match($0, "\"" name "\":[0-9]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : ""
    }
    BEGIN { split(processes, list, " "); for (i in list) mine[list[i]] = 1 }
    # Which namespaces are those of the story: the first reading of the file finds them.
    FNR == NR {
        if (/"event":"namespace.init"/ && match($0, "\"process\":\\{\"pid\":" init ",")) ids[field("kernel_id")] = 1
        if (/"event":"namespace.create"/ && match($0, "\"creator\":\\{\"pid\":" refused ",")) ids[field("kernel_id")] = 1
        if (/"event":"snapshot.namespace"/ && field("inum") == held) ids[field("kernel_id")] = 1
        # Processes outside whose children go there: their ends are part of the story.
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
    # A gap in the numbers would be damage.
    kept {
        sub(/"seq":[0-9]+/, "\"seq\":" ++lines)
        at = index($0, "\"cgroup\":\"" own "\"")
        if (at) $0 = substr($0, 1, at + 9) "/" substr($0, at + 10 + length(own))
        print
    }
' "$all" "$all" >"$file"
