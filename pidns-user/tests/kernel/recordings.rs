//! Tests of `record`, `replay` and `--from`: a recording must contain everything that existed and happened.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pidns_user::{event::Body, model::World, source::recording::Recording};
use serde_json::Value;

use crate::actor_handle::{Actor, patience, run, wait_in_time};
use crate::again;
use crate::facts::Who;
use crate::sys::{self, Pid};
use crate::tracer::{command, program, world_readable_copy};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_recording_contains_earlier_processes),
    test!(a_recording_covers_its_whole_duration),
    test!(a_recording_made_under_load_ends_with_the_real_state),
    test!(another_snapshot_repairs_a_loss),
    test!(a_replay_rebuilds_the_recorders_model),
    test!(short_lived_namespaces_in_a_loss_are_not_confused),
    test!(the_dead_are_found_in_a_recording),
    test!(a_damaged_recording_is_read_up_to_the_damage),
    test!(an_existing_file_is_not_overwritten),
    test!(a_full_disk_is_an_error_that_names_the_file),
    test!(a_recording_is_read_without_privileges),
    test!(without_privilege_nothing_is_written),
    test!(nothing_is_written_if_the_ebpf_object_does_not_load),
];

const WORKERS: &str = "2";
const SECONDS_FOR_A_STORM: u64 = 120;

/// A running recorder that has taken its first snapshot.
pub(crate) struct Recorder {
    process: Child,
    file: PathBuf,
    directory: Option<tempfile::TempDir>,
}

impl Recorder {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("create a temporary directory");
        let file = directory.path().join(name);
        let path = file.to_str().expect("a temporary name is UTF-8");
        let mut process = command(&[&["record", path], args].concat());
        let process = process.stderr(Stdio::null()).spawn().expect("start the recorder");
        let recorder = Self { process, file, directory: Some(directory) };
        // The first flush has the start of the stream and the first snapshot.
        let deadline = Instant::now() + patience(60);
        while fs::metadata(&recorder.file).map_or(0, |file| file.len()) == 0 {
            assert!(Instant::now() < deadline, "nothing was recorded");
            thread::sleep(Duration::from_millis(20));
        }
        recorder
    }

    /// Whether such an event is in the file already.
    pub(crate) fn has(&self, is_it: impl Fn(&Value) -> bool) -> bool {
        let text = fs::read_to_string(&self.file).expect("read the recording");
        // The last line may not be complete yet.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).any(|event| is_it(&event))
    }

    pub(crate) fn stop(mut self) -> (tempfile::TempDir, PathBuf) {
        sys::kill(self.process.id() as Pid, libc::SIGINT).expect("stop the recorder");
        let status = wait_in_time(&mut self.process, "pidns-trace record");
        assert_eq!(status.code(), Some(0), "a recording must exit with 0");
        let recording = Recording::open(&self.file).expect("open the recording");
        recording.map_while(Result::ok).for_each(|event| again::hear_event(&event));
        (self.directory.take().expect("the recorder has a directory"), self.file.clone())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _gone_already = self.process.kill();
            let _reaped = self.process.wait();
        }
    }
}

pub(crate) fn run_on(file: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program());
    match args {
        ["replay", rest @ ..] => command.arg("replay").arg(file).args(rest),
        args => command.args(args).arg("--from").arg(file),
    };
    let (status, stdout, stderr) = run(&mut command);
    (status.code(), stdout, stderr)
}

/// A process's identity, and the fields that snapshots and recordings share.
pub(crate) type Fact = (Vec<u64>, u64, Option<u64>, bool);

/// The members of this namespace in the output of `ps`, by PID on the host.
#[track_caller]
fn members(document: &str, ns: u64) -> BTreeMap<u64, Fact> {
    let document: Value =
        serde_json::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
    let all = document["processes"].as_array().expect("processes");
    all.iter()
        .filter(|process| process["ns"] == ns)
        .map(|process| {
            let pids = process["pids"].as_array().expect("PIDs").iter().filter_map(Value::as_u64).collect();
            let start = process["start_boot_ns"].as_u64().expect("a start");
            let fact = (pids, start, process["ppid"].as_u64(), process["zombie"] == true);
            (process["pid"].as_u64().expect("a PID"), fact)
        })
        .collect()
}

#[track_caller]
pub(crate) fn expect_the_same(file: &Path, ns: u64) -> BTreeMap<u64, Fact> {
    let (status, live, stderr) = run(Command::new(program()).args(["ps", "-o", "json"]));
    assert!(status.success(), "{stderr}");
    let (code, recorded, stderr) = run_on(file, &["ps", "-o", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let live = members(&live, ns);
    assert_eq!(members(&recorded, ns), live);
    live
}

/// Ends a storm that has finished its lives.
fn end_storm(mut storm: Actor) {
    storm.go();
    let _: Who = storm.hear("straggler");
    storm.go();
    storm.finish();
}

/// The end of a recording has the time of the end, even if the machine was quiet before.
fn a_recording_covers_its_whole_duration() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let file = directory.path().join("quiet.json");
    let path = file.to_str().expect("a temporary name is UTF-8");
    let (status, _, stderr) = run(&mut command(&["record", path, "--duration", "1s"]));
    assert!(status.success(), "{stderr}");
    let text = fs::read_to_string(&file).expect("read the recording");
    let boot_ns = |line: Option<&str>| {
        let event: Value = serde_json::from_str(line.expect("a line")).expect("JSON");
        event["boot_ns"].as_u64().expect("a time")
    };
    let lasted = boot_ns(text.lines().last()) - boot_ns(text.lines().next());
    assert!(lasted >= 990_000_000, "{lasted} ns");
    let (status, _, stderr) = run(&mut command(&["tree", "--from", path, "--at", "+950ms"]));
    assert!(status.success(), "{stderr}");
}

/// Everything in this situation existed before the recording began, so no event mentions it.
fn a_recording_contains_earlier_processes() {
    let mut actor = Actor::start("still-zombie", &[]);
    let _: bool = actor.hear("ready");
    let init: Who = actor.hear("init");
    let recorder = Recorder::start("it.ndjson", &[]);
    let (_directory, file) = recorder.stop();
    let found = expect_the_same(&file, init.ns);
    assert_eq!(found.len(), 2, "expected the init and its zombie: {found:?}");
    assert!(found.values().any(|(.., zombie)| *zombie), "{found:?}");
    let (code, tree, stderr) = run_on(&file, &["tree", "--no-headers", &init.ns.to_string()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(tree.contains(&init.ns.to_string()), "{tree}");
    actor.go();
    actor.finish();
}

fn a_recording_made_under_load_ends_with_the_real_state() {
    let mut storm = Actor::start("storm", &["3000", WORKERS]);
    let init: Who = storm.hear("init");
    let recorder = Recorder::start("it.ndjson.zst", &[]);
    storm.go();
    let mut actor = Actor::start("still-nested", &[]);
    let _: bool = actor.hear("ready");
    let inner: Who = actor.hear("inner");
    let _: u64 = storm.hear_within(SECONDS_FOR_A_STORM, "lives");
    let (_directory, file) = recorder.stop();
    assert_eq!(expect_the_same(&file, inner.ns).len(), 1);
    expect_the_same(&file, init.ns);
    let (code, exits, stderr) =
        run_on(&file, &["replay", "-o", "json", "-e", "process.exit", "-n", &init.ns.to_string()]);
    assert_eq!(code, Some(0), "{stderr}");
    let exits = exits.lines().filter(|line| line.contains(r#""event":"process.exit""#)).count();
    assert!(exits >= 3000, "the storm's exits must be shown: {exits}");
    end_storm(storm);
    actor.go();
    actor.finish();
}

fn another_snapshot_repairs_a_loss() {
    let mut storm = Actor::start("storm", &["3000", WORKERS]);
    let init: Who = storm.hear("init");
    let recorder = Recorder::start("it.ndjson", &["--ring-size", "4K"]);
    let pid = recorder.process.id() as Pid;
    sys::kill(pid, libc::SIGSTOP).expect("stop the recorder");
    storm.go();
    let mut actor = Actor::start("still-zombie", &[]);
    let _: bool = actor.hear("ready");
    let zombies: Who = actor.hear("init");
    let _: u64 = storm.hear_within(SECONDS_FOR_A_STORM, "lives");
    sys::kill(pid, libc::SIGCONT).expect("continue the recorder");
    // At its end the recorder would wait at most a second for that snapshot, so wait here.
    let has = |event: &str| {
        let text = fs::read_to_string(&recorder.file).expect("read the recording");
        text.contains(&format!(r#""event":"{event}""#))
    };
    let deadline = Instant::now() + patience(20);
    while !(has("stream.lost") && has("stream.resync")) {
        assert!(Instant::now() < deadline, "the loss was not reported and repaired in time");
        thread::sleep(Duration::from_millis(50));
    }
    let (_directory, file) = recorder.stop();
    assert_eq!(expect_the_same(&file, zombies.ns).len(), 2);
    expect_the_same(&file, init.ns);
    end_storm(storm);
    actor.go();
    actor.finish();
}

/// The last line has the state of the recorder's own model at its end.
fn a_replay_rebuilds_the_recorders_model() {
    for ring in ["4M", "4K"] {
        let mut storm = Actor::start("storm", &["3000", WORKERS]);
        let _: Who = storm.hear("init");
        let recorder = Recorder::start("it.ndjson.zst", &["--ring-size", ring]);
        storm.go();
        let mut actor = Actor::start("still-nested", &[]);
        let _: bool = actor.hear("ready");
        let _: u64 = storm.hear_within(SECONDS_FOR_A_STORM, "lives");
        let (_directory, file) = recorder.stop();
        let mut world = World::default();
        let mut last = None;
        for event in Recording::open(&file).expect("open the recording") {
            let event = event.expect("read the recording");
            world.apply(&event);
            last = Some(event.body);
        }
        let Some(Body::StreamEnd { model: Some(model), lost, .. }) = last else { panic!("no end: {last:?}") };
        assert_eq!(model.processes, world.processes().count() as u64, "ring of {ring}");
        assert_eq!(model.namespaces, world.namespaces().count() as u64, "ring of {ring}");
        let surprises = world.inconsistencies();
        let counts = [
            ("ends_unseen", surprises.ends_unseen),
            ("after_the_end", surprises.after_the_end),
            ("destructions_unseen", surprises.destructions_unseen),
            ("beginnings_unseen", surprises.beginnings_unseen),
        ];
        for (kind, count) in counts {
            assert_eq!(model.surprises.get(kind).copied().unwrap_or(0), count, "{kind}, ring of {ring}");
            assert!(count == 0 || !lost.is_empty(), "{count} {kind} although nothing was lost");
        }
        end_storm(storm);
        actor.go();
        actor.finish();
    }
}

/// A namespace, by its inode number and its kernel id.
type Space = (u64, Option<u64>);

/// The namespaces below the host's, each with its parent's inode number, its number of processes, and its number of
/// zombies.
fn namespaces(document: &str) -> BTreeMap<Space, (Option<u64>, u64, u64)> {
    let document: Value =
        serde_json::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
    let all = document["namespaces"].as_array().expect("namespaces");
    all.iter()
        .filter(|node| node["ns"]["level"] != 0)
        .map(|node| {
            let identity = (node["ns"]["inum"].as_u64().expect("a number"), node["ns"]["kernel_id"].as_u64());
            let count = |name: &str| node[name].as_u64().expect("a count");
            (identity, (node["ns"]["parent"].as_u64(), count("processes"), count("zombies")))
        })
        .collect()
}

/// Each namespace reuses the inode number of the one before it.
fn short_lived_namespaces_in_a_loss_are_not_confused() {
    let mut first = Actor::start("still-zombie", &[]);
    let _: bool = first.hear("ready");
    let recorder = Recorder::start("it.ndjson", &["--ring-size", "4K"]);
    let pid = recorder.process.id() as Pid;
    sys::kill(pid, libc::SIGSTOP).expect("stop the recorder");
    first.go();
    first.finish();
    (0..10).for_each(|_| drop(Actor::start("zombie", &["1"]).finish()));
    let mut zombies = Actor::start("still-zombie", &[]);
    let _: bool = zombies.hear("ready");
    (0..10).for_each(|_| drop(Actor::start("zombie", &["1"]).finish()));
    let mut nested = Actor::start("still-nested", &[]);
    let _: bool = nested.hear("ready");
    sys::kill(pid, libc::SIGCONT).expect("continue the recorder");
    let (_directory, file) = recorder.stop();
    let text = fs::read_to_string(&file).expect("read the recording");
    for event in ["stream.lost", "stream.resync"] {
        assert!(text.contains(&format!(r#""event":"{event}""#)), "expected a {event}");
    }
    let (status, live, stderr) = run(Command::new(program()).args(["tree", "-o", "json"]));
    assert!(status.success(), "{stderr}");
    let (code, recorded, stderr) = run_on(&file, &["tree", "-o", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let live = namespaces(&live);
    assert!(live.len() >= 3, "{live:?}");
    assert_eq!(namespaces(&recorded), live);
    for mut actor in [zombies, nested] {
        actor.go();
        actor.finish();
    }
}

fn the_dead_are_found_in_a_recording() {
    let recorder = Recorder::start("it.ndjson", &[]);
    let report = Actor::start("zombie", &["10"]).finish();
    let child = report.who("child");
    thread::sleep(Duration::from_millis(100));
    let (_directory, file) = recorder.stop();
    let inside = child.pids.last().expect("a PID").to_string();
    let (code, stdout, stderr) =
        run_on(&file, &["pid", &inside, "--in", &child.ns.to_string(), "-o", "json"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("was gone by then"), "{stderr}");
    let levels: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!(levels["levels"][0]["pid"], child.pid, "{levels:#}");
    let (code, _, stderr) = run_on(&file, &["pid", "4194303"]);
    assert_eq!(code, Some(1), "{stderr}");
    let (code, _, stderr) = run_on(&file, &["ps", "--at", "1999-12-31T23:59:59Z"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("it begins at"), "{stderr}");
}

fn a_damaged_recording_is_read_up_to_the_damage() {
    let recorder = Recorder::start("it.ndjson", &[]);
    let report = Actor::start("zombie", &["10"]).finish();
    thread::sleep(Duration::from_millis(100));
    let (directory, file) = recorder.stop();
    let text = fs::read_to_string(&file).expect("read the recording");
    let lines: Vec<&str> = text.lines().collect();
    let pid = format!(r#""pid":{}"#, report.who("child").pid);
    let shows = |line: &&str| line.contains("process.fork") && line.contains(&pid);
    let fork = lines.iter().position(shows).expect("find the fork");
    let damaged = directory.path().join("damaged");
    let cut = &lines[fork + 1][..10];
    fs::write(&damaged, format!("{}\n{cut}", lines[..=fork].join("\n"))).expect("write the file");
    let (code, stdout, stderr) = run_on(&damaged, &["replay", "-o", "json", "-e", "all"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(&format!("line {}: the file ends in the middle of it", fork + 2)), "{stderr}");
    assert!(stdout.lines().any(|line| shows(&line)), "the lines before the damage must be shown: {stdout}");
    let (code, stdout, stderr) = run_on(&damaged, &["ps", "-o", "json"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("line "), "{stderr}");
    let child = report.who("child");
    assert!(
        members(&stdout, child.ns).contains_key(&(child.pid as u64)),
        "the members before the damage must be shown: {stdout}"
    );
}

fn a_full_disk_is_an_error_that_names_the_file() {
    let (status, _, stderr) = run(&mut command(&["record", "/dev/full", "--force", "--duration", "100ms"]));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("write to /dev/full: No space left on device"), "{stderr}");
    assert!(stderr.contains("not written"), "stderr must say how much is missing: {stderr}");
}

fn a_recording_is_read_without_privileges() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let fifo = directory.path().join("recording");
    let path = fifo.to_str().expect("UTF-8");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    made.expect("create a FIFO");
    for args in [
        &["replay", path][..],
        &["tree", "--from", path],
        &["ps", "--from", path],
        &["pid", "1", "--from", path],
    ] {
        let mut process = command(args).stdout(Stdio::null()).spawn().expect("start the program");
        // The program reads when there is a writer. It must have dropped its privileges before the first byte.
        let writer = fs::OpenOptions::new().write(true).open(&fifo).expect("open the FIFO");
        let status = || {
            fs::read_to_string(format!("/proc/{}/status", process.id())).expect("read the program's status")
        };
        let is_dropped = |status: &str| {
            let is = |line: &str, value: &str| {
                status
                    .lines()
                    .any(|found| found.strip_prefix(line).is_some_and(|found| found.trim() == value))
            };
            is("CapEff:", "0000000000000000") && is("CapPrm:", "0000000000000000") && is("NoNewPrivs:", "1")
        };
        let deadline = Instant::now() + patience(5);
        while !is_dropped(&status()) {
            assert!(Instant::now() < deadline, "{args:?}: {}", status());
            thread::sleep(Duration::from_millis(5));
        }
        drop(writer);
        wait_in_time(&mut process, "pidns-trace with an empty recording");
    }
}

fn an_existing_file_is_not_overwritten() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let file = directory.path().join("precious");
    fs::write(&file, "do not lose this").expect("write the file");
    let path = file.to_str().expect("a temporary name is UTF-8");
    let (status, _, stderr) = run(&mut command(&["record", path, "--duration", "10ms"]));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--force"), "{stderr}");
    assert_eq!(fs::read_to_string(&file).expect("read the file"), "do not lose this");
    let (status, _, stderr) = run(&mut command(&["record", path, "--duration", "10ms", "--force"]));
    assert_eq!(status.code(), Some(0), "{stderr}");
    let (code, _, stderr) = run_on(&file, &["replay"]);
    assert_eq!(code, Some(0), "{stderr}");
}

fn without_privilege_nothing_is_written() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let copy = world_readable_copy(directory.path());
    let file = directory.path().join("it.ndjson");
    let path = file.to_str().expect("a temporary name is UTF-8");
    let (status, _, stderr) = run(Command::new(copy).args(["record", path]).uid(65534).gid(65534));
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("CAP_BPF") && stderr.contains("setcap"), "{stderr}");
    assert!(!file.exists(), "no empty file may be left");
}

fn nothing_is_written_if_the_ebpf_object_does_not_load() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let precious = directory.path().join("precious");
    fs::write(&precious, "do not lose this").expect("write the file");
    let (precious, file) = (precious.to_str().expect("UTF-8"), directory.path().join("it.ndjson"));
    let path = file.to_str().expect("a temporary name is UTF-8");
    for args in [&["record", path][..], &["record", "--force", precious]] {
        let mut command = command(args);
        // The task iterator, which takes a snapshot before, opens few files. The maps and programs of the stream need
        // more.
        let few = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
        // SAFETY: between fork and exec the closure makes one system call, on its own value.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let (status, _, stderr) = run(&mut command);
        assert_ne!(status.code(), Some(0), "{stderr}");
        assert!(stderr.contains("Too many open files") && !stderr.contains("iterator"), "{stderr}");
    }
    assert!(!file.exists(), "no empty file may be left");
    assert_eq!(fs::read_to_string(precious).expect("read the file"), "do not lose this");
}
