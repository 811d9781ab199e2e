#!/bin/bash
# Plays the story that nested.ndjson records, as root and with pidns-trace in the PATH: nested.sh FILE. Of the whole machine
# that the recorder sees the file gets what is about the namespaces and processes of the story, whose numbers are printed.
set -u
file=$1
all=$(mktemp)
trap 'rm -f "$all"' EXIT

# The file ends without a newline, at which read fails.
first_child() { read -r child _ <"/proc/$1/task/$1/children"; [ -n "$child" ] && echo "$child"; }
number() { readlink "/proc/$1/ns/pid" | tr -dc 0-9; }
pause() { sleep 0.3; }

# A namespace that a file alone holds, from before the recording.
unshare --pid --fork sleep 1000 & unshare=$!
pause
init=$(first_child $unshare)
held=$(number "$init")
tail -f /dev/null 8<"/proc/$init/ns/pid" & holder=$!
pause
kill -KILL "$init"
wait $unshare

# The recorder calls its host "example".
unshare --uts sh -c "hostname example; exec pidns-trace record --force '$all' -q" & recorder=$!
until [ -s "$all" ]; do pause; done
pause

# Two deep: PID 1 is a shell, that has a namespace in its own, and a child that does not reap its own child.
unshare --pid --fork sh -c 'unshare --pid --fork sleep 1000 & sh -c "true & exec sleep 2000" & wait' & outer=$!
pause
pause
init=$(first_child $outer)
ns=$(number "$init")
for child in $(cat "/proc/$init/task/$init/children"); do
    if inner=$(first_child "$child") && [ "$(number "$inner")" != "$ns" ]; then nested=$inner; fi
done
nested_ns=$(number "$nested")

# Somebody joins.
nsenter --target "$init" --pid sleep 500 & joiner=$!
pause
# Somebody has the inner one open.
tail -f /dev/null 8<"/proc/$nested/ns/pid" & reader=$!
pause
# A signal that PID 1 has no handler for.
bash -c "kill -TERM $init; exit 0" & ignored=$!
wait $ignored
pause
# The second child is refused: the first was PID 1, and has ended.
unshare --pid sh -c '/bin/true; /bin/true; exit 0' & refused=$!
wait $refused
pause
# PID 1 is killed, and takes all with it.
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
    # A gap in the numbers would be damage.
    awk '{ sub(/"seq":[0-9]+/, "\"seq\":" NR); print }' >"$file"
echo "namespaces $namespaces"
echo "processes $processes"
