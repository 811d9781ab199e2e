//! Examples of each command, for the help and the man pages.

/// A command line and its purpose.
pub(super) type Example = (&'static str, &'static str);

/// The examples of a command; for any other name, those of the program.
pub(super) fn of(command: &str) -> &'static [Example] {
    match command {
        "trace" => &[
            ("pidns-trace trace -c web", "events of the container web"),
            (
                "pidns-trace trace -e 'init.*' -e 'init exit' -e 'fork failed'",
                "signals to PID 1, its end, and refused forks",
            ),
            ("pidns-trace trace -e exec --args --duration 30s", "started programs with their arguments"),
            ("pidns-trace trace --findings", "with findings"),
        ],
        "record" => &[
            ("pidns-trace record night.ndjson.zst --duration 8h", "one night, compressed"),
            ("pidns-trace explain web --from night.ndjson.zst", "the history of the container web in it"),
        ],
        "replay" => &[
            ("pidns-trace replay night.ndjson.zst -c web", "events of the container web"),
            ("pidns-trace replay night.ndjson.zst -e all -o json", "everything, for programs"),
            ("pidns-trace replay night.ndjson.zst --speed 10", "ten times as fast as it happened"),
        ],
        "tree" => &[
            ("pidns-trace tree", "all namespaces of this host"),
            ("pidns-trace tree web --watch 1s", "the namespaces of the container web, every second"),
            (
                "pidns-trace tree --from night.ndjson.zst --at +10m",
                "the state ten minutes after the start of the recording",
            ),
            ("pidns-trace tree -o dot | dot -Tsvg", "as a picture"),
        ],
        "ps" => &[
            ("pidns-trace ps web", "the processes of the container web"),
            ("pidns-trace ps --fields +uid,container", "with more columns"),
            ("pidns-trace ps -o json 4026532847", "of one namespace, for programs"),
        ],
        "pid" => &[
            ("pidns-trace pid 48213", "a PID of the host, at every level"),
            ("pidns-trace pid 7 --in web", "which process is 7 in the container web"),
            ("pidns-trace pid 48213 --to web", "the PID of 48213 in the container web"),
        ],
        "explain" => &[
            ("pidns-trace explain web", "everything that is known about the container web"),
            ("pidns-trace explain web --from night.ndjson.zst", "with its history"),
        ],
        "findings" => &[
            ("pidns-trace findings", "current problems"),
            ("pidns-trace findings web --for 30s", "in the container web, after a longer watch"),
            (
                "pidns-trace findings --watch --fail-on critical",
                "watch until Ctrl-C; exit code 1 only for critical findings",
            ),
        ],
        "agent" => &[
            ("pidns-trace agent", "metrics on http://127.0.0.1:10978/metrics"),
            (
                "pidns-trace agent --web.listen-address :10978 --web.config.file web.yml",
                "for the network, with TLS",
            ),
        ],
        "check" => &[
            ("pidns-trace check", "this kernel, and these privileges"),
            ("pidns-trace check --btf vmlinux-6.1.btf", "another kernel, by its BTF only"),
            ("pidns-trace check -o json", "for a report"),
        ],
        "completions" => &[
            (
                "pidns-trace completions bash > /usr/share/bash-completion/completions/pidns-trace",
                "for all users of bash",
            ),
            ("pidns-trace completions fish > ~/.config/fish/completions/pidns-trace.fish", "for fish"),
        ],
        "man" => &[
            ("pidns-trace man | man -l -", "read the page"),
            ("pidns-trace man /usr/local/share/man/man1", "install all pages"),
        ],
        _ => &[
            ("pidns-trace", "live events"),
            (
                "pidns-trace -c web -e 'init.*' -e 'init exit'",
                "which process ended the container web, and how",
            ),
            ("pidns-trace tree", "all namespaces"),
            ("pidns-trace pid 7 --in web", "which process is 7 in the container web"),
            ("pidns-trace findings", "problems"),
            ("pidns-trace -q -o json > events.ndjson", "for programs"),
        ],
    }
}

/// Exit codes of the program.
pub(super) const EXIT_CODES: [(&str, &str); 7] = [
    ("0", "done, also after Ctrl-C"),
    (
        "1",
        "there is no such process, namespace or container (tree, ps, pid, explain), or there is a finding (findings)",
    ),
    ("2", "usage or I/O error"),
    ("3", "a privilege is missing"),
    ("4", "this kernel lacks something"),
    ("5", "events were lost, and --strict was given"),
    ("130", "a second Ctrl-C or SIGTERM ended the program before all output was written"),
];

/// The examples as the last part of a help text.
pub(super) fn help(command: &str) -> String {
    let lines = of(command).iter().map(|(line, what)| format!("  {line}\n      {what}\n"));
    format!("Examples:\n{}", lines.collect::<String>()).trim_end().to_owned()
}
