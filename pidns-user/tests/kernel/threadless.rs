//! Runs the program where no thread and no process can be started. A machine without free PIDs is one that users need
//! to look into.

use std::ffi::c_uint;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::actor_handle::{Actor, patience, run, wait_in_time};
use crate::cgroups::{self, ScratchCgroup};
use crate::facts::Who;
use crate::forest::{let_go, still};
use crate::probes;
use crate::seen::{Seen, expect_code};
use crate::settings;
use crate::sys::{self, Pid};
use crate::tracer::{command, program, world_readable_copy};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(every_command_runs_in_a_full_pids_cgroup, needs probes::counting_cgroups),
    test!(a_stream_in_a_full_pids_cgroup_is_complete_and_ends_on_a_signal, needs probes::counting_cgroups),
    test!(an_unread_stream_in_a_full_pids_cgroup_ends_two_seconds_after_a_signal, needs probes::counting_cgroups),
    test!(a_plain_user_at_a_process_limit_can_take_snapshots_and_replay),
    test!(a_lack_of_descriptors_is_not_blamed_on_the_kernel),
];

/// A cgroup with room for one process, and a command that runs the program in it.
fn full() -> (ScratchCgroup, impl Fn(&[&str]) -> Command) {
    let root = cgroups::pids_controller().expect("the probe found the pids controller");
    let group = ScratchCgroup::make(&root);
    fs::write(format!("{}/pids.max", group.path()), "1").expect("set the limit");
    let procs = format!("{}/cgroup.procs", group.path());
    let command = move |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ >"$0" && exec "$@""#, &procs]).arg(program()).args(args);
        if !["tree", "ps", "pid", "explain", "replay"].contains(&args[0]) {
            settings::add_hooks(&mut command);
        }
        command
    };
    (group, command)
}

fn every_command_runs_in_a_full_pids_cgroup() {
    let mut actor = still("still-nested");
    let outer: Who = actor.hear("outer");
    let target = outer.ns.to_string();
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let recording = directory.path().join("recording");
    let recording = recording.to_str().expect("UTF-8");
    let (_group, command) = full();
    for (args, expected) in [
        (&["tree", &target][..], &target[..]),
        (&["ps", &target], "1"),
        (&["explain", &target], &target),
        (&["pid", &outer.pid.to_string()], &target),
        (&["tree", "--runtime-api", &target], &target),
        (&["record", recording, "--duration", "300ms"], ""),
        (&["replay", recording, "-o", "json"], "stream.end"),
        (&["replay", recording, "-o", "json", "--speed", "100"], "stream.end"),
        (&["--snapshot", "-o", "json", "--duration", "300ms"], "stream.end"),
        (&["-o", "json", "--duration", "300ms", "--runtime-api"], "stream.end"),
        (&["check"], "BTF"),
    ] {
        let (status, stdout, stderr) = run(&mut command(args));
        assert_eq!(status.code(), Some(0), "{args:?}: {stdout}{stderr}");
        assert!(stdout.contains(expected) && !stderr.contains("panicked"), "{args:?}: {stdout}{stderr}");
    }
    let_go(actor);
}

fn a_stream_in_a_full_pids_cgroup_is_complete_and_ends_on_a_signal() {
    let (_group, command) = full();
    let mut process = command(&["-o", "json", "-e", "all"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the program");
    let mut stdout = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
    let mut text = String::new();
    stdout.read_line(&mut text).expect("read the first line");
    assert!(text.contains("stream.start"), "the first line: {text}");
    let report = Actor::start("exit-with-members", &["3", "0"]).finish();
    sys::kill(process.id() as Pid, libc::SIGINT).expect("send the signal");
    stdout.read_to_string(&mut text).expect("UTF-8");
    let status = wait_in_time(&mut process, "pidns-trace after a signal");
    let stderr = io::read_to_string(process.stderr.take().expect("stderr is a pipe")).expect("UTF-8");
    expect_code(status, 0, &stderr);
    assert!(stderr.contains("cannot start a thread"), "{stderr}");
    // The check of the stream requires its end.
    let seen = Seen::check(text.lines().map(str::to_owned).collect(), stderr);
    let is_the_actor = |event: &serde_json::Value| event["process"]["pid"] == report.actor;
    assert!(seen.events.iter().any(is_the_actor), "the stream must show the actor: {text}");
}

fn an_unread_stream_in_a_full_pids_cgroup_ends_two_seconds_after_a_signal() {
    let (_group, command) = full();
    let mut process = command(&["-o", "json", "-e", "all"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the program");
    let mut stdout = BufReader::with_capacity(1, process.stdout.take().expect("stdout is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("read the first line");
    Actor::start("exit-with-members", &["300", "0"]).finish();
    thread::sleep(patience(1));
    let began = Instant::now();
    sys::kill(process.id() as Pid, libc::SIGINT).expect("send the signal");
    let status = wait_in_time(&mut process, "pidns-trace after a signal");
    let took = began.elapsed();
    let stderr = io::read_to_string(process.stderr.take().expect("stderr is a pipe")).expect("UTF-8");
    expect_code(status, 2, &stderr);
    assert!(took >= Duration::from_millis(1_900) && took < patience(5), "the end took {took:?}");
    assert!(stderr.contains("not written"), "{stderr}");
}

/// A command that runs the program with this resource limit. RLIMIT_NPROC does not limit root, so for that the program
/// runs as a plain user.
fn limited(program: &Path, resource: c_uint, most: u64) -> Command {
    let mut command = Command::new(program);
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    let set_limit = move || {
        // SAFETY: limit lives across the call.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: setrlimit is async-signal-safe.
    unsafe { command.pre_exec(set_limit) };
    command
}

fn a_plain_user_at_a_process_limit_can_take_snapshots_and_replay() {
    const NOBODY: u32 = 65534;
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let copy = world_readable_copy(directory.path());
    let recording = directory.path().join("recording");
    let file = recording.to_str().expect("UTF-8");
    let (status, _, stderr) = run(&mut command(&["record", file, "--duration", "100ms"]));
    expect_code(status, 0, &stderr);
    fs::set_permissions(&recording, fs::Permissions::from_mode(0o644)).expect("make the recording readable");
    for (args, expected) in [
        (&["tree"][..], "PROCS"),
        (&["ps"], "PID"),
        (&["tree", "--from", file], "PROCS"),
        (&["replay", file, "-o", "json"], "stream.end"),
    ] {
        let mut command = limited(&copy, libc::RLIMIT_NPROC, 1);
        let (status, stdout, stderr) = run(command.args(args).uid(NOBODY).gid(NOBODY));
        assert_eq!(status.code(), Some(0), "{args:?}: {stdout}{stderr}");
        assert!(stdout.contains(expected) && !stderr.contains("panicked"), "{args:?}: {stdout}{stderr}");
    }
}

fn a_lack_of_descriptors_is_not_blamed_on_the_kernel() {
    // Try limits from far too few to enough. No error may blame the kernel.
    let (mut refused, mut ran) = (0, 0);
    for most in (4..150).step_by(8) {
        let mut command = limited(&program(), libc::RLIMIT_NOFILE, most);
        let (status, _, stderr) = run(command.args(["-o", "json", "--duration", "10ms"]));
        match status.code() {
            Some(0) => ran += 1,
            Some(2) => {
                refused += 1;
                assert!(stderr.contains("Too many open files"), "with {most}: {stderr}");
            }
            _ => panic!("with {most}: {status}: {stderr}"),
        }
        assert!(!stderr.contains("panicked") && !stderr.contains("this kernel"), "with {most}: {stderr}");
    }
    assert!(refused > 3 && ran > 3, "{refused} were refused, {ran} ran");
}
