//! `--watch`: repeated snapshots, how they end, and which privileges they keep.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::actor_handle::{patience, wait_in_time};
use crate::facts::Who;
use crate::forest::{let_go, still};
use crate::sys::{self, Pid};
use crate::tracer::{Tracer, command};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_watch_follows_a_namespace_until_it_is_destroyed),
    test!(a_watch_ends_with_ctrl_c),
    test!(a_document_is_complete_even_on_a_terminal),
    test!(a_watch_drops_unused_privileges),
];

fn a_watch_follows_a_namespace_until_it_is_destroyed() {
    let mut actor = still("still-nested");
    let outer: Who = actor.hear("outer");
    let watch = Tracer::start_raw(&["ps", &outer.pid.to_string(), "--watch=20ms", "-o", "json"]);
    let is_it = |line: &str| {
        let document: Value = serde_json::from_str(line).expect("parse the document");
        document["processes"].as_array().map(Vec::len) == Some(2)
    };
    let first = watch.wait_for_line("its two processes", 10, is_it);
    watch.wait_for_line("them in a second snapshot", 10, |line| is_it(line) && line != first);
    let_go(actor);
    let (_, stderr, status) = watch.ended_raw();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains(&format!("namespace {} is gone", outer.ns)), "{stderr}");
}

fn a_watch_ends_with_ctrl_c() {
    let watch = Tracer::start_raw(&["tree", "--watch=20ms", "--no-headers", "--fields", "ns"]);
    let own = Who::myself().ns.to_string();
    watch.wait_for_line("the outermost namespace", 10, |line| line == own);
    sys::kill(watch.pid(), libc::SIGINT).expect("send the signal");
    let (_, stderr, status) = watch.ended_raw();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

fn a_document_is_complete_even_on_a_terminal() {
    const COLUMNS: usize = 40;
    let (master, slave) = sys::terminal(10, COLUMNS as u16).expect("open a terminal");
    let watch =
        |args: &[&str]| command(args).stdout(slave.try_clone().expect("duplicate the descriptor")).spawn();
    let mut lines = BufReader::new(File::from(master)).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    let pid = std::process::id().to_string();
    let mut documents = watch(&["ps", &pid, "-o", "json", "--watch=100s"]).expect("start the program");
    let line = next();
    let document: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    assert!(document["processes"].is_array() && line.len() > COLUMNS, "{line:?}");
    sys::kill(documents.id() as Pid, libc::SIGINT).expect("send the signal");
    assert_eq!(wait_in_time(&mut documents, "ps --watch").code(), Some(0));

    let mut table = watch(&["ps", &pid, "--watch=100s"]).expect("start the program");
    let line = next();
    assert!(line.starts_with("\x1b[Hevery 100s"), "expected a screen: {line:?}");
    sys::kill(table.id() as Pid, libc::SIGINT).expect("send the signal");
    assert_eq!(wait_in_time(&mut table, "ps --watch").code(), Some(0));
}

/// For each thread of a process: its name, its effective capabilities, and whether it can get others.
fn privileges(pid: Pid) -> Vec<(String, u64, bool)> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("list the threads");
    let of = |thread: std::fs::DirEntry| {
        let status = std::fs::read_to_string(thread.path().join("status")).expect("a thread that stays");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
        };
        let capabilities = u64::from_str_radix(&field("CapEff"), 16).expect("a mask");
        (field("Name"), capabilities, field("NoNewPrivs") == "0")
    };
    threads.map(|thread| of(thread.expect("a thread"))).collect()
}

fn a_watch_drops_unused_privileges() {
    // CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF (include/uapi/linux/capability.h).
    const USED: u64 = 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39;
    for args in [
        &["tree", "--watch=20ms", "--no-headers", "--fields", "ns,container", "--runtime-api"][..],
        &["ps", "--watch=20ms", "--no-headers", "--fields", "ns,container", "--runtime-api"],
        &["-o", "json", "--runtime-api"],
    ] {
        let it = Tracer::start_raw(args);
        it.wait_for_line("a first line", 10, |_| true);
        let waits = |threads: &[(String, u64, bool)]| threads.iter().any(|(name, ..)| name == "background");
        // A thread sets its name when it first runs.
        let mut threads = privileges(it.pid());
        let deadline = Instant::now() + patience(5);
        while !waits(&threads) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            threads = privileges(it.pid());
        }
        assert!(waits(&threads), "no thread waits for signals: {threads:?}");
        for (name, capabilities, may_get_more) in &threads {
            assert_eq!(capabilities & !USED, 0, "{args:?}: {name}: {capabilities:#x}");
            assert!(!may_get_more, "{args:?}: {name}");
        }
        sys::kill(it.pid(), libc::SIGINT).expect("send the signal");
        let (_, stderr, status) = it.ended_raw();
        assert_eq!(status.code(), Some(0), "{stderr}");
    }
}
