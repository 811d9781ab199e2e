//! Tests the command line: refused arguments, exit codes, and the effect of filters.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::actor_handle::{Actor, patience, run, wait_in_time};
use crate::facts::Who;
use crate::seen::{Seen, expect, expect_absent, expect_code, get};
use crate::tracer::{FileTracer, Tracer, command, first_line_only, program, world_readable_copy};
use crate::{Test, sys, test};

pub(crate) const TESTS: &[Test] = &[
    test!(without_privilege_the_missing_capability_is_named),
    test!(capabilities_of_another_user_namespace_do_not_count, needs crate::probes::user_namespaces),
    test!(an_unknown_event_is_refused_with_a_list_of_the_known_ones),
    test!(a_filter_that_can_never_match_is_refused),
    test!(a_filter_that_matches_nothing_yet_gives_a_warning),
    test!(an_unreadable_namespace_names_the_missing_capability),
    test!(options_out_of_range_are_refused_with_the_allowed_values),
    test!(the_start_of_the_stream_names_the_kernel_and_the_hooks),
    test!(a_closed_pipe_exits_with_0),
    test!(a_full_disk_is_an_error_that_counts_what_is_missing),
    test!(a_closed_standard_output_is_an_error),
    test!(a_missing_proc_is_an_error_and_not_an_empty_tree),
    test!(a_count_ends_the_stream),
    test!(a_duration_ends_the_stream),
    test!(by_default_the_host_namespaces_processes_and_reaps_are_hidden),
    test!(a_namespace_filter_shows_it_and_its_descendants),
    test!(a_namespace_filter_ends_with_its_namespace),
    test!(a_pid_filter_shows_only_that_process),
    test!(a_comm_filter_is_a_glob),
    test!(a_level_filter_accepts_a_level_a_range_or_all_deeper_levels),
    test!(event_filters_are_globs_and_combine),
    test!(check_lists_the_features_of_this_kernel),
];

fn without_privilege_the_missing_capability_is_named() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let copy = world_readable_copy(directory.path());
    let mut unprivileged = Command::new(copy);
    unprivileged.args(["-o", "json"]).uid(65534).gid(65534);
    let (status, _, stderr) = run(&mut unprivileged);
    expect_code(status, 3, &stderr);
    assert!(stderr.to_ascii_lowercase().contains("cap_bpf"), "stderr must name the capability: {stderr}");
    assert!(!stderr.contains("panicked"), "expected a message and not a panic: {stderr}");
}

/// Root of another user namespace has every capability there, but bpf(2) checks the initial user namespace.
fn capabilities_of_another_user_namespace_do_not_count() {
    let as_root_of_its_own =
        |args: &[&str]| run(Command::new("unshare").arg("-Ur").arg(program()).args(args));
    let (status, stdout, stderr) = as_root_of_its_own(&["-o", "json"]);
    expect_code(status, 3, &stderr);
    assert_eq!(stdout, "", "expected no stream");
    for part in ["CAP_BPF", "CAP_PERFMON", "initial user namespace", "on the host"] {
        assert!(stderr.contains(part), "stderr must contain {part:?}: {stderr}");
    }
    let (status, table, stderr) = as_root_of_its_own(&["check"]);
    expect_code(status, 3, &stderr);
    for (what, part) in [("user namespace", "MISSING"), ("CAP_BPF", "MISSING"), ("CAP_PERFMON", "MISSING")] {
        let line = table.lines().find(|line| line.starts_with(what));
        assert!(line.is_some_and(|line| line.contains(part)), "{what}: {table}");
    }
    assert!(table.contains("-> run it as root on the host"), "the table must say what to do: {table}");
}

/// Runs the program with wrong arguments. It must exit with 2, print nothing on stdout, and mention all `parts` on
/// stderr.
fn refuses(args: &[&str], parts: &[&str]) {
    let (status, stdout, stderr) = run(Command::new(program()).args(args));
    expect_code(status, 2, &stderr);
    assert_eq!(stdout, "", "{args:?}: data goes to stdout, messages to stderr");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: stderr must contain {part:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{args:?}: expected a message and not a panic: {stderr}");
}

fn an_unknown_event_is_refused_with_a_list_of_the_known_ones() {
    refuses(
        &["-e", "nonsense"],
        &["nonsense", "namespace.create", "init.signal", "process.exit", "fork.failed"],
    );
}

fn a_filter_that_can_never_match_is_refused() {
    refuses(&["-p", "0"], &["--pid", "from 1"]);
    refuses(&["-p", "abc"], &["abc", "a number from 1"]);
    refuses(&["--comm", "a-name-of-16-byt"], &["15 bytes", "'a-name-of-16-by*'"]);
    refuses(&["-e", "fork.failed", "--no-syscall-hooks"], &["fork.failed", "--no-syscall-hooks"]);
    refuses(&["-e", "stream.*"], &["always there", "process.exit"]);
    refuses(&["-n", "/proc/self/ns/net"], &["another type"]);
}

fn a_filter_that_matches_nothing_yet_gives_a_warning() {
    let warned = |option: &str, value: &str| {
        let (seen, status) = Tracer::start(&["--duration", "100ms", option, value]).ended();
        expect_code(status, 0, &seen.stderr);
        seen.stderr.clone()
    };
    let stderr = warned("-p", "4194303");
    assert!(stderr.contains("--pid 4194303: there is no such process"), "{stderr}");
    let stderr = warned("-n", "4294967295");
    assert!(stderr.contains("--ns 4294967295: no process"), "{stderr}");
    let stderr = warned("-c", "no-such-container");
    assert!(stderr.contains("--container no-such-container: no container has this name now"), "{stderr}");
    let stderr = warned("-p", "1");
    assert!(!stderr.contains("--pid"), "an existing process needs no message: {stderr}");
}

fn an_unreadable_namespace_names_the_missing_capability() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let copy = world_readable_copy(directory.path());
    let (status, _, stderr) = run(Command::new(copy).args(["-n", "1"]).uid(65534).gid(65534));
    expect_code(status, 2, &stderr);
    assert!(stderr.contains("CAP_SYS_PTRACE"), "stderr must name the capability: {stderr}");
}

fn options_out_of_range_are_refused_with_the_allowed_values() {
    refuses(&["--level", "99"], &["99", "32"]);
    refuses(&["-n", "notanumber"], &["notanumber"]);
    refuses(&["--duration", "abc"], &["abc", "30s"]);
    refuses(&["--ring-size", "12345"], &["12345", "power of two"]);
    refuses(&["--no-such-option"], &["--no-such-option"]);
}

fn the_start_of_the_stream_names_the_kernel_and_the_hooks() {
    let seen = Tracer::start(&[]).stop();
    let start = seen.start();
    let read = |path: &str| std::fs::read_to_string(path).expect("read the sysctl").trim().to_owned();
    expect(start, "/kernel", read("/proc/sys/kernel/osrelease"));
    expect(start, "/host", read("/proc/sys/kernel/hostname"));
    assert!(get::<String>(start, "/version").contains('.'), "expected a version: {start}");
    assert!(get::<String>(start, "/boot_time").ends_with('Z'), "the time must be UTC: {start}");
    let hooks: std::collections::BTreeMap<String, String> = get(start, "/hooks");
    assert!(!hooks.is_empty(), "expected hooks: {start}");
    for (name, form) in hooks {
        let forms = ["tp_btf", "fentry", "fexit", "fentry+fexit"];
        let known = forms.contains(&form.as_str()) || form.starts_with("off: ");
        assert!(known, "hook {name} has the form {form:?}");
    }
    assert!(!seen.stderr.is_empty(), "the summary must go to stderr");
}

fn a_closed_pipe_exits_with_0() {
    let mut process =
        command(&["-o", "json", "-e", "all"]).stdout(Stdio::piped()).spawn().expect("start the program");
    let line = first_line_only(process.stdout.take().expect("stdout is a pipe"));
    assert!(line.contains("stream.start"), "the first line: {line}");
    // Nothing reads the pipe any more. The actor gives the program something to write.
    Actor::start("clone", &[]).finish();
    let status = wait_in_time(&mut process, "pidns-trace with a closed stdout");
    let stderr = std::io::read_to_string(process.stderr.take().expect("stderr is a pipe")).expect("UTF-8");
    expect_code(status, 0, &stderr);
    assert!(!stderr.contains("panicked"), "expected a message and not a panic: {stderr}");
}

fn a_full_disk_is_an_error_that_counts_what_is_missing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let mut process = command(&["-o", "json", "-e", "all"]).stdout(full).spawn().expect("start the program");
    Actor::start("exit-with-members", &["10", "0"]).finish();
    let status = wait_in_time(&mut process, "pidns-trace with a full disk");
    let stderr = std::io::read_to_string(process.stderr.take().expect("stderr is a pipe")).expect("UTF-8");
    expect_code(status, 2, &stderr);
    assert!(stderr.contains("No space left on device"), "stderr must contain the error: {stderr}");
    assert!(stderr.contains("not written"), "stderr must say how much is missing: {stderr}");
    assert!(
        stderr.chars().any(|character| character.is_ascii_digit()),
        "stderr must contain the number of events: {stderr}"
    );
}

fn a_closed_standard_output_is_an_error() {
    for args in
        [&["tree"][..], &["ps"], &["pid", "1"], &["explain", "1"], &["check"], &["--duration", "10ms"]]
    {
        let (status, _, stderr) =
            run(Command::new("sh").args(["-c", r#"exec "$0" "$@" >&-"#]).arg(program()).args(args));
        expect_code(status, 2, &stderr);
        assert!(stderr.contains("standard output, which is closed"), "{args:?}: {stderr}");
    }
}

fn a_missing_proc_is_an_error_and_not_an_empty_tree() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let empty = directory.path().to_str().expect("UTF-8").to_owned();
    for args in [&["tree"][..], &["ps"], &["explain", "1"], &["--snapshot", "--duration", "10ms"]] {
        let mut command = Command::new(program());
        let empty = empty.clone();
        let prepare = move || {
            sys::unshare(libc::CLONE_NEWNS)?;
            sys::mount_privately()?;
            sys::bind_mount(&empty, std::path::Path::new("/proc"))
        };
        // SAFETY: between fork and exec the closure makes system calls and allocates a few bytes. The C library
        // allows a child to allocate, because fork leaves its allocator consistent.
        unsafe { command.args(args).pre_exec(prepare) };
        let (status, stdout, stderr) = run(&mut command);
        assert_eq!(stdout, "", "{args:?}");
        expect_code(status, 2, &stderr);
        assert!(stderr.contains("/proc"), "{args:?}: {stderr}");
    }
}

fn a_count_ends_the_stream() {
    let tracer = Tracer::start(&["-e", "all", "--count", "3"]);
    Actor::start("exit-with-members", &["10", "0"]).finish();
    let (seen, status) = tracer.ended();
    expect_code(status, 0, &seen.stderr);
    let counted = seen.events.iter().filter(|event| !get::<String>(event, "/event").starts_with("stream."));
    assert_eq!(counted.count(), 3, "expected three events between start and end: {:#?}", seen.events);
}

fn a_duration_ends_the_stream() {
    let begin = Instant::now();
    let (seen, status) = Tracer::start(&["--duration", "1s"]).ended();
    let took = begin.elapsed();
    expect_code(status, 0, &seen.stderr);
    assert!(took >= Duration::from_secs(1) && took < patience(5), "the program ran for {took:?}");
    let duration: u64 = get(seen.end(), "/duration_ns");
    // The stream starts shortly after the duration does, and ends when the hooks are detached.
    let most = 1_000_000_000 + patience(1).as_nanos() as u64;
    assert!((950_000_000..most).contains(&duration), "expected about a second: {}", seen.end());
}

fn by_default_the_host_namespaces_processes_and_reaps_are_hidden() {
    let tracer = Tracer::start(&[]);
    let report = Actor::start("exec-and-exit", &["0"]).finish();
    let (init, child): (Who, Who) = (report.who("init"), report.who("child"));
    tracer.wait_for("the teardown", |event| {
        event["event"] == "namespace.teardown" && event["ns"]["inum"] == init.ns
    });
    let seen = tracer.stop();
    for name in ["process.fork", "process.exec", "process.exit"] {
        seen.of(name, &child);
    }
    for name in ["namespace.create", "namespace.init", "namespace.init_exit", "namespace.teardown"] {
        seen.one(name, |event| event["ns"]["inum"] == init.ns);
    }
    seen.none("process.reap", |_| true);
    for event in seen.events.iter().filter(|event| get::<String>(event, "/event").starts_with("process.")) {
        let levels = event["process"]["pids"].as_array().map_or(0, Vec::len);
        assert!(levels > 1, "shown although in the initial namespace: {event}");
    }
}

/// Two families wait, then the filter starts. Then each family forks a child and ends.
fn watch_families(args: impl Fn(&Families) -> Vec<String>) -> (Families, Seen) {
    let mut actor = Actor::start("two-families", &[]);
    let mut families = Families {
        first: actor.hear("first"),
        nested: actor.hear("nested"),
        second: actor.hear("second"),
        children: Vec::new(),
    };
    let args = args(&families);
    let tracer = FileTracer::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    actor.go();
    let report = actor.finish();
    families.children =
        ["first-child", "nested-child", "second-child"].map(|child| report.who(child)).to_vec();
    // Nothing in a filtered stream marks the end. All events are in the ring by now, and Ctrl-C drains it.
    let mut lines = Vec::new();
    let (stderr, status) = tracer.interrupt(|line| lines.push(line.to_owned()));
    expect_code(status, 0, &stderr);
    (families, Seen::check(lines, stderr))
}

struct Families {
    first: Who,
    nested: Who,
    second: Who,
    children: Vec<Who>,
}

impl Families {
    /// Checks that the stream has the exits of exactly these processes.
    fn expect_exits(&self, seen: &Seen, wanted: &[&Who]) {
        let of = |who: &&Who| who.pid;
        let mut wanted: Vec<i32> = wanted.iter().map(of).collect();
        let all = self.children.iter().chain([&self.first, &self.nested, &self.second]).map(|who| who.pid);
        let exits = seen.named("process.exit").map(|exit| get::<i32>(exit, "/process/pid"));
        let all: Vec<i32> = all.collect();
        let mut found: Vec<i32> = exits.filter(|pid| all.contains(pid)).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, wanted, "exits in the stream");
    }
}

/// Checks that every event is in one of these namespaces. A finding names its subject in other fields, so it is not
/// checked.
fn expect_only_in(seen: &Seen, namespaces: &[u64]) {
    let is_fact = |name: &str| !name.starts_with("stream.") && name != "finding";
    for event in seen.events.iter().filter(|event| is_fact(&get::<String>(event, "/event"))) {
        let of_ns =
            event.pointer("/ns/inum").or_else(|| event.pointer("/process/ns")).and_then(Value::as_u64);
        assert!(of_ns.is_some_and(|ns| namespaces.contains(&ns)), "the filter must hide this event: {event}");
    }
}

fn a_namespace_filter_shows_it_and_its_descendants() {
    let (families, seen) = watch_families(|families| {
        ["-e", "all", "-n", &families.first.ns.to_string()].map(String::from).to_vec()
    });
    let [first_child, nested_child, _] = &families.children[..] else { panic!("three children") };
    families.expect_exits(&seen, &[&families.first, &families.nested, first_child, nested_child]);
    expect_only_in(&seen, &[families.first.ns, families.nested.ns]);
    for inum in [families.first.ns, families.nested.ns] {
        seen.one("namespace.init_exit", |event| event["ns"]["inum"] == inum);
        seen.one("namespace.teardown", |event| event["ns"]["inum"] == inum);
    }
}

fn a_level_filter_accepts_a_level_a_range_or_all_deeper_levels() {
    for (level, first, nested) in
        [("1", true, false), ("2", false, true), ("1-2", true, true), ("2+", false, true)]
    {
        let (families, seen) = watch_families(|_| ["-e", "all", "--level", level].map(String::from).to_vec());
        let [first_child, nested_child, second_child] = &families.children[..] else {
            panic!("three children")
        };
        let at_one = [&families.first, first_child, &families.second, second_child];
        let at_two = [&families.nested, nested_child];
        let wanted: Vec<&Who> =
            at_one.into_iter().filter(|_| first).chain(at_two.into_iter().filter(|_| nested)).collect();
        families.expect_exits(&seen, &wanted);
        for event in seen.named("process.exit") {
            let depth = event["process"]["pids"].as_array().map_or(0, |pids| pids.len() - 1);
            assert!((depth == 1 && first) || (depth >= 2 && nested), "--level {level} shows {event}");
        }
    }
}

fn event_filters_are_globs_and_combine() {
    let (families, seen) =
        watch_families(|_| ["-e", "namespace.init_*", "-e", "process.reap"].map(String::from).to_vec());
    seen.one("namespace.init_exit", |event| event["ns"]["inum"] == families.first.ns);
    for event in &seen.events {
        let name: String = get(event, "/event");
        let chosen =
            ["namespace.init_exit", "process.reap"].contains(&name.as_str()) || name.starts_with("stream.");
        assert!(chosen, "this event was not selected: {event}");
    }
}

/// A namespace with a sleeping init.
struct Sleeping {
    unshare: Child,
    init: sys::Pid,
    /// The form `pid:[4026532847]`.
    name: String,
}

impl Sleeping {
    /// Kills the init and waits for its parent, which reaps the init. Nothing of the namespace is left.
    fn end(mut self) {
        sys::kill(self.init, libc::SIGKILL).expect("kill the init");
        self.unshare.wait().expect("wait for unshare");
    }
}

fn sleeping_namespace() -> Sleeping {
    let unshare = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "sleep", "1000"])
        .stderr(Stdio::null())
        .spawn()
        .expect("start unshare");
    let children = format!("/proc/{0}/task/{0}/children", unshare.id());
    let started = Instant::now();
    let init: sys::Pid = loop {
        let text = std::fs::read_to_string(&children).expect("read the children");
        if let Some(pid) = text.split_whitespace().next() {
            break pid.parse().expect("a PID");
        }
        assert!(started.elapsed() < patience(5), "unshare --fork did not fork");
        std::thread::sleep(Duration::from_millis(5));
    };
    let link = std::fs::read_link(format!("/proc/{init}/ns/pid")).expect("read the child's namespace");
    Sleeping { unshare, init, name: link.to_str().expect("pid:[N]").to_owned() }
}

/// The kernel gives the lowest free inode number to a new namespace, so a later one gets the number of a dead one.
fn a_namespace_filter_ends_with_its_namespace() {
    let first = sleeping_namespace();
    let name = first.name.clone();
    let tracer = Tracer::start(&["-n", &name, "-e", "namespace.*", "-e", "process.*"]);
    first.end();
    let ended = sys::boot_ns();
    tracer.wait_for("the end of the namespace", |event| event["event"] == "namespace.teardown");
    let mut later = Vec::new();
    while later.len() < 100 && later.last().is_none_or(|other: &Sleeping| other.name != name) {
        later.push(sleeping_namespace());
    }
    let again = later.last().is_some_and(|other| other.name == name);
    later.into_iter().for_each(Sleeping::end);
    let seen = tracer.stop();
    assert!(again, "the kernel must give {name} to a later namespace");
    assert_eq!(seen.named("namespace.teardown").count(), 1, "only the selected namespace may be shown");
    for event in ["namespace.create", "namespace.init", "process.exec"] {
        seen.none(event, |_| true);
    }
    for event in ["process.exit", "process.reap"] {
        seen.none(event, |event| event["process"]["start_boot_ns"].as_u64() >= Some(ended));
    }
}

fn a_pid_filter_shows_only_that_process() {
    let mut actor = Actor::start("two-siblings", &[]);
    let (first, second): (Who, Who) = (actor.hear("first"), actor.hear("second"));
    let tracer = Tracer::start(&["-e", "all", "-p", &first.pid.to_string()]);
    actor.go();
    actor.finish();
    tracer.wait_for_process("process.exit", first.pid);
    let seen = tracer.stop();
    expect(seen.of("process.exit", &first), "/exit/code", 11);
    seen.of("process.exec", &first);
    for name in ["process.fork", "process.exec", "process.exit", "process.reap"] {
        seen.none(name, |event| event["process"]["pid"] == second.pid);
        seen.none(name, |event| event["process"]["pid"] != first.pid);
    }
}

fn a_comm_filter_is_a_glob() {
    let mut actor = Actor::start("two-names", &[]);
    let _: Who = actor.hear("init");
    let tracer = Tracer::start(&["-e", "all", "--comm", "alph?-*"]);
    actor.go();
    let report = actor.finish();
    let alpha = report.who("alpha-1");
    tracer.wait_for_process("process.exit", alpha.pid);
    let seen = tracer.stop();
    expect(seen.of("process.exit", &alpha), "/process/comm", "alpha-1");
    seen.none("process.exit", |event| event["process"]["comm"] != "alpha-1");
}

fn check_lists_the_features_of_this_kernel() {
    let (status, table, stderr) = run(Command::new(program()).arg("check"));
    expect_code(status, 0, &stderr);
    assert!(table.contains("sched_process_fork"), "expected a line for each hook: {table}");
    let (status, json, stderr) = run(Command::new(program()).args(["check", "-o", "json"]));
    expect_code(status, 0, &stderr);
    let document: Value =
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("one document: {error}: {json}"));
    // The fields that docs/check.md describes.
    expect(&document, "/runs", true);
    assert!(get::<String>(&document, "/version").contains('.'), "expected a version: {document}");
    let lines: Vec<Value> = get(&document, "/lines");
    let page = include_str!("../../../docs/kernels.md");
    let shown = page.split_once("$ sudo pidns-trace check\n").expect("docs/kernels.md shows the command").1;
    let shown: Vec<&str> =
        shown.lines().take_while(|line| *line != "```").map(|line| line[..20].trim()).collect();
    let mut names: Vec<&str> = lines.iter().filter_map(|line| line["what"].as_str()).collect();
    // Only if the kernel accepts none of them.
    names.retain(|name| *name != "function hooks");
    assert_eq!(names, shown, "docs/kernels.md shows other lines");
    for what in ["CONFIG_PID_NS", "user namespace", "CAP_BPF", "sched_process_fork", "ring buffer"] {
        let line = lines.iter().find(|line| line["what"] == what);
        let line = line.unwrap_or_else(|| panic!("no line about {what}: {document}"));
        expect(line, "/verdict", "ok");
        assert!(!get::<String>(line, "/detail").is_empty(), "expected a detail: {line}");
        expect_absent(line, "/remedy");
    }
}
