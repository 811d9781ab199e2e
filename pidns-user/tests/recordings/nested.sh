#!/bin/bash
# Runs the scenario of nested.ndjson, as root and with pidns-trace in the PATH: nested.sh FILE. The recorder sees the
# whole machine. FILE gets only the lines about the scenario's namespaces and processes, whose numbers are printed.
set -u
file=$1
all=$(mktemp)
trap 'rm -f "$all"' EXIT

# `read` fails here, because the file ends without a newline.
first_child() { read -r child _ <"/proc/$1/task/$1/children"; [ -n "$child" ] && echo "$child"; }
number() { readlink "/proc/$1/ns/pid" | tr -dc 0-9; }
pause() { sleep 0.3; }

# Only a file holds this namespace, which is older than the recording.
unshare --pid --fork sleep 1000 & unshare=$!
pause
init=$(first_child $unshare)
held=$(number "$init")
tail -f /dev/null 8<"/proc/$init/ns/pid" & holder=$!
pause
kill -KILL "$init"
wait $unshare

# The recorder sees "example" as the name of its host.
unshare --uts sh -c "hostname example; exec pidns-trace record --force '$all' -q" & recorder=$!
until [ -s "$all" ]; do pause; done
pause

# Two nested namespaces. PID 1 is a shell. It has a nested namespace, and a child that does not reap its own child.
unshare --pid --fork sh -c 'unshare --pid --fork sleep 1000 & sh -c "true & exec sleep 2000" & wait' & outer=$!
pause
pause
init=$(first_child $outer)
ns=$(number "$init")
for child in $(cat "/proc/$init/task/$init/children"); do
    if inner=$(first_child "$child") && [ "$(number "$inner")" != "$ns" ]; then nested=$inner; fi
done
nested_ns=$(number "$nested")

# A process joins.
nsenter --target "$init" --pid sleep 500 & joiner=$!
pause
# A process opens the inner namespace.
tail -f /dev/null 8<"/proc/$nested/ns/pid" & reader=$!
pause
# PID 1 has no handler for this signal.
bash -c "kill -TERM $init; exit 0" & ignored=$!
wait $ignored
pause
# The second child is refused, because the first one was PID 1 and has ended.
unshare --pid sh -c '/bin/true; /bin/true; exit 0' & refused=$!
wait $refused
pause
# PID 1 is killed, and all members die with it.
bash -c "kill -KILL $init; exit 0" & killer=$!
wait $killer
wait $outer $joiner
pause

kill -TERM $recorder
wait $recorder
kill $holder $reader

refused_ns=$(grep '"event":"fork.failed"' "$all" | grep -o '"inum":[0-9]*' | head -1 | tr -dc 0-9)
namespaces="$held|$ns|$nested_ns|$refused_ns"
processes="$holder|$outer|$joiner|$reader|$ignored|$refused|$killer"
grep -E "\"event\":\"(stream\.|snapshot\.namespace)|\"(inum|ns)\":($namespaces)[,}]|\"pid\":($processes)[,}]" "$all" |
    # A gap in the sequence numbers would count as damage.
    awk '{ sub(/"seq":[0-9]+/, "\"seq\":" NR); print }' >"$file"
echo "namespaces $namespaces"
echo "processes $processes"
