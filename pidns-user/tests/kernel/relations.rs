//! Compares the relations of processes and namespaces in snapshots with /proc: tracers, cgroups and mounts of proc.

use std::collections::BTreeSet;
use std::fs;

use pidns_user::event::identity::{BootNs, HostPid};
use pidns_user::procfs::Procfs;
use serde_json::Value;

use crate::actor_handle::Actor;
use crate::cgroups::{self, ScratchCgroup};
use crate::facts::{Who, inode, status_field};
use crate::forest::{document, let_go, namespace, output, process, still};
use crate::probes;
use crate::recordings::{Recorder, run_on};
use crate::sys::Pid;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_traced_process_is_shown_with_its_tracer),
    test!(every_tracer_matches_proc),
    test!(a_process_moved_into_a_cgroup_is_shown_with_its_id, needs probes::unified_cgroup),
    test!(recordings_have_subreapers_and_cgroups_too, needs probes::unified_cgroup),
    test!(the_path_of_a_cgroup_matches_proc),
    test!(every_cgroup_id_is_the_inode_number_of_its_directory, needs probes::unified_cgroup),
    test!(a_mounted_proc_holds_the_namespace_that_it_shows),
    test!(a_mounted_proc_without_a_process_is_reported_without_a_number),
    test!(the_namespace_of_a_partly_mounted_proc_is_unknown),
];

fn a_traced_process_is_shown_with_its_tracer() {
    let mut actor = still("still-traced");
    let traced: Who = actor.hear("traced");
    let thread: Pid = actor.hear("tracing thread");
    assert_ne!(thread, actor.pid(), "the tracer must be a thread that is not the first one");
    let members = document(&["ps", &traced.ns.to_string()]);
    assert_eq!(process(&members, traced.pid)["tracer"], actor.pid(), "{members:#}");
    let all = document(&["ps"]);
    assert!(process(&all, actor.pid()).get("tracer").is_none(), "no process traces the tracer");
    let proc = Procfs::default().snapshot(BootNs(0), &mut || {}).expect("read /proc");
    let found = proc
        .processes
        .iter()
        .find(|process| process.pid == HostPid(traced.pid as u32))
        .expect("find the traced process");
    assert_eq!(found.tracer, Some(HostPid(actor.pid() as u32)), "the tracer from /proc");
    let (table, _) = output(&["ps", "--no-headers", "--fields", "pid,tracer", &traced.ns.to_string()], 0);
    let row: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(row, [traced.pid.to_string(), actor.pid().to_string()]);
    let (table, _) = output(&["ps", "--no-headers", "--fields", "pid,tracer"], 0);
    let untraced = |line: &str| line.split_whitespace().eq([actor.pid().to_string().as_str(), "-"]);
    assert!(table.lines().any(untraced), "{table}");
    let_go(actor);
}

/// The process that traces this process's first thread, from /proc.
fn tracer(pid: &Value) -> Option<Pid> {
    let tid = status_field(pid, "TracerPid")?;
    if tid == 0 { Some(0) } else { status_field(tid, "Tgid") }
}

fn every_tracer_matches_proc() {
    let actor = still("still-traced");
    let before = document(&["ps", "--fields", "pid"]);
    let before: Vec<_> = listed(&before).map(|line| (line["pid"].clone(), tracer(&line["pid"]))).collect();
    let now = document(&["ps"]);
    let (mut compared, mut traced) = (0, 0);
    for (pid, tracer_before) in before {
        let Some(line) = listed(&now).find(|line| line["pid"] == pid) else { continue };
        // Skip processes that were seized or released meanwhile.
        let Some(expected) = tracer(&pid).filter(|tracer| Some(*tracer) == tracer_before) else { continue };
        assert_eq!(line["tracer"].as_i64().unwrap_or(0), i64::from(expected), "{line}");
        compared += 1;
        traced += u32::from(expected != 0);
    }
    assert!(compared > 3 && traced > 0, "{compared} compared, {traced} of them traced");
    println!("{compared} processes compared, {traced} of them traced");
    let_go(actor);
}

fn a_process_moved_into_a_cgroup_is_shown_with_its_id() {
    let group = ScratchCgroup::make(cgroups::unified_cgroups().expect("the probe found cgroup v2"));
    let mut actor = still("still-nested");
    let outer: Who = actor.hear("outer");
    let id_of = |pid: Pid| process(&document(&["ps"]), pid)["cgroup_id"].clone();
    let before = id_of(outer.pid);
    fs::write(format!("{}/cgroup.procs", group.path()), outer.pid.to_string()).expect("move the process");
    let id = inode(group.path()).expect("read the cgroup's inode number");
    assert_ne!(before, id, "the process was in another cgroup before");
    assert_eq!(id_of(outer.pid), id);
    assert_eq!(id_of(actor.pid()), before, "a process that was not moved");
    let proc = Procfs::default().snapshot(BootNs(0), &mut || {}).expect("read /proc");
    let found = proc
        .processes
        .iter()
        .find(|process| process.pid == HostPid(outer.pid as u32))
        .expect("find the moved process");
    assert_eq!(found.cgroup_id, Some(id), "the cgroup id from /proc");
    let (table, _) = output(&["ps", "--no-headers", "--fields", "pid,cgroup", &outer.pid.to_string()], 0);
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(&outer.pid.to_string()));
    let shown = row.and_then(|row| row.split_whitespace().nth(1)).expect("a path");
    assert!(shown.len() > 1 && group.path().ends_with(shown), "{table}");
    let_go(actor);
}

fn recordings_have_subreapers_and_cgroups_too() {
    let group = ScratchCgroup::make(cgroups::unified_cgroups().expect("the probe found cgroup v2"));
    let mut actor = still("still-subreaper");
    let (init, member): (Who, Who) = (actor.hear("init"), actor.hear("member"));
    fs::write(format!("{}/cgroup.procs", group.path()), member.pid.to_string()).expect("move the process");
    let (id, ns) = (inode(group.path()).expect("read the cgroup's inode number"), init.ns.to_string());
    let (_directory, file) = Recorder::start("it.ndjson", &[]).stop();
    let recorded = |args: &[&str]| {
        let (code, text, stderr) = run_on(&file, args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        text
    };
    let from_file = |args: &[&str]| -> Value {
        serde_json::from_str(&recorded(args)).unwrap_or_else(|error| panic!("{error}"))
    };
    for listed in [document(&["ps", &ns]), from_file(&["ps", &ns, "-o", "json"])] {
        let (of_init, of_member) = (process(&listed, init.pid), process(&listed, member.pid));
        assert_eq!(
            (&of_init["subreaper"], &of_member["subreaper"]),
            (&false.into(), &true.into()),
            "{listed:#}"
        );
        assert_eq!(of_member["cgroup_id"], id, "{listed:#}");
        assert_ne!(of_init["cgroup_id"], id, "{listed:#}");
        let path = of_member["cgroup"].as_str().expect("a path");
        assert!(path.len() > 1 && group.path().ends_with(path), "{path} is not {}", group.path());
    }
    let (fields, target) = (["--no-headers", "--fields", "pid,subreaper,cgroup"], member.pid.to_string());
    let args = [&["ps"], &fields[..], &[&ns]].concat();
    for table in [output(&args, 0).0, recorded(&args)] {
        let row = |who: &Who| {
            let row = table.lines().find(|line| line.split_whitespace().next() == Some(&who.pid.to_string()));
            row.unwrap_or_else(|| panic!("no {} in {table}", who.pid)).split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!((row(&init)[1], row(&member)[1]), ("-", "yes"), "{table}");
        assert!(group.path().ends_with(row(&member)[2]), "{table}");
    }
    for text in [output(&["explain", &target], 0).0, recorded(&["explain", &target])] {
        assert!(text.contains("it adopts the orphans among its descendants"), "{text}");
        let name = group.path().rsplit('/').next().expect("a name");
        assert!(text.lines().any(|line| line.contains("Cgroup") && line.ends_with(name)), "{text}");
    }
    let_go(actor);
}

fn the_path_of_a_cgroup_matches_proc() {
    let path = |pid: &Value| -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let paths = |wanted: &'static str| {
            text.lines().filter_map(move |line| {
                let mut parts = line.splitn(3, ':');
                let (_, list, path) = (parts.next()?, parts.next()?, parts.next()?);
                let is_wanted = if wanted.is_empty() {
                    list.is_empty()
                } else {
                    list.split(',').any(|one| one == wanted)
                };
                (is_wanted || wanted == "*").then(|| path.to_owned())
            })
        };
        let mut all = paths("").chain(paths("pids")).chain(paths("*"));
        all.clone().find(|path| path != "/").or_else(|| all.next())
    };
    let before = document(&["ps", "--fields", "pid"]);
    let before: Vec<_> = listed(&before).map(|line| (line["pid"].clone(), path(&line["pid"]))).collect();
    let now = document(&["ps"]);
    let mut compared = 0;
    for (pid, path_before) in before {
        let Some(line) = listed(&now).find(|line| line["pid"] == pid) else { continue };
        // Skip processes that were moved or ended meanwhile.
        let Some(expected) = path(&pid).filter(|found| Some(found) == path_before.as_ref()) else { continue };
        assert_eq!(line["cgroup"], *expected, "{line}");
        compared += 1;
    }
    assert!(compared > 3, "{now:#}");
}

/// The inode number of its cgroup's directory. `None` if it has ended.
fn folder_of_cgroup(pid: &Value) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).expect("a cgroup v2 line");
    inode(&format!("{}{path}", cgroups::unified_cgroups()?)).ok()
}

fn every_cgroup_id_is_the_inode_number_of_its_directory() {
    let before = document(&["ps", "--fields", "pid"]);
    let before: Vec<_> =
        listed(&before).map(|line| (line["pid"].clone(), folder_of_cgroup(&line["pid"]))).collect();
    let now = document(&["ps"]);
    let proc = Procfs::default().snapshot(BootNs(0), &mut || {}).expect("read /proc");
    let mut compared = 0;
    for (pid, folder) in before {
        let Some(line) = listed(&now).find(|line| line["pid"] == pid) else { continue };
        // Skip processes that were moved meanwhile.
        let Some(expected) = folder_of_cgroup(&pid).filter(|found| Some(*found) == folder) else { continue };
        if line["state"] == "Z" || line["exiting"] == true {
            // Once it is released, the kernel assigns it to the root cgroup.
            continue;
        }
        assert_eq!(line["cgroup_id"], expected, "{line}");
        let found = proc.processes.iter().find(|process| pid == process.pid.0);
        assert!(found.is_none_or(|found| found.cgroup_id == Some(expected)), "from /proc: {found:?}");
        compared += 1;
    }
    assert!(compared > 3, "{now:#}");
    println!("{compared} processes compared");
}

fn listed(document: &Value) -> impl Iterator<Item = &Value> {
    document["processes"].as_array().expect("processes").iter()
}

/// The mounts of proc in these mount namespaces that hold this namespace.
fn proc_mounts(tree: &Value, ns: u64, mount_namespaces: &[u64]) -> Vec<(String, u64)> {
    let holders = namespace(tree, ns)["holders"].as_array().expect("holders");
    let mounts = holders.iter().filter(|holder| holder["kind"] == "proc_mount");
    let found = mounts.map(|mount| {
        assert!(mount["pid"].is_number(), "expected the process that sees the mount: {mount}");
        let path = mount["path"].as_str().expect("a path").to_owned();
        (path, mount["mount_ns"].as_u64().expect("a mount namespace"))
    });
    found.filter(|(_, mount_ns)| mount_namespaces.contains(mount_ns)).collect()
}

/// The mounts of proc in this mount namespace whose namespace is unknown.
fn unnamed(tree: &Value, mount_ns: u64) -> Vec<Value> {
    let all = tree.get("unnamed_proc_mounts").map(|all| all.as_array().expect("a list").clone());
    all.unwrap_or_default().into_iter().filter(|mount| mount["mount_ns"] == mount_ns).collect()
}

/// The actor, with the mount point and the mount namespace of its proc.
fn shown(situation: &str) -> (Actor, String, u64) {
    let mut actor = still(situation);
    let (place, mount_ns) = (actor.hear("place"), actor.hear("mount namespace"));
    (actor, place, mount_ns)
}

fn a_mounted_proc_holds_the_namespace_that_it_shows() {
    let (mut actor, place, outside) = shown("still-shown-by-procs");
    let (init, inside): (Who, u64) = (actor.hear("init"), actor.hear("init's mount namespace"));
    let tree = document(&["tree"]);
    let found: BTreeSet<_> = proc_mounts(&tree, init.ns, &[outside, inside]).into_iter().collect();
    // The init's mount namespace also has a copy of the outer mount.
    let expected = [("/proc".to_owned(), inside), (place.clone(), outside), (place.clone(), inside)];
    assert_eq!(found, BTreeSet::from(expected), "{tree:#}");
    assert!(unnamed(&tree, outside).is_empty() && unnamed(&tree, inside).is_empty(), "{tree:#}");
    // The outer mount namespace has a copy of the host's /proc.
    let host = Who::myself().ns;
    assert!(proc_mounts(&tree, host, &[outside]).contains(&("/proc".to_owned(), outside)), "{tree:#}");
    let (table, _) = output(&["tree", &init.ns.to_string()], 0);
    assert!(
        !table.contains("held by") && !table.contains(&place),
        "a namespace with a process shows no holders: {table}"
    );
    actor.go();
    let _: bool = actor.hear("orphaned");
    actor.go();
    let _: bool = actor.hear("unmounted");
    let_go(actor);
}

fn a_mounted_proc_without_a_process_is_reported_without_a_number() {
    let (mut actor, place, outside) = shown("still-shown-by-procs");
    let init: Who = actor.hear("init");
    actor.go();
    let _: bool = actor.hear("orphaned");
    let (stdout, stderr) = output(&["tree", "-o", "json"], 0);
    let tree: Value = serde_json::from_str(&stdout).expect("one document");
    assert!(
        !tree["namespaces"].as_array().expect("namespaces").iter().any(|line| line["ns"]["inum"] == init.ns)
    );
    let expected =
        serde_json::json!({"path": place, "mount_ns": outside, "pid": actor.pid(), "why": "no_process"});
    assert_eq!(unnamed(&tree, outside), [expected]);
    assert!(stderr.contains("without processes") && stderr.contains(&place), "{stderr}");
    actor.go();
    let _: bool = actor.hear("unmounted");
    let (stdout, stderr) = output(&["tree", "-o", "json"], 0);
    let tree: Value = serde_json::from_str(&stdout).expect("one document");
    assert!(unnamed(&tree, outside).is_empty() && !stderr.contains(&place), "{stderr}{tree:#}");
    let_go(actor);
}

fn the_namespace_of_a_partly_mounted_proc_is_unknown() {
    let (mut actor, place, outside) = shown("still-shown-by-a-bound-proc");
    let init: Who = actor.hear("init");
    let tree = document(&["tree"]);
    assert!(proc_mounts(&tree, init.ns, &[outside]).is_empty(), "{tree:#}");
    let [mount] = &unnamed(&tree, outside)[..] else { panic!("{tree:#}") };
    assert_eq!((&mount["path"], &mount["why"]), (&format!("{place}/part").into(), &"out_of_sight".into()));
    let_go(actor);
}
