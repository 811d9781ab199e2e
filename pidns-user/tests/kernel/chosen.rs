//! Forks that choose PIDs with set_tid and do not get them.

use serde_json::{Value, json};

use crate::facts::{Refused, inode};
use crate::seen::{about, expect, expect_absent, expect_process, get, made_by};
use crate::sys::Pid;
use crate::tracer::watch;
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_taken_chosen_pid_is_named_with_its_holder, needs probes::set_tid),
    test!(choosing_a_pid_needs_a_capability_that_is_named, needs probes::set_tid),
];

fn a_taken_chosen_pid_is_named_with_its_holder() {
    let (report, seen) = watch("taken-pids", &[]);
    let asker = report.who("asker");
    let tid: Pid = report.the("tid");
    let host: u64 = inode("/proc/self/ns/pid").expect("read the host's namespace");
    let (inside, outside) = (asker.ns, host);
    let expected = [
        ("process", vec![40], 40, inside, "process", report.who("process").pid),
        ("outer", vec![41, asker.pid], asker.pid, outside, "process", asker.pid),
        ("group", vec![50], 50, inside, "process_group", report.who("group").pid),
        ("session", vec![60], 60, inside, "session", report.who("session").pid),
        ("zombie", vec![70], 70, inside, "process", report.who("zombie").pid),
        ("thread", vec![tid], tid, inside, "thread", asker.pid),
    ];
    let failed = seen.all("fork.failed", about(asker.pid));
    let of = |set_tid: &[i32]| -> &Value {
        let asked = failed.iter().find(|event| event["set_tid"] == json!(set_tid));
        asked.unwrap_or_else(|| panic!("no refusal of {set_tid:?} in {failed:#?}"))
    };
    for (fact, set_tid, pid, ns, used_as, holder) in expected {
        assert_eq!(report.the::<Refused>(&format!("{fact} refused")).errno, "EEXIST", "{fact}");
        let event = of(&set_tid);
        expect(event, "/errno", "EEXIST");
        expect(event, "/reason", "pid_taken");
        expect(event, "/ns/inum", inside);
        expect(event, "/taken", json!({ "pid": pid, "ns": ns, "as": used_as }));
        expect(event, "/holder/pid", holder);
        expect_absent(event, "/exact");
    }
    expect_process(of(&[40]), "/holder", &report.who("process"));
    for (fact, set_tid) in [("no number", &[-1][..]), ("too many", &[43, 44, 45])] {
        assert_eq!(report.the::<Refused>(&format!("{fact} refused")).errno, "EINVAL", "{fact}");
        let event = of(set_tid);
        expect(event, "/reason", "other");
        expect_absent(event, "/taken");
        expect_absent(event, "/holder");
    }
    assert_eq!(failed.len(), 8, "{failed:#?}");
    let failed = seen.one("namespace.create_failed", made_by(asker.pid));
    expect(failed, "/errno", "EEXIST");
    expect(failed, "/reason", "pid_taken");
    expect(failed, "/set_tid", json!([1, 40]));
    expect(failed, "/taken", json!({ "pid": 40, "ns": inside, "as": "process" }));
    expect_process(failed, "/holder", &report.who("process"));
}

fn choosing_a_pid_needs_a_capability_that_is_named() {
    let (report, seen) = watch("choose-unprivileged", &[]);
    let failed = seen.one("fork.failed", about(report.refused("clone3", "EPERM").who.pid));
    expect(failed, "/errno", "EPERM");
    expect(failed, "/reason", "permission");
    expect(failed, "/set_tid", json!([77]));
    expect(failed, "/capability", "CAP_CHECKPOINT_RESTORE");
    expect(failed, "/user_ns", get::<u64>(failed, "/ns/user_ns"));
    expect_absent(failed, "/holder");
}
