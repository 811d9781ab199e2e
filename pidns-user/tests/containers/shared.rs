//! Containers that share a PID namespace, and containers whose cgroup does not contain their id.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use pidns_user::container::{ContainerCache, Roots};
use pidns_user::event::container::Runtime;
use rustix::{
    fs::{XattrFlags, setxattr},
    process::{Pid, Signal, kill_process},
};
use serde_json::{Value, json};

use crate::{
    runc::{Running, exec, run_for_output},
    scratch::{Scratch, name, run, sure_container_of, wait_until},
    stream::{Stream, lines, of_event},
};

fn ids(what: &str) -> [String; 2] {
    ["home", "side"].map(|last| format!("pidns-{what}-{}-{last}", std::process::id()))
}

/// Makes the container join the PID namespace of this process, or stay in the host's.
fn pid_namespace(spec: &mut Value, of: Option<u32>) {
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "pid");
    if let Some(pid) = of {
        namespaces.push(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
    }
}

fn document(args: &[&str]) -> Value {
    let (stdout, _) = run_for_output(args, 0);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"))
}

/// The ids of the containers of these processes, from `ps`.
fn containers_of(document: &Value) -> Vec<(u64, String)> {
    let all = document["processes"].as_array().expect("processes").iter();
    let id = |line: &Value| line["container"]["id"].as_str().unwrap_or_default().to_owned();
    all.map(|line| (line["pid"].as_u64().expect("a PID"), id(line))).collect()
}

#[test]
fn a_process_is_in_its_own_container_even_in_a_shared_namespace() {
    let scratch = Scratch::new();
    let [home, side] = ids("shared");
    let root = || Roots::host().runc;
    let first = Running::start_in(root(), &scratch, &home, &json!({}));
    let second = Running::start_with(root(), &scratch, &side, |spec| pid_namespace(spec, Some(first.pid)));
    let (home_pid, side_pid) = (u64::from(first.pid), u64::from(second.pid));

    let all = document(&["ps", &home, "--fields", "pid,container", "-o", "json"]);
    assert_eq!(containers_of(&all), [(home_pid, home.clone()), (side_pid, side.clone())], "{all:#}");
    let own = document(&["ps", &side, "--fields", "pid,container", "-o", "json"]);
    assert_eq!(containers_of(&own), [(side_pid, side.clone())], "{own:#}");
    let tree = document(&["tree", &side, "-o", "json"]);
    let namespace = &tree["namespaces"][0];
    assert_eq!(namespace["ns"]["container"]["id"], home, "expected the container of PID 1: {tree:#}");
    assert_eq!(namespace["other_containers"][0]["container"]["id"], side, "{tree:#}");
    assert_eq!(namespace["other_containers"][0]["processes"], 1, "{tree:#}");
    let (text, _) = run_for_output(&["explain", &side_pid.to_string()], 0);
    assert!(text.lines().next().is_some_and(|head| head.contains(&side)), "{text}");
    assert!(text.contains(&format!("it shares the PID namespace of runc/{home}")), "{text}");
    let (text, _) = run_for_output(&["explain", &side], 0);
    assert!(text.contains(&format!("Also in it  runc/{side}: ")), "{text}");
    let levels = document(&["pid", "1", "--in", &side, "-o", "json"]);
    assert_eq!(levels["process"]["pid"], home_pid, "{levels:#}");
}

#[test]
fn a_container_in_the_hosts_namespace_is_found_by_name() {
    let scratch = Scratch::new();
    let [_, side] = ids("host");
    let running = Running::start_with(Roots::host().runc, &scratch, &side, |spec| pid_namespace(spec, None));
    let own = document(&["ps", &side, "--fields", "pid,container", "-o", "json"]);
    assert_eq!(containers_of(&own), [(u64::from(running.pid), side.clone())], "{own:#}");
    let (text, _) = run_for_output(&["explain", &running.pid.to_string()], 0);
    assert!(text.lines().next().is_some_and(|head| head.contains(&side)), "{text}");
}

#[test]
fn the_stream_of_a_container_in_a_shared_namespace_has_its_processes() {
    let scratch = Scratch::new();
    let [home, side] = ids("stream");
    let root = || Roots::host().runc;
    let first = Running::start_in(root(), &scratch, &home, &json!({}));
    for (of, what) in [(Some(first.pid), "container"), (None, "host")] {
        let file = scratch.path(&format!("{what}.json"));
        let stream = Stream::start(&["-o", "json", "-c", &side], &file);
        let second = Running::start_with(root(), &scratch, &side, |spec| pid_namespace(spec, of));
        let side_pid = second.pid;
        // If the process ends before its exec event is read, its container is unknown.
        wait_until("the exec's event", || {
            fs::read_to_string(&file).is_ok_and(|text| text.contains("\"event\":\"process.exec\""))
        });
        drop(second);
        wait_until("the container's end", || !Path::new(&format!("/proc/{side_pid}")).exists());
        stream.end();
        let lines = lines(&file);
        let execs = of_event(&lines, "process.exec");
        let exec = execs
            .iter()
            .find(|line| line["process"]["pid"] == side_pid && line["filename"] == "/bin/busybox");
        let exec = exec.unwrap_or_else(|| panic!("{what}: no exec of {side_pid}: {lines:#?}"));
        assert_eq!(exec["process"]["container"]["id"], side.as_str(), "{what}: {exec:#}");
        let exits = of_event(&lines, "process.exit");
        let exit = exits.iter().find(|line| line["process"]["pid"] == side_pid);
        let exit = exit.unwrap_or_else(|| panic!("{what}: no exit of {side_pid}: {lines:#?}"));
        assert_eq!(exit["process"]["container"]["id"], side.as_str(), "{what}: {exit:#}");
        let of_home = lines.iter().filter(|line| line["process"]["pid"] == first.pid);
        assert_eq!(of_home.count(), 0, "{what}: no events of the other container");
    }
}

#[test]
fn a_recording_keeps_the_container_of_a_process_in_a_shared_namespace() {
    let scratch = Scratch::new();
    let [home, side] = ids("recorded");
    let root = || Roots::host().runc;
    let first = Running::start_in(root(), &scratch, &home, &json!({}));
    let second = Running::start_with(root(), &scratch, &side, |spec| pid_namespace(spec, Some(first.pid)));
    let (file, path) = (scratch.path("recording.ndjson"), scratch.arg("recording.ndjson"));
    let recorder = Stream::start(&["record", &path], &file);
    recorder.end();
    let own = document(&["ps", "--from", &path, &side, "--fields", "pid,container", "-o", "json"]);
    assert_eq!(containers_of(&own), [(u64::from(second.pid), side.clone())], "{own:#}");
    let (replayed, _) = run_for_output(&["replay", "-o", "json", "--snapshot", "-c", &side, &path], 0);
    assert!(replayed.contains(&format!("\"pid\":{}", second.pid)), "{replayed}");
}

/// A copy of the program with CAP_BPF and CAP_PERFMON for all users, as setcap(8) makes it: a `vfs_cap_data` of
/// revision 2 with the effective flag (include/uapi/linux/capability.h).
fn program_with_two_capabilities(scratch: &Scratch) -> PathBuf {
    let copy = scratch.path("pidns-trace");
    fs::copy(crate::program::path(), &copy).expect("copy the program");
    for path in [&scratch.path(""), &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("make the file executable");
    }
    let (revision_and_flag, perfmon_and_bpf) = (0x0200_0001_u32, 0b1100_0000_u32);
    let data: Vec<u8> =
        [revision_and_flag, 0, 0, perfmon_and_bpf, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    setxattr(&copy, "security.capability", &data, XattrFlags::empty()).expect("set the capabilities");
    copy
}

#[test]
fn with_two_capabilities_the_stream_names_the_same_containers_as_tree_and_reports_unread_data() {
    let scratch = Scratch::new();
    let made_up = format!("{:064x}", std::process::id());
    let [id, _] = ids("caps");
    let running = Running::start_with(Roots::host().runc, &scratch, &id, |spec| {
        spec["linux"]["cgroupsPath"] = json!(format!("/docker/{made_up}"));
    });
    let init = running.pid;
    let copy = program_with_two_capabilities(&scratch);
    let unprivileged = |args: &[&str]| {
        let mut command = Command::new(&copy);
        command.args(args).uid(65534).gid(65534).stdin(Stdio::null());
        command
    };
    let tree = run(&mut unprivileged(&["tree", "-o", "json"]));
    assert!(tree.contains(&made_up), "the cgroup names the container: {tree}");

    let (json, stderr) = (scratch.path("json"), scratch.path("words"));
    let file = |path: &Path| File::create(path).expect("create the file");
    let mut stream = unprivileged(&["-o", "json", "-e", "namespace.*"]);
    let mut stream = stream.stdout(file(&json)).stderr(file(&stderr)).spawn().expect("start the program");
    wait_until("the stream's start", || fs::metadata(&json).is_ok_and(|file| file.len() > 0));
    drop(running);
    wait_until("the container's end", || {
        let is_its_end =
            |line: &str| line.contains("namespace.init_exit") && line.contains(&format!("\"pid\":{init},"));
        fs::read_to_string(&json).is_ok_and(|text| text.lines().any(is_its_end))
    });
    let pid = Pid::from_raw(i32::try_from(stream.id()).expect("a PID")).expect("a PID");
    kill_process(pid, Signal::INT).expect("send the signal");
    assert!(stream.wait().expect("wait for the stream").success());
    let lines = lines(&json);
    let exits = of_event(&lines, "namespace.init_exit");
    let exit = exits.iter().find(|line| line["process"]["pid"] == init);
    let exit = exit.unwrap_or_else(|| panic!("no end of {init}: {lines:#?}"));
    assert_eq!(exit["ns"]["container"]["id"], made_up.as_str(), "{exit:#}");
    assert_eq!(exit["ns"]["container"]["by_cgroup_alone"], true, "{exit:#}");
    let stderr = fs::read_to_string(&stderr).expect("read the program's stderr");
    assert!(stderr.contains("/run/runc") && stderr.contains("CAP_DAC_READ_SEARCH"), "{stderr}");
}

#[test]
fn a_container_whose_cgroup_has_another_name_is_found_by_its_state() {
    let scratch = Scratch::new();
    let [id, bare] = ids("state");
    let root = scratch.path("runc");
    let roots = || Roots { runc: scratch.path("runc"), ..Roots::host() };
    let running = Running::start_with(root.clone(), &scratch, &id, |spec| {
        spec["linux"]["cgroupsPath"] = json!(format!("/pidns-test-{}/of-its-own", std::process::id()));
    });
    let container = sure_container_of(&mut ContainerCache::new(roots()), running.pid);
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Runc), &name(&id)));
    let joined = exec(&running.root, &scratch, &id);
    let mut cache = ContainerCache::new(roots());
    assert_eq!(sure_container_of(&mut cache, running.pid).id, name(&id));
    assert_eq!(
        sure_container_of(&mut cache, joined).id,
        name(&id),
        "a joining process is in the same cgroup"
    );
    drop(running);
    let _gone = fs::remove_dir(format!("/sys/fs/cgroup/pidns-test-{}", std::process::id()));

    // The state of a container without a separate cgroup does not name one.
    let running = Running::start_in(root, &scratch, &bare, &json!({}));
    let key = crate::scratch::process(running.pid);
    for cgroup in
        ["0::/\n", "0::/system.slice/ssh.service\n", "0::/user.slice/user-1000.slice/session-1.scope\n"]
    {
        let found = ContainerCache::new(roots()).find_by_cgroup(key, cgroup.as_bytes());
        let found = found.unwrap_or_else(|| panic!("{cgroup}"));
        assert_eq!((&found.id, found.is_confirmed()), (&name(&bare), true), "{cgroup}");
    }
    let other = crate::scratch::process(std::process::id());
    let found = ContainerCache::new(roots()).find_by_cgroup(other, b"0::/system.slice/ssh.service\n");
    assert!(found.is_some_and(|found| found.is_unit()), "another process of that unit is not in a container");
}
