//! Compares snapshots (`tree`, `ps` and `pid`) with waiting situations, with /proc and with lsns.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use pidns_user::event::identity::{BootNs, HostPid, NsInum};
use pidns_user::event::snapshot::SnapshotProcess;
use pidns_user::kernel::{
    clock,
    iterator::{TaskIterator, snapshot_of},
};
use pidns_user::procfs::Procfs;
use serde_json::Value;

use crate::actor_handle::{Actor, run};
use crate::facts::Who;
use crate::schemas::{self, Schema};
use crate::sys::{self, Pid};
use crate::tracer::{program, world_readable_copy};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(namespaces_are_listed_below_their_parents),
    test!(a_process_from_outside_is_marked_as_joined),
    test!(a_zombie_is_shown_as_a_zombie),
    test!(a_namespace_held_by_a_file_is_shown_with_the_file),
    test!(a_namespace_held_by_a_mount_is_shown_with_the_mount),
    test!(a_namespace_held_for_children_is_shown_with_their_parent),
    test!(a_pid_is_translated_from_every_namespace_where_it_is_visible),
    test!(a_thread_id_is_translated_in_both_directions),
    test!(unknown_targets_exit_with_1_and_invalid_arguments_with_2),
    test!(the_iterator_and_proc_agree),
    test!(every_pid_matches_nspid),
    test!(namespaces_match_lsns),
    test!(without_privilege_unknown_namespaces_are_counted),
    test!(data_hidden_by_proc_is_unknown_and_not_absent),
    test!(chosen_fields_are_columns_and_members),
    test!(arguments_match_the_process),
];

#[track_caller]
pub(crate) fn output(args: &[&str], code: i32) -> (String, String) {
    let (status, stdout, stderr) = run(Command::new(program()).args(args));
    assert_eq!(status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    (stdout, stderr)
}

#[track_caller]
pub(crate) fn document(args: &[&str]) -> Value {
    let (stdout, stderr) = output(&[args, &["-o", "json"]].concat(), 0);
    // On some machines not even root may read PID 1.
    let protected = std::fs::read_link("/proc/1/ns/pid").is_err();
    let is_expected = |line: &str| {
        let unread = protected && line.starts_with("pidns-trace: no permission to read: ");
        // An earlier run may have left one behind.
        unread || line.contains(" without processes: ")
    };
    assert!(stderr.lines().all(is_expected), "root must be able to read everything else: {stderr}");
    let document: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"));
    if !args.contains(&"--fields") {
        let schema = schemas::FILES.iter().map(|(name, _)| *name).find(|name| *name == args[0]);
        Schema::of(schema.expect("docs/schema has each command's document"))
            .check(&document, &args.join(" "));
    }
    document
}

#[track_caller]
pub(crate) fn namespace(tree: &Value, inum: u64) -> &Value {
    let all = tree["namespaces"].as_array().expect("namespaces");
    let found = all.iter().find(|line| line["ns"]["inum"] == inum);
    found.unwrap_or_else(|| panic!("no namespace {inum}: {tree:#}"))
}

pub(crate) fn process(document: &Value, pid: Pid) -> &Value {
    let all = document["processes"].as_array().expect("processes");
    all.iter().find(|line| line["pid"] == pid).unwrap_or_else(|| panic!("no process {pid}: {document:#}"))
}

/// Runs a situation up to the point where it waits.
pub(crate) fn still(situation: &str) -> Actor {
    let mut actor = Actor::start(situation, &[]);
    let _: bool = actor.hear("ready");
    actor
}

pub(crate) fn let_go(mut actor: Actor) {
    actor.go();
    actor.finish();
}

/// The TID on the host of a thread with this TID in its process's namespace, from /proc.
#[track_caller]
pub(crate) fn outer_number_of_thread(process: &Who, inner: u32) -> u32 {
    let tasks =
        std::fs::read_dir(format!("/proc/{}/task", process.pid)).expect("the process lives").flatten();
    let tids = tasks.filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok());
    let has_it = |tid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{tid}/status")).expect("the thread lives");
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("NSpid");
        pids.split_whitespace().last() == Some(&inner.to_string())
    };
    tids.into_iter().find(has_it).expect("find the thread in /proc")
}

fn a_thread_id_is_translated_in_both_directions() {
    let mut actor = still("still-thread");
    let init: Who = actor.hear("init");
    let inner: u32 = actor.hear("thread");
    assert_ne!(inner, 1, "it must not be the first thread of its process");
    let outer = outer_number_of_thread(&init, inner);
    let pid = |args: &[&str]| -> Value {
        let (stdout, stderr) = output(&[&["pid"], args, &["-o", "json"]].concat(), 0);
        assert!(stderr.contains(&format!("{outer} is a thread of ")), "{stderr}");
        serde_json::from_str(&stdout).expect("JSON")
    };
    let (ns, outer, inner) = (init.ns.to_string(), outer.to_string(), inner.to_string());
    for args in [&[outer.as_str()][..], &[&inner, "--in", &ns], &[&inner, "--in", &outer]] {
        let report = pid(args);
        assert_eq!(report["process"]["pid"], init.pid, "{args:?}: {report:#}");
        assert_eq!(report["thread"].to_string(), outer, "{args:?}: {report:#}");
        let levels: Vec<String> = report["levels"]
            .as_array()
            .expect("levels")
            .iter()
            .map(|level| level["pid"].to_string())
            .collect();
        assert_eq!(levels.first(), Some(&outer), "{args:?}: {report:#}");
        assert_eq!(levels.last(), Some(&inner), "{args:?}: {report:#}");
    }
    let only = pid(&[&outer, "--to", &ns]);
    assert_eq!(only["levels"].as_array().map(Vec::len), Some(1), "{only:#}");
    assert_eq!(only["levels"][0]["pid"].to_string(), inner, "{only:#}");
    output(&["pid", &outer, "--in", &ns], 1);
    let_go(actor);
}

fn namespaces_are_listed_below_their_parents() {
    let mut actor = still("still-nested");
    let (outer, inner): (Who, Who) = (actor.hear("outer"), actor.hear("inner"));
    let tree = document(&["tree", &outer.ns.to_string()]);
    let (first, second) = (&tree["namespaces"][0], &tree["namespaces"][1]);
    assert_eq!((&first["ns"]["inum"], &second["ns"]["inum"]), (&outer.ns.into(), &inner.ns.into()));
    assert_eq!(first["children"], serde_json::json!([inner.ns]));
    assert_eq!(second["ns"]["parent"], outer.ns);
    assert_eq!(second["ns"]["level"], 2);
    assert_eq!(first["init"]["pid"], outer.pid);
    assert_eq!(tree["namespaces"].as_array().map(Vec::len), Some(2), "expected only these two: {tree:#}");

    let (table, _) = output(&["tree", "--no-headers", &outer.ns.to_string()], 0);
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with(&outer.ns.to_string()), "{table}");
    assert!(lines[1].starts_with(&format!("└─{}", inner.ns)), "{table}");

    let members = document(&["ps", &outer.pid.to_string()]);
    assert_eq!(members["processes"].as_array().map(Vec::len), Some(2), "{members:#}");
    let child = process(&members, members["processes"][1]["pid"].as_i64().expect("a PID") as Pid);
    assert_eq!((&child["level"], &child["joined"]), (&2.into(), &false.into()));
    let_go(actor);
}

fn a_process_from_outside_is_marked_as_joined() {
    let mut actor = still("still-joined");
    let (init, joiner): (Who, Who) = (actor.hear("init"), actor.hear("joiner"));
    let tree = document(&["tree", &init.ns.to_string()]);
    let joined = &namespace(&tree, init.ns)["joined"];
    assert_eq!(joined.as_array().map(Vec::len), Some(1), "{tree:#}");
    assert_eq!((&joined[0]["parent"], &joined[0]["from"]), (&joiner.pid.into(), &joiner.ns.into()));
    let child = joined[0]["process"]["pid"].as_i64().expect("a PID") as Pid;
    let members = document(&["ps", &init.ns.to_string()]);
    assert_eq!(process(&members, child)["joined"], true);
    assert_eq!(process(&members, init.pid)["joined"], false);
    let held = serde_json::json!({"kind": "pid_for_children", "pid": joiner.pid, "comm": joiner.comm});
    let holders = namespace(&tree, init.ns)["holders"].as_array().expect("holders").clone();
    assert!(holders.contains(&held), "{held} of {tree:#}");
    let_go(actor);
}

fn a_zombie_is_shown_as_a_zombie() {
    let mut actor = still("still-zombie");
    let init: Who = actor.hear("init");
    let inside: Pid = actor.hear("zombie");
    let ns = init.ns.to_string();
    let members = document(&["ps", &ns]);
    let zombie =
        members["processes"].as_array().expect("processes").iter().find(|line| line["zombie"] == true);
    let zombie = zombie.unwrap_or_else(|| panic!("no zombie: {members:#}"));
    assert_eq!((&zombie["state"], &zombie["pids"][1]), (&"Z".into(), &inside.into()));
    assert_eq!(zombie["comm"], "\\xff) Z 1 (\n");
    assert_eq!(namespace(&document(&["tree", &ns]), init.ns)["zombies"], 1);
    assert!(output(&["tree", &ns], 0).0.contains("1 zombie"));
    let_go(actor);
}

/// The holders of a namespace without processes, and its line in the table.
#[track_caller]
fn holders_of_empty(ns: u64) -> (Value, String) {
    let tree = document(&["tree"]);
    let found = namespace(&tree, ns);
    assert_eq!(found["processes"], 0, "{found:#}");
    assert_eq!(found["ns"]["level"], 1, "{found:#}");
    let parent = Who::myself().ns;
    assert_eq!(found["ns"]["parent"], parent, "{found:#}");
    assert!(found["ns"]["owner_uid"].is_number() && found.get("init").is_none(), "{found:#}");
    (found["holders"].clone(), output(&["tree", &ns.to_string()], 0).0)
}

fn a_namespace_held_by_a_file_is_shown_with_the_file() {
    let mut actor = still("still-held-by-a-file");
    let (holders, table) = holders_of_empty(actor.hear("ns"));
    assert_eq!(holders.as_array().map(Vec::len), Some(1), "{holders:#}");
    assert_eq!((&holders[0]["kind"], &holders[0]["pid"]), (&"fd".into(), &actor.pid().into()));
    assert!(table.contains("held by") && table.contains(" fd "), "{table}");
    let_go(actor);
}

fn a_namespace_held_by_a_mount_is_shown_with_the_mount() {
    let mut actor = still("still-held-by-a-mount");
    let (holders, table) = holders_of_empty(actor.hear("ns"));
    let place: String = actor.hear("place");
    assert_eq!((&holders[0]["kind"], &holders[0]["path"]), (&"mount".into(), &place.as_str().into()));
    assert!(table.contains(&format!("a mount at {place}")), "{table}");
    let_go(actor);
}

fn a_namespace_held_for_children_is_shown_with_their_parent() {
    let mut actor = still("still-held-by-unshare");
    let (holders, table) = holders_of_empty(actor.hear("ns"));
    assert_eq!((&holders[0]["kind"], &holders[0]["pid"]), (&"pid_for_children".into(), &actor.pid().into()));
    assert!(table.contains("whose children start there"), "{table}");
    let_go(actor);
}

fn a_pid_is_translated_from_every_namespace_where_it_is_visible() {
    let mut actor = still("still-nested");
    let (outer, inner): (Who, Who) = (actor.hear("outer"), actor.hear("inner"));
    let found = document(&["pid", "1", "--in", &inner.ns.to_string()]);
    let pids: Vec<u64> = found["levels"]
        .as_array()
        .expect("levels")
        .iter()
        .map(|level| level["pid"].as_u64().expect("a PID"))
        .collect();
    assert_eq!((pids.len(), pids[2]), (3, 1), "{found:#}");
    let namespaces: Vec<&Value> =
        found["levels"].as_array().expect("levels").iter().map(|level| &level["ns"]).collect();
    assert_eq!(namespaces[1..], [&Value::from(outer.ns), &Value::from(inner.ns)]);
    // The same process must be found from the host and from the namespace in between.
    for (pid, place) in [(pids[0], None), (pids[1], Some(outer.ns.to_string()))] {
        let pid = pid.to_string();
        let args = place.as_ref().map_or(vec!["pid", &pid], |place| vec!["pid", &pid, "--in", place]);
        assert_eq!(document(&args)["process"], found["process"]);
    }
    let own = std::process::id().to_string();
    let (_, stderr) = output(&["pid", &own, "--in", &inner.ns.to_string()], 1);
    assert!(stderr.contains("invisible there"), "{stderr}");
    let_go(actor);
}

fn unknown_targets_exit_with_1_and_invalid_arguments_with_2() {
    for (args, code, part) in [
        (&["pid", "4194303"][..], 1, "no process of PID 4194303"),
        (&["ps", "4194303"], 1, "no process of PID 4194303"),
        (&["tree", "pid:[4294967295]"], 1, "no PID namespace 4294967295"),
        (&["tree", "web"], 1, "A TARGET is"),
        (&["tree", "docker/wbe"], 1, "no container is called \"docker/wbe\""),
        (&["ps", "/proc/version"], 2, "not a namespace file"),
        (&["ps", "--fields", "pid,nope"], 2, "no field \"nope\""),
        (&["tree", "--fields", "pid"], 2, "no field \"pid\""),
        (&["tree", "--fields", "ns", "-o", "dot"], 2, "--fields"),
        (&["tree", "--watch", "-o", "dot"], 2, "--watch"),
        (&["ps", "--watch=0s"], 2, "use a time"),
        (&["pid", "0"], 2, "a number from 1 to 4194303"),
    ] {
        let (stdout, stderr) = output(args, code);
        assert!(stdout.is_empty() && stderr.contains(part), "{args:?}: {stderr}");
    }
    let (table, _) = output(&["ps", "--no-headers", "--fields", "pid", &std::process::id().to_string()], 0);
    assert!(table.lines().any(|line| line.trim() == std::process::id().to_string()), "{table}");
}

/// The facts of a process that cannot change between two snapshots.
fn lasting(process: &SnapshotProcess) -> (HostPid, Vec<u32>, Option<NsInum>, Option<u32>, Option<u64>) {
    let SnapshotProcess { pid, pids, start_boot_ns, uid, ns, .. } = process.clone();
    // /proc counts in ticks of 10 ms.
    (pid, pids, ns, uid, start_boot_ns.map(BootNs::ticks))
}

fn the_iterator_and_proc_agree() {
    let actor = still("still-nested");
    let procfs = Procfs::default();
    let proc = || procfs.snapshot(clock::boottime_ns(), &mut || {}).expect("read /proc");
    let before = proc();
    let mut iterator = TaskIterator::load().unwrap_or_else(|error| panic!("{error}"));
    let records = iterator.read(&mut || {}).unwrap_or_else(|error| panic!("{error}"));
    let mut seen =
        snapshot_of(clock::boottime_ns(), clock::boottime_ns(), &records).expect("decode the records");
    let iterated = seen.processes.len();
    procfs.add_left_out(&mut seen, &mut || {}).expect("read /proc");
    let after = proc();
    let seen_by_pid: BTreeMap<_, _> = seen.processes.iter().map(|process| (process.pid, process)).collect();
    let after_by_pid: BTreeMap<_, _> = after.processes.iter().map(|process| (process.pid, process)).collect();
    let mut compared = 0;
    for process in &before.processes {
        let same =
            after_by_pid.get(&process.pid).filter(|later| later.start_boot_ns == process.start_boot_ns);
        if same.is_some() {
            let found = seen_by_pid.get(&process.pid).unwrap_or_else(|| panic!("left out: {process:?}"));
            assert_eq!(lasting(found), lasting(process));
            compared += 1;
        }
    }
    assert!(compared > 3 && iterated > 3, "{compared} compared, {iterated} iterated");
    for (inum, ns) in &before.namespaces {
        // Skip a namespace whose init has died meanwhile.
        if after.namespaces.get(inum) == Some(ns) {
            let mut found = seen.namespaces[inum].clone();
            assert_eq!(found.born_boot_ns.map(BootNs::ticks), ns.born_boot_ns.map(BootNs::ticks));
            found.born_boot_ns = ns.born_boot_ns;
            assert_eq!(found, *ns);
        }
    }
    println!("{compared} processes compared, {iterated} of them iterated");
    let_go(actor);
}

fn every_pid_matches_nspid() {
    let actor = still("still-nested");
    let listed = document(&["ps"]);
    let mut compared = 0;
    for line in listed["processes"].as_array().expect("processes") {
        let status = std::fs::read_to_string(format!("/proc/{}/status", line["pid"])).unwrap_or_default();
        let Some(pids) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else { continue };
        let pids: Vec<Value> =
            pids.split_whitespace().filter_map(|pid| pid.parse::<u64>().ok().map(Value::from)).collect();
        assert_eq!(line["pids"], Value::from(pids), "{line}");
        compared += 1;
    }
    assert!(compared > 3, "{listed:#}");
    let_go(actor);
}

/// The namespaces that lsns lists, each with its number of processes.
fn lsns() -> BTreeMap<u64, u64> {
    let (status, stdout, stderr) = run(Command::new("lsns").args(["-t", "pid", "-J", "-o", "NS,NPROCS"]));
    assert!(status.success(), "lsns: {stderr}");
    let listed: Value = serde_json::from_str(&stdout).expect("parse the output of lsns");
    let rows = listed["namespaces"].as_array().expect("namespaces").iter();
    let rows = rows.map(|row| {
        // Some versions of lsns write numbers as strings.
        let number = |field: &str| {
            let value = &row[field];
            value
                .as_u64()
                .or_else(|| value.as_str()?.parse().ok())
                .unwrap_or_else(|| panic!("{field}: {row}"))
        };
        (number("ns"), number("nprocs"))
    });
    rows.collect()
}

fn namespaces_match_lsns() {
    let mut actor = still("still-nested");
    let (outer, inner): (Who, Who) = (actor.hear("outer"), actor.hear("inner"));
    let (before, tree, after) = (lsns(), document(&["tree"]), lsns());
    let own = Who::myself().ns;
    let mut compared = Vec::new();
    for (ns, processes) in before {
        // Skip namespaces whose processes changed meanwhile.
        if after.get(&ns) == Some(&processes) && ns != own {
            let found = namespace(&tree, ns);
            if found["processes"] == processes || [outer.ns, inner.ns].contains(&ns) {
                assert_eq!(found["processes"], processes, "{found:#}");
                compared.push(ns);
            } else {
                // The number may have changed and changed back. Then a second comparison is equal.
                assert_eq!(namespace(&document(&["tree"]), ns)["processes"], lsns()[&ns], "{found:#}");
            }
        }
    }
    assert!(compared.contains(&outer.ns) && compared.contains(&inner.ns), "{compared:?}");
    let_go(actor);
}

fn without_privilege_unknown_namespaces_are_counted() {
    let actor = still("still-nested");
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let copy = world_readable_copy(directory.path());
    let (status, stdout, stderr) = run(Command::new(copy).args(["ps", "-o", "json"]).uid(65534).gid(65534));
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("CAP_SYS_PTRACE"), "{stderr}");
    let listed: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!(listed["source"], "proc");
    assert!(listed["unread"]["namespaces"].as_u64() >= Some(2), "{}", listed["unread"]);
    let deep = listed["processes"].as_array().expect("processes").iter().find(|line| line["level"] == 2);
    let deep = deep.unwrap_or_else(|| panic!("no process at level 2: {listed:#}"));
    assert_eq!(deep["pids"][2], 1, "its PIDs must be known: {deep}");
    assert!(deep.get("ns").is_none(), "its namespace must be unknown: {deep}");
    let_go(actor);
}

/// Runs `ps` as uid 65534, with a /proc that is mounted with these options.
#[track_caller]
fn processes_seen_by_uid_65534(options: &'static str) -> (Value, String) {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let mut command = Command::new(world_readable_copy(directory.path()));
    command.args(["ps", "-o", "json"]);
    let prepare = move || {
        sys::unshare(libc::CLONE_NEWNS)?;
        sys::mount_privately()?;
        sys::mount_proc(std::path::Path::new("/proc"), options)?;
        sys::become_uid(65534)
    };
    // SAFETY: between fork and exec the closure makes system calls and allocates a few bytes. The C library allows a
    // child to allocate, because fork leaves its allocator consistent.
    unsafe { command.pre_exec(prepare) };
    let (status, stdout, stderr) = run(&mut command);
    assert_eq!(status.code(), Some(0), "{stderr}");
    (serde_json::from_str(&stdout).expect("one document"), stderr)
}

fn data_hidden_by_proc_is_unknown_and_not_absent() {
    let mut actor = still("still-nested");
    let outer: Who = actor.hear("outer");
    let (listed, stderr) = processes_seen_by_uid_65534("hidepid=1");
    let unknown = process(&listed, outer.pid as Pid);
    assert_eq!(*unknown, serde_json::json!({"pid": outer.pid}), "only its existence must be known");
    let alone = listed["unread"]["processes"].as_u64();
    assert!(alone >= Some(2) && stderr.contains("all but the PID of"), "{}: {stderr}", listed["unread"]);
    assert!(listed["unread"].get("hidden").is_none(), "{}", listed["unread"]);

    let (listed, stderr) = processes_seen_by_uid_65534("hidepid=2");
    assert_eq!(listed["unread"]["hidden"], true, "{listed:#}");
    assert!(stderr.contains("hidepid") && stderr.contains("CAP_SYS_PTRACE"), "{stderr}");
    let_go(actor);
}

fn chosen_fields_are_columns_and_members() {
    let mut actor = still("still-nested");
    let (outer, inner): (Who, Who) = (actor.hear("outer"), actor.hear("inner"));
    let ns = outer.ns.to_string();
    let listed = document(&["ps", &ns, "--fields", "pids,level"]);
    let first = listed["processes"][0].as_object().expect("a process");
    assert_eq!(first.keys().collect::<Vec<_>>(), ["level", "pids"]);
    let tree = document(&["tree", &ns, "--fields", "processes,children"]);
    let expected = serde_json::json!([
        {"children": [inner.ns], "processes": 1},
        {"children": [], "processes": 1}
    ]);
    assert_eq!(tree["namespaces"], expected);
    let (table, _) = output(&["tree", &ns, "--fields", "level,parent"], 0);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&rows[0], &rows[2]), (&vec!["LVL", "PARENT"], &vec!["2", &ns]), "{table}");
    let (table, _) =
        output(&["pid", "1", "--in", &inner.ns.to_string(), "--fields", "pid", "--no-headers"], 0);
    let last = table.lines().last().map(str::trim);
    assert_eq!((table.lines().count(), last), (3, Some("1")), "{table}");
    let (graph, _) = output(&["tree", &ns, "-o", "dot"], 0);
    assert!(graph.contains(&format!("  ns{ns} -> ns{};", inner.ns)), "{graph}");
    let_go(actor);
}

fn arguments_match_the_process() {
    let own = std::process::id();
    let arguments: Vec<String> = std::env::args().collect();
    let ns = own.to_string();
    let listed = document(&["ps", &ns, "--fields", "pid,args"]);
    let ours = process(&listed, own as Pid);
    assert_eq!(ours["args"].as_array().expect("arguments").len(), arguments.len(), "{ours}");
    assert_eq!(ours["args"][0], arguments[0], "{ours}");
    let (table, _) = output(&["ps", "--no-headers", "--fields", "pid,args", "--sort=-pid", &ns], 0);
    let line = table.lines().find(|line| line.trim_start().starts_with(&format!("{own} ")));
    assert!(line.is_some_and(|line| line.contains(&arguments[0])), "{table}");
    let pids: Vec<u32> =
        table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert!(pids.is_sorted_by(|one, other| one > other), "{pids:?}");
    let unasked = document(&["ps", &ns, "--sort", "args"]);
    assert_eq!(process(&unasked, own as Pid).get("args"), None, "arguments may hold secrets");
}
