# 0 means that the package is removed, and not replaced by another version.
if [ "$1" -eq 0 ] && [ -x /usr/bin/systemctl ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --no-reload disable --now pidns-trace-agent.service >/dev/null 2>&1 || :
    else
        systemctl --no-reload disable pidns-trace-agent.service >/dev/null 2>&1 || :
    fi
fi
