# Makes namespaces that live, die, leave zombies and leak, so that the dashboards have something to show. Run it as
# root with a number of seconds. After that time, or when its standard input ends, it ends itself and all its
# processes.
set -u
export seconds=$1
end=$(($(date +%s) + seconds))
goes_on() { [ "$(date +%s)" -lt "$end" ]; }

# Three namespaces that live until the end.
for _ in 1 2 3; do
    unshare --pid --fork --kill-child sh -c 'sleep "$seconds" & sleep "$seconds" & wait' &
done

# A nested namespace.
unshare --pid --fork --kill-child unshare --pid --fork --kill-child sleep "$seconds" &

# An init that does not reap: sleep inherits a shell's children, and does not know of them.
unshare --pid --fork --kill-child sh -c 'for i in $(seq 40); do sleep "$((i / 4)).$((i % 10))" & done; exec sleep "$seconds"' &

# Short-lived namespaces: some exit with 0, others exit with an error and kill their members.
while goes_on; do
    unshare --pid --fork sh -c 'sleep 0.2; exit 0'
    unshare --pid --fork sh -c 'sleep 30 & sleep 31 & sleep 0.3; exit 3'
    sleep 1
done &

# An init that ignores SIGTERM because it has no handler, and is then killed.
while goes_on; do
    unshare --pid --fork --kill-child sleep 60 &
    outer=$!
    sleep 0.5
    # The file has one PID and a space.
    inner=$(cat "/proc/$outer/task/$outer/children")
    kill -TERM "${inner% }"
    sleep 1
    kill -KILL "${inner% }"
    wait "$outer"
    sleep 3
done 2>/dev/null &

# A namespace that an open file keeps after its processes have ended, once a minute.
while goes_on; do
    unshare --pid --fork sleep 2 &
    outer=$!
    sleep 0.5
    inner=$(cat "/proc/$outer/task/$outer/children")
    (exec 9<"/proc/${inner% }/ns/pid"; exec sleep "$seconds") &
    wait "$outer"
    sleep 57
done &

# Forks into a namespace with a dead init: `true` is the init, and the second fork fails.
while goes_on; do
    unshare --pid sh -c '/bin/true; /bin/true' 2>/dev/null
    sleep 4
done &

# Joins, and refusals for lack of permission.
unshare --pid --fork --kill-child sleep "$seconds" &
joined=$!
sleep 0.5
while goes_on; do
    init=$(cat "/proc/$joined/task/$joined/children")
    nsenter --target "${init% }" --pid sleep 0.2
    setpriv --reuid 65534 --clear-groups unshare --pid true 2>/dev/null
    sleep 2
done &

# End everything when the time is up, or when the process that started this has ended.
(
    while goes_on; do sleep 1; done
    kill -KILL 0
) &
cat >/dev/null
kill -KILL 0
