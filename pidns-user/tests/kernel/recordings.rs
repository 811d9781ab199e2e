//! `record`, `replay` and `--from`: a file has what there was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pidns_user::{event::Body, model::World, source::recording::Recording};
use serde_json::Value;

use crate::again;
use crate::facts::Who;
use crate::stage::{Actor, patience, run, wait_in_time};
use crate::sys::{self, Pid};
use crate::tracer::{command, program, world_readable_copy};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_recording_stands_alone),
    test!(a_recording_lasts_as_long_as_it_was_made),
    test!(a_recording_made_under_load_ends_in_what_is_there),
    test!(another_snapshot_shows_what_a_loss_hid),
    test!(a_recording_replayed_makes_the_model_that_the_recorder_had),
    test!(namespaces_that_came_and_went_in_a_loss_are_not_mixed_up),
    test!(the_dead_are_found_in_a_recording),
    test!(a_damaged_recording_is_read_up_to_the_damage),
    test!(a_file_that_exists_is_left_alone),
    test!(a_full_disk_is_an_error_that_names_the_file),
    test!(a_recording_is_read_without_any_privilege),
    test!(without_privilege_nothing_is_written),
    test!(where_the_kernel_side_does_not_load_nothing_is_written),
];

const WORKERS: &str = "2";
const SECONDS_FOR_A_STORM: u64 = 120;

/// A recorder at work, that has taken its first snapshot.
pub(crate) struct Recorder {
    process: Child,
    file: PathBuf,
    directory: Option<tempfile::TempDir>,
}

impl Recorder {
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join(name);
        let path = file.to_str().expect("a temporary name is UTF-8");
        let mut process = command(&[&["record", path], args].concat());
        let process = process.stderr(Stdio::null()).spawn().expect("the program can be run");
        let recorder = Self { process, file, directory: Some(directory) };
        // The first flush has the start and all that existed then.
        let deadline = Instant::now() + patience(60);
        while fs::metadata(&recorder.file).map_or(0, |file| file.len()) == 0 {
            assert!(Instant::now() < deadline, "nothing was recorded");
            thread::sleep(Duration::from_millis(20));
        }
        recorder
    }

    pub(crate) fn stop(mut self) -> (tempfile::TempDir, PathBuf) {
        sys::kill(self.process.id() as Pid, libc::SIGINT).expect("it runs until it is stopped");
        let status = wait_in_time(&mut self.process, "pidns-trace record");
        assert_eq!(status.code(), Some(0), "a recording ends well");
        let recording = Recording::open(&self.file).expect("the recording is there");
        recording.map_while(Result::ok).for_each(|event| again::hear_event(&event));
        (self.directory.take().expect("it is there until the recorder stops"), self.file.clone())
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

/// A process by its identity, and the fields that both a snapshot and a recording have.
pub(crate) type Fact = (Vec<u64>, u64, Option<u64>, bool);

/// What `ps` shows of the members of this namespace, by PID at level 0.
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

/// Lets a storm that has given its lives end.
fn end_storm(mut storm: Actor) {
    storm.go();
    let _: Who = storm.hear("straggler");
    storm.go();
    storm.finish();
}

/// Its end has the time of the end, however quiet the machine was before.
fn a_recording_lasts_as_long_as_it_was_made() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("quiet.json");
    let path = file.to_str().expect("a temporary name is UTF-8");
    let (status, _, stderr) = run(&mut command(&["record", path, "--duration", "1s"]));
    assert!(status.success(), "{stderr}");
    let text = fs::read_to_string(&file).expect("a recording");
    let boot_ns = |line: Option<&str>| {
        let event: Value = serde_json::from_str(line.expect("a line")).expect("JSON");
        event["boot_ns"].as_u64().expect("a time")
    };
    let lasted = boot_ns(text.lines().last()) - boot_ns(text.lines().next());
    assert!(lasted >= 990_000_000, "{lasted} ns");
    let (status, _, stderr) = run(&mut command(&["tree", "--from", path, "--at", "+950ms"]));
    assert!(status.success(), "{stderr}");
}

/// It was there before the recording began: nothing of it is ever an event.
fn a_recording_stands_alone() {
    let mut actor = Actor::start("still-zombie", &[]);
    let _: bool = actor.hear("ready");
    let init: Who = actor.hear("init");
    let recorder = Recorder::start("it.ndjson", &[]);
    let (_directory, file) = recorder.stop();
    let found = expect_the_same(&file, init.ns);
    assert_eq!(found.len(), 2, "the init and its zombie: {found:?}");
    assert!(found.values().any(|(.., zombie)| *zombie), "{found:?}");
    let (code, tree, stderr) = run_on(&file, &["tree", "--no-headers", &init.ns.to_string()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(tree.contains(&init.ns.to_string()), "{tree}");
    actor.go();
    actor.finish();
}

fn a_recording_made_under_load_ends_in_what_is_there() {
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
    assert!(exits >= 3000, "the storm's lives are shown, those of others are not: {exits}");
    end_storm(storm);
    actor.go();
    actor.finish();
}

fn another_snapshot_shows_what_a_loss_hid() {
    let mut storm = Actor::start("storm", &["3000", WORKERS]);
    let init: Who = storm.hear("init");
    let recorder = Recorder::start("it.ndjson", &["--ring-size", "4K"]);
    let pid = recorder.process.id() as Pid;
    sys::kill(pid, libc::SIGSTOP).expect("a child can be stopped");
    storm.go();
    let mut actor = Actor::start("still-zombie", &[]);
    let _: bool = actor.hear("ready");
    let zombies: Who = actor.hear("init");
    let _: u64 = storm.hear_within(SECONDS_FOR_A_STORM, "lives");
    sys::kill(pid, libc::SIGCONT).expect("a child can be continued");
    // The end would not wait longer than a second for that snapshot.
    let has = |event: &str| {
        let text = fs::read_to_string(&recorder.file).expect("the recording can be read");
        text.contains(&format!(r#""event":"{event}""#))
    };
    let deadline = Instant::now() + patience(20);
    while !(has("stream.lost") && has("stream.resync")) {
        assert!(Instant::now() < deadline, "the loss is reported, and repaired");
        thread::sleep(Duration::from_millis(50));
    }
    let (_directory, file) = recorder.stop();
    assert_eq!(expect_the_same(&file, zombies.ns).len(), 2);
    expect_the_same(&file, init.ns);
    end_storm(storm);
    actor.go();
    actor.finish();
}

/// What the recorder's own model had at its end is in the last line.
fn a_recording_replayed_makes_the_model_that_the_recorder_had() {
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
        for event in Recording::open(&file).expect("the recording is there") {
            let event = event.expect("the recording is whole");
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
            assert!(count == 0 || !lost.is_empty(), "{count} {kind}, and nothing was lost");
        }
        end_storm(storm);
        actor.go();
        actor.finish();
    }
}

/// A namespace by its number, and the kernel's own for it.
type Space = (u64, Option<u64>);

/// The namespaces within the host's, each with its parent's number, its processes, and how many of these are zombies.
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

/// Each takes the number of the one before it.
fn namespaces_that_came_and_went_in_a_loss_are_not_mixed_up() {
    let mut first = Actor::start("still-zombie", &[]);
    let _: bool = first.hear("ready");
    let recorder = Recorder::start("it.ndjson", &["--ring-size", "4K"]);
    let pid = recorder.process.id() as Pid;
    sys::kill(pid, libc::SIGSTOP).expect("a child can be stopped");
    first.go();
    first.finish();
    (0..10).for_each(|_| drop(Actor::start("zombie", &["1"]).finish()));
    let mut zombies = Actor::start("still-zombie", &[]);
    let _: bool = zombies.hear("ready");
    (0..10).for_each(|_| drop(Actor::start("zombie", &["1"]).finish()));
    let mut nested = Actor::start("still-nested", &[]);
    let _: bool = nested.hear("ready");
    sys::kill(pid, libc::SIGCONT).expect("a child can be continued");
    let (_directory, file) = recorder.stop();
    let text = fs::read_to_string(&file).expect("the recording can be read");
    for event in ["stream.lost", "stream.resync"] {
        assert!(text.contains(&format!(r#""event":"{event}""#)), "there was a {event}");
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
    let text = fs::read_to_string(&file).expect("the recording can be read");
    let lines: Vec<&str> = text.lines().collect();
    let pid = format!(r#""pid":{}"#, report.who("child").pid);
    let shows = |line: &&str| line.contains("process.fork") && line.contains(&pid);
    let fork = lines.iter().position(shows).expect("its fork");
    let damaged = directory.path().join("damaged");
    let cut = &lines[fork + 1][..10];
    fs::write(&damaged, format!("{}\n{cut}", lines[..=fork].join("\n"))).expect("a temporary file");
    let (code, stdout, stderr) = run_on(&damaged, &["replay", "-o", "json", "-e", "all"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(&format!("line {}: the file ends in the middle of it", fork + 2)), "{stderr}");
    assert!(stdout.lines().any(|line| shows(&line)), "what stands before it: {stdout}");
    let (code, stdout, stderr) = run_on(&damaged, &["ps", "-o", "json"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("line "), "{stderr}");
    let child = report.who("child");
    assert!(members(&stdout, child.ns).contains_key(&(child.pid as u64)), "what stands before it: {stdout}");
}

fn a_full_disk_is_an_error_that_names_the_file() {
    let (status, _, stderr) = run(&mut command(&["record", "/dev/full", "--force", "--duration", "100ms"]));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("write to /dev/full: No space left on device"), "{stderr}");
    assert!(stderr.contains("not written"), "how much is missing: {stderr}");
}

fn a_recording_is_read_without_any_privilege() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let fifo = directory.path().join("recording");
    let path = fifo.to_str().expect("UTF-8");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    made.expect("a FIFO can be made");
    for args in [
        &["replay", path][..],
        &["tree", "--from", path],
        &["ps", "--from", path],
        &["pid", "1", "--from", path],
    ] {
        let mut process = command(args).stdout(Stdio::null()).spawn().expect("it runs");
        // It reads when there is a writer; before the first byte its privileges are gone.
        let writer = fs::OpenOptions::new().write(true).open(&fifo).expect("a FIFO has two ends");
        let status =
            || fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it waits for a byte");
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

fn a_file_that_exists_is_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("precious");
    fs::write(&file, "do not lose this").expect("a temporary file");
    let path = file.to_str().expect("a temporary name is UTF-8");
    let (status, _, stderr) = run(&mut command(&["record", path, "--duration", "10ms"]));
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--force"), "{stderr}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "do not lose this");
    let (status, _, stderr) = run(&mut command(&["record", path, "--duration", "10ms", "--force"]));
    assert_eq!(status.code(), Some(0), "{stderr}");
    let (code, _, stderr) = run_on(&file, &["replay"]);
    assert_eq!(code, Some(0), "{stderr}");
}

fn without_privilege_nothing_is_written() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let copy = world_readable_copy(directory.path());
    let file = directory.path().join("it.ndjson");
    let path = file.to_str().expect("a temporary name is UTF-8");
    let (status, _, stderr) = run(Command::new(copy).args(["record", path]).uid(65534).gid(65534));
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("CAP_BPF") && stderr.contains("setcap"), "{stderr}");
    assert!(!file.exists(), "no empty file is left");
}

fn where_the_kernel_side_does_not_load_nothing_is_written() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let precious = directory.path().join("precious");
    fs::write(&precious, "do not lose this").expect("a temporary file");
    let (precious, file) = (precious.to_str().expect("UTF-8"), directory.path().join("it.ndjson"));
    let path = file.to_str().expect("a temporary name is UTF-8");
    for args in [&["record", path][..], &["record", "--force", precious]] {
        let mut command = command(args);
        // The task iterator, which takes the snapshot before, opens few files; the maps and programs of the stream are more.
        let few = libc::rlimit { rlim_cur: 20, rlim_max: 20 };
        // SAFETY: between fork and exec it makes one system call, on a value that is its own.
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
    assert!(!file.exists(), "no empty file is left");
    assert_eq!(fs::read_to_string(precious).expect("it is there"), "do not lose this");
}
