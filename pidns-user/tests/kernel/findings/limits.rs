//! Reaches limits on PIDs: of a cgroup, of a user, and of a namespace.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use super::capture::{Capture, facts};
use crate::actor_handle::{Actor, patience};
use crate::cgroups::{self, ScratchCgroup};
use crate::facts::{Refused, Who};
use crate::forest::{document, namespace, output, process};
use crate::probes;
use crate::seen::get;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_full_pids_cgroup_is_found_with_its_limit, needs probes::counting_cgroups),
    test!(a_user_at_the_process_limit_is_found),
    test!(a_namespace_at_its_own_pid_max_is_found, needs probes::own_pid_max),
    test!(a_namespace_near_its_own_pid_max_is_found_by_one_snapshot, needs probes::own_pid_max),
    test!(a_machine_at_its_pid_max_is_found, needs probes::own_machine),
    test!(zombies_that_fill_a_cgroup_are_counted, needs probes::counting_cgroups),
    test!(threads_that_fill_a_cgroup_are_found, needs probes::counting_cgroups),
];

fn pids_cgroup(limit: u32) -> ScratchCgroup {
    let group =
        ScratchCgroup::make(&cgroups::pids_controller().expect("the probe found the pids controller"));
    fs::write(format!("{}/pids.max", group.path()), limit.to_string()).expect("set the limit");
    group
}

fn a_full_pids_cgroup_is_found_with_its_limit() {
    let group = pids_cgroup(6);
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("full-cgroup", &[group.path(), "5"]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let opened = capture.opened("pid-exhaustion", init.ns);
    let found = capture.becomes(&opened, |finding| !facts(finding, "refused_fork").is_empty());
    assert_eq!(found["severity"], "critical");
    assert_eq!(facts(&found, "refused_fork")[0]["process"]["pid"], init.pid, "{found:#}");
    let limits = facts(&found, "limit");
    let is_reached = |fact: &&&Value| fact["limit"]["value"] == 6 && fact["limit"]["current"] == 6;
    let limit = limits.iter().find(is_reached).unwrap_or_else(|| panic!("{found:#}"));
    let path: String = get(limit, "/limit/cgroup");
    assert!(group.path().ends_with(&path), "{path} is not {}", group.path());
    capture.recorded(&found);
    actor.go();
    actor.finish();
    capture.closed(&found);
    capture.only(&["pid-exhaustion"], &[init.ns]);
}

/// The fact about this kind of limit.
#[track_caller]
fn limit_of<'a>(found: &'a Value, kind: &str) -> &'a Value {
    let limits = facts(found, "limit").into_iter().map(|fact| &fact["limit"]);
    let mut of_this_kind = limits.filter(|limit| limit["kind"] == kind);
    of_this_kind.next().unwrap_or_else(|| panic!("no {kind}: {found:#}"))
}

fn a_user_at_the_process_limit_is_found() {
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("too-many-processes", &[]);
    let init: Who = actor.hear("init");
    let refused: Refused = actor.hear("refused");
    let found = capture.opened("pid-exhaustion", init.ns);
    assert_eq!(found["severity"], "critical");
    let fork = facts(&found, "refused_fork")[0];
    assert_eq!((&fork["process"]["pid"], &fork["reason"]), (&refused.who.pid.into(), &"nproc_limit".into()));
    let limit = limit_of(&found, "nproc_limit");
    assert_eq!((&limit["value"], &limit["current"], &limit["uid"]), (&1.into(), &1.into(), &54321.into()));
    capture.recorded(&found);
    actor.finish();
    capture.closed(&found);
    capture.only(&["pid-exhaustion"], &[init.ns]);
}

fn a_namespace_at_its_own_pid_max_is_found() {
    // This number tells the namespace from others on the machine.
    const PID_MAX: u64 = 313;
    let mut capture = Capture::new(&[]);
    // The shell ends at the first fork that is refused, and with it the namespace.
    let fill = format!("echo {PID_MAX} > /proc/sys/kernel/pid_max; while :; do sleep 100 & done");
    let mut shell = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "sh", "-c", &fill])
        .stderr(Stdio::null())
        .spawn()
        .expect("start unshare");
    let event = capture.tracer.wait_for("finding pid-exhaustion", |event| {
        event["state"] == "opened"
            && event["finding"]["id"] == "pid-exhaustion"
            && facts(&event["finding"], "limit").iter().any(|fact| fact["limit"]["value"] == PID_MAX)
    });
    let _ = shell.wait().expect("wait for unshare");
    let found = capture.becomes(&event["finding"], |finding| !facts(finding, "refused_fork").is_empty());
    let ns: u64 = get(&found, "/ns/inum");
    assert_eq!((&found["severity"], &found["ns"]["level"]), (&"critical".into(), &1.into()));
    assert_eq!(facts(&found, "refused_fork")[0]["reason"], "pid_max", "{found:#}");
    assert_eq!(limit_of(&found, "pid_max")["ns"], ns, "the namespace's own limit: {found:#}");
    capture.recorded(&found);
    capture.closed(&found);
    let seen = capture.tracer.stop();
    let about_it = seen.named("finding").filter(|event| event["finding"]["ns"] == found["ns"]);
    let ids: Vec<&Value> = about_it.map(|event| &event["finding"]["id"]).collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| *id == "pid-exhaustion"), "{ids:?}");
}

/// kernel.pid_max of the whole machine, which gets its value back when this is dropped.
struct PidMax(String);

impl PidMax {
    const FILE: &str = "/proc/sys/kernel/pid_max";

    fn lower(to: u64) -> Self {
        let before = fs::read_to_string(Self::FILE).expect("read kernel.pid_max");
        fs::write(Self::FILE, to.to_string()).expect("set kernel.pid_max");
        Self(before)
    }
}

impl Drop for PidMax {
    fn drop(&mut self) {
        fs::write(Self::FILE, &self.0).expect("set kernel.pid_max");
    }
}

fn a_machine_at_its_pid_max_is_found() {
    // The kernel uses PIDs below 300 only once, so about 100 processes fit.
    const PID_MAX: u64 = 400;
    let mut capture = Capture::new(&[]);
    let lowered = PidMax::lower(PID_MAX);
    // The shell ends at the first fork that is refused. Its children have its process group.
    let mut shell = Command::new("sh")
        .args(["-c", "while :; do sleep 100 & done"])
        .process_group(0)
        .stderr(Stdio::null())
        .spawn()
        .expect("start sh");
    let event = capture.tracer.wait_for("finding pid-exhaustion", |event| {
        event["state"] != "closed"
            && event["finding"]["id"] == "pid-exhaustion"
            && !facts(&event["finding"], "refused_fork").is_empty()
    });
    drop(lowered);
    let group = i32::try_from(shell.id()).ok().and_then(Pid::from_raw).expect("a PID");
    kill_process_group(group, Signal::KILL).expect("end the processes");
    let _ = shell.wait().expect("wait for sh");
    let found = &event["finding"];
    assert_eq!((&found["severity"], &found["ns"]["level"]), (&"critical".into(), &0.into()));
    assert_eq!(facts(found, "refused_fork")[0]["reason"], "pid_max", "{found:#}");
    assert_eq!(limit_of(found, "pid_max")["value"], PID_MAX, "{found:#}");
    capture.recorded(found);
    capture.closed(found);
    capture.only(&["pid-exhaustion"], &[get(found, "/ns/inum")]);
}

fn a_namespace_near_its_own_pid_max_is_found_by_one_snapshot() {
    // The kernel uses PIDs below 300 only once, so 100 processes fit. The last sleep only shows that the others exist.
    let fill = "echo 400 > /proc/sys/kernel/pid_max; for i in $(seq 88); do sleep 100 & done; exec sleep 101";
    let mut namespace_of_it = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", fill])
        .spawn()
        .expect("start unshare");
    let outer = namespace_of_it.id();
    let children = format!("/proc/{outer}/task/{outer}/children");
    let began = Instant::now();
    let ns = loop {
        let init = fs::read_to_string(&children).unwrap_or_default();
        let line = fs::read(format!("/proc/{}/cmdline", init.trim())).unwrap_or_default();
        if line == b"sleep\x00101\x00" {
            let pid = init.trim().parse().expect("a PID");
            break get::<u64>(process(&document(&["ps", init.trim()]), pid), "/ns");
        }
        assert!(began.elapsed() < patience(20), "the namespace did not start");
        thread::sleep(Duration::from_millis(50));
    };
    let target = ns.to_string();
    let tree = document(&["tree", &target]);
    assert_eq!(namespace(&tree, ns)["ns"]["pid_max"], serde_json::json!({ "value": 400, "current": 89 }));
    let (text, _) = output(&["findings", &target, "-o", "json"], 1);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let found = document["findings"].as_array().expect("findings").iter().find(|it| it["ns"]["inum"] == ns);
    let found = found.unwrap_or_else(|| panic!("no finding: {document:#}"));
    assert_eq!((&found["id"], &found["severity"]), (&"pid-exhaustion".into(), &"warning".into()));
    let limit = limit_of(found, "pid_max");
    assert_eq!((&limit["ns"], &limit["value"], &limit["current"]), (&ns.into(), &400.into(), &89.into()));
    namespace_of_it.kill().expect("end unshare");
    let _ = namespace_of_it.wait().expect("wait for unshare");
}

fn zombies_that_fill_a_cgroup_are_counted() {
    const ZOMBIES: u32 = 8;
    // Of the init and its zombies.
    let group = pids_cgroup(ZOMBIES + 1);
    let capture = Capture::new(&[]);
    let mut actor = Actor::start("zombies-fill-a-cgroup", &[group.path(), &ZOMBIES.to_string()]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    let opened = capture.opened("pid-exhaustion", init.ns);
    let is_counted = |finding: &Value| {
        facts(finding, "zombies").first().is_some_and(|fact| {
            (&fact["count"], &fact["orphans"]) == (&ZOMBIES.into(), &0.into())
                && fact["names"] == json!([{"comm": "worker", "count": ZOMBIES}])
        })
    };
    // A zombie counts only if it stays: that takes a second.
    let finding = capture.becomes(&opened, is_counted);
    assert_eq!(finding["severity"], "critical", "{finding:#}");
    let (text, _) = output(&["explain", &init.ns.to_string()], 0);
    assert!(text.contains("pid-exhaustion") && text.contains("8 zombies"), "{text}");
    actor.go();
    actor.finish();
    capture.closed(&opened);
}

fn threads_that_fill_a_cgroup_are_found() {
    let group = pids_cgroup(100);
    let mut capture = Capture::new(&[]);
    let mut actor = Actor::start("threads-in-a-cgroup", &[group.path()]);
    let init: Who = actor.hear("init");
    let _: bool = actor.hear("ready");
    // The limit is read first, and the threads are read in a later second.
    let began = Instant::now();
    let found = loop {
        let event = capture.tracer.wait_for("finding thread-growth", |event| {
            event["finding"]["id"] == "thread-growth" && event["finding"]["process"]["pid"] == init.pid
        });
        if event["state"] == "opened" {
            break event["finding"].clone();
        }
        assert!(began.elapsed() < patience(20), "the finding did not come in time");
    };
    assert_eq!(facts(&found, "threads")[0]["threads"], 51, "{found:#}");
    capture.recorded(&found);
    actor.go();
    actor.finish();
    capture.closed(&found);
    capture.only(&["thread-growth"], &[init.ns]);
}
