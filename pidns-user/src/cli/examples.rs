//! Examples of each command, for its help and its man page.

/// A command line, and what it does.
pub(super) type Example = (&'static str, &'static str);

/// The examples of a command; of the program itself for any other name.
pub(super) fn of(command: &str) -> &'static [Example] {
    match command {
        "trace" => &[
            ("pidns-trace trace -c web", "what happens in the container web"),
            (
                "pidns-trace trace -e 'init.*' -e 'init exit' -e 'fork failed'",
                "signals to PID 1, its end, and forks that are refused",
            ),
            (
                "pidns-trace trace -e exec --args --duration 30s",
                "programs that are started, with their arguments",
            ),
            ("pidns-trace trace --findings", "and what goes wrong"),
        ],
        "record" => &[
            ("pidns-trace record night.ndjson.zst --duration 8h", "one night, compressed"),
            ("pidns-trace explain web --from night.ndjson.zst", "what became of the container web in it"),
        ],
        "replay" => &[
            ("pidns-trace replay night.ndjson.zst -c web", "what happened in the container web"),
            ("pidns-trace replay night.ndjson.zst -e all -o json", "everything, for programs"),
            ("pidns-trace replay night.ndjson.zst --speed 10", "ten times as fast as it happened"),
        ],
        "tree" => &[
            ("pidns-trace tree", "all namespaces of this machine"),
            ("pidns-trace tree web --watch 1s", "those of the container web, every second"),
            (
                "pidns-trace tree --from night.ndjson.zst --at +10m",
                "as it was ten minutes after the recording began",
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
            ("pidns-trace pid 48213 --to web", "what it is there"),
        ],
        "explain" => &[
            ("pidns-trace explain web", "all that is known of the container web"),
            ("pidns-trace explain web --from night.ndjson.zst", "with what happened to it"),
        ],
        "findings" => &[
            ("pidns-trace findings", "what is wrong now"),
            ("pidns-trace findings web --for 30s", "in the container web, after a longer watch"),
            (
                "pidns-trace findings --watch --fail-on critical",
                "go on; exit code 1 for what is critical alone",
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
            ("pidns-trace check --btf vmlinux-6.1.btf", "another kernel, by its types alone"),
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
            ("pidns-trace", "what happens, live"),
            (
                "pidns-trace -c web -e 'init.*' -e 'init exit'",
                "which process ended the container web, and how",
            ),
            ("pidns-trace tree", "what there is"),
            ("pidns-trace pid 7 --in web", "which process is 7 in the container web"),
            ("pidns-trace findings", "what is wrong"),
            ("pidns-trace -q -o json > events.ndjson", "for programs"),
        ],
    }
}

/// The exit codes of the program.
pub(super) const EXIT_CODES: [(&str, &str); 7] = [
    ("0", "done, also after Ctrl-C"),
    (
        "1",
        "there is no such process, namespace or container (tree, ps, pid, explain), or something is wrong (findings)",
    ),
    ("2", "usage or I/O error"),
    ("3", "a privilege is missing"),
    ("4", "this kernel lacks something"),
    ("5", "events were lost, and --strict was given"),
    ("130", "a second Ctrl-C or SIGTERM cut the end off, as the output was not read for a second"),
];

/// The examples as the end of a help.
pub(super) fn help(command: &str) -> String {
    let lines = of(command).iter().map(|(line, what)| format!("  {line}\n      {what}\n"));
    format!("Examples:\n{}", lines.collect::<String>()).trim_end().to_owned()
}
