//! What a process may still do after it has limited itself: with a system call filter for all threads, and without
//! access to files for the thread that serves HTTP.

use std::collections::BTreeMap;
use std::fs;

use crate::actor_handle::Actor;
use crate::seen::about;
use crate::tracer::watch;
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_limited_process_can_do_all_work_of_an_agent, needs probes::seccomp),
    test!(a_limited_process_runs_nothing_and_changes_nothing, needs probes::seccomp),
    test!(a_clone3_hidden_by_a_filter_is_not_a_refused_fork, needs probes::seccomp),
    test!(the_http_thread_can_only_read_its_directory, needs probes::landlock),
];

type Attempts = BTreeMap<String, String>;

fn a_limited_process_can_do_all_work_of_an_agent() {
    let report = Actor::start("limited-calls", &[]).finish();
    assert!(report.the::<String>("protection").starts_with("on ("), "{}", report.the::<String>("protection"));
    let allowed: Attempts = report.the("allowed");
    let failed: Attempts = allowed.clone().into_iter().filter(|(_, came_to)| came_to != "ok").collect();
    assert!(failed.is_empty() && allowed.len() > 10, "{failed:?} of {} attempts", allowed.len());
}

fn a_limited_process_runs_nothing_and_changes_nothing() {
    let report = Actor::start("limited-calls", &[]).finish();
    let before: Attempts = report.the("before");
    let already: Attempts = before.clone().into_iter().filter(|(_, came_to)| came_to == "EPERM").collect();
    assert!(already.is_empty(), "already refused without the limit, so the test proves nothing: {already:?}");
    for thread in ["refused", "refused to an earlier thread"] {
        let after: Attempts = report.the(thread);
        assert!(after.keys().eq(before.keys()) && after.len() > 40, "{} attempts", after.len());
        let done: Attempts = after.into_iter().filter(|(_, came_to)| came_to != "EPERM").collect();
        assert!(done.is_empty(), "{thread}: {done:?}");
    }
    assert_eq!(report.the::<String>("clone3"), "ENOSYS", "glibc falls back to clone");
}

fn a_clone3_hidden_by_a_filter_is_not_a_refused_fork() {
    let (report, seen) = watch("limited-calls", &[]);
    assert_eq!(report.the::<String>("clone3"), "ENOSYS");
    seen.none("fork.failed", |event| about(report.actor)(event) && event["errno"] == "ENOSYS");
}

fn the_http_thread_can_only_read_its_directory() {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    fs::write(folder.path().join("config"), "x").expect("write the file");
    let path = folder.path().to_str().expect("UTF-8");
    let report = Actor::start("limited-thread", &[path]).finish();
    let missing: String = report.the("a path that is not there");
    assert!(missing.contains("nowhere") && missing.contains("stay readable"), "{missing}");
    let protection: String = report.the("protection");
    assert!(protection.starts_with("on (Landlock ABI "), "{protection}");
    let attempts: Attempts = report.the("attempts");
    let denies_tcp = protection.contains("and TCP");
    for (attempt, expected) in [
        ("accept", "ok"),
        ("read its folder", "ok"),
        ("list its folder", "ok"),
        ("read elsewhere", "EACCES"),
        ("list elsewhere", "EACCES"),
        ("the status of a process", "EACCES"),
        ("the namespace of a process", "EACCES"),
        ("connect", if denies_tcp { "EACCES" } else { "ok" }),
        ("bind", if denies_tcp { "EACCES" } else { "ok" }),
        ("write by openat2", "EACCES"),
        ("write", "EPERM"),
    ] {
        assert_eq!(attempts[attempt], expected, "{attempt}: {protection}");
    }
    assert_eq!(attempts.len(), 11);
    assert_eq!(report.the::<String>("of a thread that it starts"), "EACCES");
    assert_eq!(report.the::<String>("of the other thread"), "ok", "snapshots need this");
}
