//! Tests the events of processes in a namespace: fork, exec, exit, reap, and failed forks.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::actor::STRANGE_NAME;
use crate::actor_handle::{Actor, Report, patience};
use crate::facts::{Ended, Who, Window};
use crate::seen::{
    Seen, about, expect, expect_absent, expect_not, expect_order, expect_process, expect_process_renamed,
    get, made_by,
};
use crate::sys::Pid;
use crate::tracer::{Tracer, watch};
use crate::{Test, cgroups, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_life_is_fork_exec_exit_and_reap),
    test!(arguments_are_shown_as_they_were_given),
    test!(a_killed_process_shows_the_signal),
    test!(a_killed_process_names_its_killer),
    test!(a_process_that_faults_has_the_cause),
    test!(a_process_that_aborts_names_itself),
    test!(a_process_that_dies_with_its_parent_names_the_parent),
    test!(a_process_that_ends_by_itself_has_no_cause),
    test!(a_process_killed_by_oom_has_the_cause, needs probes::memory_cgroup),
    test!(a_zombie_is_counted_from_its_exit_to_its_reaping),
    test!(a_reap_without_other_events_has_the_age_of_the_zombie),
    test!(the_reap_of_a_leader_with_its_last_thread_is_reported),
    test!(a_process_that_outlives_its_parent_is_an_orphan),
    test!(a_fork_after_the_inits_death_fails_with_namespace_dead),
    test!(a_fork_into_a_joined_dead_namespace_fails_with_namespace_dead),
    test!(a_fork_above_the_process_limit_names_the_limit),
    test!(a_fork_in_a_full_namespace_has_the_reason, needs probes::own_pid_max),
    test!(a_fork_without_a_pid_in_the_parent_namespace_names_that_namespace, needs probes::own_pid_max),
    test!(a_fork_in_a_full_pids_cgroup_has_the_reason, needs probes::pids_cgroup),
    test!(a_full_pids_cgroup_is_named_after_the_process_has_ended, needs probes::counting_cgroups),
    test!(a_fork_interrupted_by_a_fatal_signal_is_not_a_refusal),
    test!(a_refusal_by_a_seccomp_filter_is_not_a_lack_of_permission, needs probes::seccomp),
    test!(a_filter_and_a_missing_capability_give_permission, needs probes::seccomp),
    test!(a_thread_is_refused_while_children_go_elsewhere),
    test!(the_same_pid_twice_is_two_processes, needs probes::set_tid),
    test!(a_strange_name_is_escaped_reversibly),
    test!(a_strange_name_cannot_control_the_terminal),
    test!(threads_are_counted_without_events),
];

/// Runs a situation with all events shown, and waits until the process in `fact` is reaped too. The kernel does that
/// some milliseconds after the parent's wait.
fn watch_to_the_reaping_of(fact: &str, situation: &str, args: &[&str]) -> (Report, Seen) {
    let tracer = Tracer::start(&["-e", "all"]);
    let report = Actor::start(situation, args).finish();
    tracer.wait_for_process("process.reap", report.who(fact).pid);
    let seen = tracer.stop_after(&report);
    (report, seen)
}

fn a_life_is_fork_exec_exit_and_reap() {
    let (report, seen) = watch_to_the_reaping_of("child", "exec-and-exit", &["3"]);
    let (init, child, after): (Who, Who, Who) =
        (report.who("init"), report.who("child"), report.who("after-exec"));
    assert_eq!(report.the::<Ended>("end").code, Some(3));
    assert_eq!(child.pids, [child.pid, 2], "it must be the first child of the init");

    let fork = seen.of("process.fork", &child);
    expect_process(fork, "/process", &child);
    expect_process(fork, "/parent", &init);
    expect_not(fork, "/crosses");
    expect_not(fork, "/restored");

    let exec = seen.of("process.exec", &child);
    expect_process(exec, "/process", &after);
    expect(exec, "/filename", report.the::<String>("program"));
    assert_eq!(exec.get("args"), None, "arguments may hold secrets, so they need --args: {exec}");

    let exit = seen.of("process.exit", &child);
    expect_process(exit, "/process", &after);
    expect(exit, "/exit", json!({ "code": 3 }));
    expect(exit, "/threads", 1);
    expect_not(exit, "/orphaned");
    assert_eq!(exit.get("cascade"), None, "the process was not killed: {exit}");
    let (ran, start): (u64, u64) = (get(exit, "/ran_ns"), get(exit, "/process/start_boot_ns"));
    assert!(ran > 0 && start + ran <= get(exit, "/boot_ns"), "ran_ns must be within its life: {exit}");

    let reap = seen.of("process.reap", &child);
    expect(reap, "/process/pids", child.pids.clone());
    expect(reap, "/process/ns", init.ns);
    expect_order(&[fork, exec, exit, reap]);
}

fn arguments_are_shown_as_they_were_given() {
    let given = ["3", "two words", "", "tab\there", "ünïcode"];
    let tracer = Tracer::start(&["-e", "all", "--args"]);
    let report = Actor::start("exec-and-exit", &given).finish();
    let seen = tracer.stop_after(&report);
    let exec = seen.of("process.exec", &report.who("child"));
    let program: String = report.the("program");
    expect(exec, "/filename", program.clone());
    let expected: Vec<&str> = [&program, "actor", "exit"].into_iter().chain(given).collect();
    expect(exec, "/args", expected);
}

fn a_killed_process_shows_the_signal() {
    let (report, seen) = watch("killed-member", &[]);
    assert_eq!(report.the::<Ended>("end").signal, Some(libc::SIGTERM));
    let exit = seen.of("process.exit", &report.who("child"));
    expect(exit, "/exit", json!({ "signal": "SIGTERM" }));
    assert_eq!(exit.get("cascade"), None, "no dying namespace killed it: {exit}");
}

/// Ends a member (not PID 1) in this way. Returns its exit event, the member and the init.
fn ending(how: &str) -> (Value, Who, Who) {
    let (report, seen) = watch("ending", &[how]);
    let (child, init) = (report.who("child"), report.who("init"));
    (seen.of("process.exit", &child).clone(), child, init)
}

fn a_killed_process_names_its_killer() {
    for signal in ["SIGKILL", "SIGTERM", "SIGQUIT"] {
        let (exit, _, init) = ending(signal);
        expect(&exit, "/cause/kind", "signal");
        expect(&exit, "/cause/signal", signal);
        expect_process(&exit, "/cause/sender", &init);
    }
}

fn a_process_that_faults_has_the_cause() {
    let (exit, ..) = ending("fault");
    expect(&exit, "/cause", json!({ "kind": "fault", "signal": "SIGSEGV" }));
}

fn a_process_that_aborts_names_itself() {
    let (exit, child, _) = ending("abort");
    expect(&exit, "/cause/kind", "signal");
    expect(&exit, "/cause/signal", "SIGABRT");
    expect_process(&exit, "/cause/sender", &child);
}

fn a_process_that_dies_with_its_parent_names_the_parent() {
    let (exit, ..) = ending("parent ends");
    expect(&exit, "/cause/kind", "parent_death");
    expect(&exit, "/cause/signal", "SIGKILL");
    let parent: u64 = get(&exit, "/cause/parent/pid");
    assert_ne!(exit["process"]["ppid"], parent, "it must have another parent by then: {exit}");
}

fn a_process_that_ends_by_itself_has_no_cause() {
    for how in ["exit", "signal with a handler"] {
        let (exit, ..) = ending(how);
        expect(&exit, "/exit", json!({ "code": 0 }));
        expect_absent(&exit, "/cause");
    }
}

fn a_process_killed_by_oom_has_the_cause() {
    let group = cgroups::memory_cgroups().expect("the probe found the memory controller").make(16 << 20);
    let tracer = Tracer::start(&["-e", "all"]);
    let mut actor = Actor::start("memory-runs-out-for-a-member", &[group.path()]);
    let _: Ended = actor.hear("end");
    actor.go();
    let report = actor.finish();
    let seen = tracer.stop_after(&report);
    let exit = seen.one("process.exit", |event| event["cause"]["kind"] == "oom");
    expect(exit, "/exit", json!({ "signal": "SIGKILL" }));
    assert_eq!(
        exit["cause"]["victim"]["pid"], exit["process"]["pid"],
        "the kernel must have chosen this process"
    );
}

fn a_zombie_is_counted_from_its_exit_to_its_reaping() {
    let (report, seen) = watch_to_the_reaping_of("child", "zombie", &["300"]);
    let (child, window): (Who, Window) = (report.who("child"), report.the("window"));
    let reap = seen.of("process.reap", &child);
    let zombie: u64 = get(reap, "/zombie_ns");
    // The kernel may report the end some milliseconds after the parent's wait.
    let most = window.to - window.from + 200_000_000;
    assert!(
        (300_000_000..=most).contains(&zombie),
        "it was a zombie for at least 300 ms and at most {most} ns: {reap}"
    );
}

fn a_reap_without_other_events_has_the_age_of_the_zombie() {
    let tracer = Tracer::start(&["-e", "process.reap"]);
    let report = Actor::start("zombie", &["50"]).finish();
    let child = report.who("child");
    tracer.wait_for_process("process.reap", child.pid);
    let seen = tracer.stop();
    let zombie: u64 = get(seen.of("process.reap", &child), "/zombie_ns");
    assert!(zombie >= 50_000_000, "it was a zombie for at least 50 ms: {zombie} ns");
    seen.none("process.exit", |_| true);
}

fn the_reap_of_a_leader_with_its_last_thread_is_reported() {
    let (report, seen) = watch_to_the_reaping_of("child", "outlived-leader-unwaited", &[]);
    let reap = seen.of("process.reap", &report.who("child"));
    expect(reap, "/exact", false);
    expect(reap, "/process/pids", report.who("child").pids.clone());
}

fn a_process_that_outlives_its_parent_is_an_orphan() {
    let (report, seen) = watch("orphan", &[]);
    let (init, orphan) = (report.who("init"), report.who("orphan"));
    let parent_exit = seen.of("process.exit", &report.who("parent"));
    let exit = seen.of("process.exit", &orphan);
    expect(exit, "/orphaned", true);
    expect(exit, "/process/ppid", init.pid);
    expect(exit, "/exit", json!({ "code": 0 }));
    expect_order(&[parent_exit, exit]);
    expect(seen.of("process.fork", &orphan), "/parent/pid", report.who("parent").pid);
    for child in ["sibling", "parent"] {
        expect_not(seen.of("process.exit", &report.who(child)), "/orphaned");
    }
}

fn a_fork_after_the_inits_death_fails_with_namespace_dead() {
    let (report, seen) = watch("dead-namespace", &[]);
    expect_fork_refused(&report, &seen, "ENOMEM", "namespace_dead", report.who("init").ns);
}

fn a_fork_into_a_joined_dead_namespace_fails_with_namespace_dead() {
    let (report, seen) = watch("join-dead-namespace", &[]);
    let ns = report.who("init").ns;
    expect_fork_refused(&report, &seen, "ENOMEM", "namespace_dead", ns);
    let join = seen.one("namespace.join", about(report.actor));
    expect(join, "/ns/inum", ns);
}

fn a_fork_above_the_process_limit_names_the_limit() {
    let (report, seen) = watch("too-many-processes", &[]);
    expect_fork_refused(&report, &seen, "EAGAIN", "nproc_limit", report.who("init").ns);
    let failed = seen.one("fork.failed", about(report.refused("clone", "EAGAIN").who.pid));
    let limit = json!({ "kind": "nproc_limit", "value": 1, "current": 1, "uid": 54321 });
    expect(failed, "/limit", limit);
}

fn a_fork_interrupted_by_a_fatal_signal_is_not_a_refusal() {
    for place in ["host", "init"] {
        let (_, seen) = watch("killed-while-forking", &[place]);
        seen.none("fork.failed", |_| true);
    }
}

/// Checks the events if a seccomp filter refuses clone3, clone and unshare for this user. Function hooks report
/// nothing, because the kernel's functions are not called.
fn expect_filtered(user: &str, unshare_reason: &str) {
    let (report, seen) = watch("filtered", &[user]);
    let who = report.refused("clone3", "ENOSYS").who;
    if seen.by_functions() {
        seen.none("fork.failed", about(who.pid));
        seen.none("namespace.create_failed", made_by(who.pid));
        return;
    }
    let failed = seen.one("fork.failed", about(who.pid));
    expect(failed, "/errno", "EPERM");
    expect(failed, "/reason", "seccomp");
    expect_absent(failed, "/exact");
    let failed = seen.one("namespace.create_failed", made_by(who.pid));
    expect(failed, "/reason", unshare_reason);
    expect_absent(failed, "/exact");
}

fn a_refusal_by_a_seccomp_filter_is_not_a_lack_of_permission() {
    expect_filtered("root", "seccomp");
}

fn a_filter_and_a_missing_capability_give_permission() {
    expect_filtered("another user", "permission");
}

fn a_thread_is_refused_while_children_go_elsewhere() {
    let (report, seen) = watch("thread-after-unshare", &[]);
    let who = report.refused("thread", "EINVAL").who;
    let failed = seen.one("fork.failed", about(who.pid));
    expect(failed, "/reason", "children_elsewhere");
    expect(failed, "/thread", true);
}

/// Runs a shell script, and returns the one refused fork that it ends with.
fn refused_in(script: &str) -> Value {
    let tracer = Tracer::start(&["-e", "fork.failed"]);
    let mut shell = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).spawn().expect("start sh");
    let seen = tracer.wait_for("a refused fork", |event| event["event"] == "fork.failed");
    let _ = shell.wait().expect("wait for sh");
    tracer.stop();
    seen
}

fn a_fork_in_a_full_namespace_has_the_reason() {
    let failed = refused_in(
        "exec unshare --pid --fork --mount-proc sh -c '
         echo 301 > /proc/sys/kernel/pid_max
         while :; do sleep 100 & done'",
    );
    expect(&failed, "/errno", "EAGAIN");
    expect(&failed, "/reason", "pid_max");
    expect(&failed, "/ns/level", 1);
    expect(&failed, "/limit/ns", get::<u64>(&failed, "/ns/inum"));
    expect(&failed, "/limit/value", 301);
}

fn a_fork_without_a_pid_in_the_parent_namespace_names_that_namespace() {
    let failed = refused_in(
        "exec unshare --pid --fork --mount-proc sh -c '
         echo 301 > /proc/sys/kernel/pid_max
         exec unshare --pid --fork sh -c \"while :; do sleep 100 & done\"'",
    );
    expect(&failed, "/errno", "EAGAIN");
    expect(&failed, "/reason", "pid_max");
    expect(&failed, "/ns/level", 2);
    expect(&failed, "/limit/ns", get::<u64>(&failed, "/ns/parent"));
    expect(&failed, "/limit/value", 301);
}

fn a_fork_in_a_full_pids_cgroup_has_the_reason() {
    let group = format!("{}/pidns-trace-test-{}", cgroups::PIDS_CGROUPS, std::process::id());
    std::fs::create_dir(&group).expect("create the cgroup");
    std::fs::write(format!("{group}/pids.max"), "3").expect("set the limit");
    let inner = format!("{group}/inner");
    std::fs::create_dir(&inner).expect("create the nested cgroup");
    let number = std::fs::metadata(&group).expect("read the cgroup's directory").ino();
    let tracer = Tracer::start(&["-e", "fork.failed,namespace.create_failed"]);
    let mut actor = Actor::start("fills-cgroup", &[&inner]);
    let pid: Pid = actor.hear("refused");
    let fork = tracer.wait_for_process("fork.failed", pid);
    let creation = tracer.wait_for("a refused creation", |event| {
        event["event"] == "namespace.create_failed" && event["creator"]["pid"] == pid
    });
    actor.go();
    actor.finish();
    tracer.stop();
    expect(&creation, "/via", "clone");
    for failed in [fork, creation] {
        expect(&failed, "/errno", "EAGAIN");
        expect(&failed, "/reason", "pids_cgroup");
        expect(&failed, "/limit/value", 3);
        expect(&failed, "/limit/current", 3);
        expect(&failed, "/limit/cgroup_id", number);
        let path: String = get(&failed, "/limit/cgroup");
        assert!(group.ends_with(&path), "the limit is on {group}, but the event has another path: {failed}");
    }
    let started = Instant::now();
    while std::fs::remove_dir(&inner).is_err() || std::fs::remove_dir(&group).is_err() {
        assert!(started.elapsed() < patience(10), "the cgroup did not become empty");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A stopped process. Continued on drop.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: Pid) -> Self {
        crate::sys::kill(pid, libc::SIGSTOP).expect("stop the process");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        crate::sys::kill(self.0, libc::SIGCONT).expect("continue the process");
    }
}

/// The refused process has ended before the record of the refusal is read.
fn a_full_pids_cgroup_is_named_after_the_process_has_ended() {
    let root = cgroups::pids_controller().expect("the probe found the pids controller");
    let group = cgroups::ScratchCgroup::make(&root);
    std::fs::write(format!("{}/pids.max", group.path()), "3").expect("set the limit");
    let tracer = Tracer::start(&["-e", "fork.failed"]);
    let stopped = Stopped::stop(tracer.pid());
    let mut actor = Actor::start("fills-cgroup", &[group.path()]);
    let pid: Pid = actor.hear("refused");
    actor.go();
    actor.finish();
    let started = Instant::now();
    let is_empty = || {
        let members = std::fs::read_to_string(format!("{}/cgroup.procs", group.path()));
        members.expect("read the members").is_empty()
    };
    while !is_empty() {
        assert!(started.elapsed() < patience(10), "its processes did not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(stopped);
    let failed = tracer.wait_for_process("fork.failed", pid);
    tracer.stop();
    expect(&failed, "/reason", "pids_cgroup");
    let number = std::fs::metadata(group.path()).expect("read the cgroup's directory").ino();
    expect(&failed, "/limit/cgroup_id", number);
    let path: String = get(&failed, "/limit/cgroup");
    assert!(path.len() > 1 && group.path().ends_with(&path), "the limit is on {}: {failed}", group.path());
}

fn expect_fork_refused(report: &Report, seen: &Seen, errno: &str, reason: &str, ns: u64) {
    let refused = report.refused("clone", errno);
    let failed = seen.one("fork.failed", about(refused.who.pid));
    expect_process(failed, "/process", &refused.who);
    expect(failed, "/ns/inum", ns);
    expect(failed, "/errno", errno);
    expect(failed, "/reason", reason);
}

fn the_same_pid_twice_is_two_processes() {
    let (report, seen) = watch("same-pid-twice", &[]);
    let (first, second) = (report.who("first"), report.who("second"));
    assert_eq!((first.pid, &first.pids), (second.pid, &second.pids), "the kernel gave the chosen PIDs twice");
    let forks = seen.all("process.fork", about(first.pid));
    let exits = seen.all("process.exit", about(first.pid));
    assert_eq!((forks.len(), exits.len()), (2, 2), "expected two lives: {forks:#?} {exits:#?}");
    expect_order(&[forks[0], exits[0], forks[1], exits[1]]);
    expect_process(forks[0], "/process", &first);
    expect_process(forks[1], "/process", &second);
    let start = |event: &Value| get::<u64>(event, "/process/start_boot_ns");
    assert!(start(forks[0]) < start(forks[1]), "their starts must differ: {forks:#?}");
    assert_eq!(
        (start(forks[0]), start(forks[1])),
        (start(exits[0]), start(exits[1])),
        "each exit must belong to its own life"
    );
}

/// Decodes an escaped name: `\xHH` is a byte, `\\` a backslash, and any other character itself.
fn unescape(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        let (byte, length) = match rest.as_bytes() {
            [b'\\', b'\\', ..] => (vec![b'\\'], 2),
            [b'\\', b'x', ..] => {
                let hex = rest.get(2..4).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                (vec![hex.unwrap_or_else(|| panic!("\\x without two digits in {name:?}"))], 4)
            }
            [b'\\', ..] => panic!("a single backslash in {name:?}"),
            _ => (character.to_string().into_bytes(), character.len_utf8()),
        };
        bytes.extend(byte);
        rest = &rest[length..];
    }
    bytes
}

fn a_strange_name_is_escaped_reversibly() {
    let (report, seen) = watch("strange-name", &[]);
    let child = report.who("child");
    expect_process(seen.of("process.fork", &child), "/process", &child);
    let exit = seen.of("process.exit", &child);
    expect_process_renamed(exit, "/process", &child);
    let name: String = get(exit, "/process/comm");
    assert_eq!(unescape(&name), STRANGE_NAME, "the original name, decoded from {name:?}");
    assert!(name.contains(r#"\xff\xfe"\\x"#), "expected escaped bytes, a quote and a backslash: {name:?}");
}

fn a_strange_name_cannot_control_the_terminal() {
    let tracer = Tracer::start_raw(&["--color", "never"]);
    tracer.wait_for_line("the header", 5, |line| line.contains("EVENT"));
    let report = Actor::start("strange-name", &[]).finish();
    let child: Pid = report.who("child").pid;
    let line = tracer.wait_for_line("the exit", 5, |line| line.contains("[31m"));
    assert!(line.contains(&child.to_string()), "the line must be about {child}: {line:?}");
    crate::sys::kill(tracer.pid(), libc::SIGINT).expect("the program runs until it is stopped");
    let (lines, stderr, status) = tracer.ended_raw();
    assert_eq!(status.code(), Some(0), "Ctrl-C is a normal end, stderr: {stderr}");
    for text in lines.iter().chain([&stderr]) {
        let control =
            text.chars().find(|character| character.is_control() && !matches!(character, '\n' | '\t'));
        assert_eq!(control, None, "a control character in {text:?}");
    }
}

fn threads_are_counted_without_events() {
    let (report, seen) = watch("threads-in-namespace", &["3"]);
    let (process, tids): (Who, Vec<Pid>) = (report.who("process"), report.the("tids"));
    assert_eq!(tids.len(), 3, "the number of threads without the first one");
    expect(seen.of("process.exit", &process), "/threads", 4);
    for name in ["process.fork", "process.exec", "process.exit", "process.reap"] {
        seen.none(name, |event| tids.iter().any(|tid| event["process"]["pid"] == *tid));
    }
}
