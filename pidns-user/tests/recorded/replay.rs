//! `replay`: where it stops, and how a user stops it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::builder::{HOST, Recording, RecordingBuilder, process, program};

/// A recording with an event every ten seconds.
fn ten() -> RecordingBuilder {
    let mut recording = RecordingBuilder::begin();
    for at in 2..12 {
        recording.fork(10 * at, &process(&[100 + at as u32], "x", 10 * at, HOST));
    }
    recording.end(130);
    recording
}

#[test]
fn replay_stops_after_a_count_or_a_recorded_duration() {
    let recording = ten().file();
    let forks = |args: &[&str]| {
        recording.shown(&[&["replay", "-e", "process.fork", "--no-headers"], args].concat()).lines().count()
    };
    assert_eq!(forks(&[]), 10);
    assert_eq!(forks(&["--count", "3"]), 3);
    assert_eq!(forks(&["--duration", "30s"]), 3, "the events 10 s, 20 s and 30 s after the first one");
    assert_eq!(forks(&["--duration", "1h"]), 10);
    let shown = recording.shown(&["replay", "-e", "process.fork", "-o", "json", "--count", "1"]);
    let names: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(names.iter().map(|line| &line["event"]).collect::<Vec<_>>(), ["stream.start", "process.fork"]);
}

#[test]
fn replay_stops_reading_after_the_last_requested_event() {
    let text: String = ten().text().lines().take(8).map(|line| format!("{line}\n")).collect();
    let recording = Recording::of(text.as_bytes());
    recording.refused(2, &["replay", "-e", "process.fork"]);
    recording.shown(&["replay", "-e", "process.fork", "--count", "2"]);
}

#[test]
fn ctrl_c_during_a_wait_exits_with_0() {
    let recording = ten().file();
    let mut replay = program();
    replay.arg("replay").arg(&recording.path).args(["-e", "process.fork", "--no-headers", "--speed", "2"]);
    let mut replay = replay.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("run the program");
    let mut lines = BufReader::new(replay.stdout.take().expect("stdout is a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("101") || first.contains("102"), "{first}");
    let pid = rustix::process::Pid::from_child(&replay);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("send the signal");
    assert_eq!(replay.wait().expect("wait for the program").code(), Some(0));
}

/// Replays from a pipe that stays open after the events, without an end.
fn replay_of_an_open_pipe(args: &[&str]) -> (Child, ChildStdin) {
    let text = ten().text();
    let (events, _end) = text.trim_end().rsplit_once('\n').expect("lines");
    let mut replay = program();
    replay.args(["replay", "-", "-e", "process.fork", "--no-headers"]).args(args);
    let mut replay = replay.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().expect("run the program");
    let mut pipe = replay.stdin.take().expect("stdin is a pipe");
    pipe.write_all(format!("{events}\n").as_bytes()).expect("write the events");
    (replay, pipe)
}

fn expect_end_within(mut replay: Child, limit: Duration) {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = replay.try_wait().expect("wait for the program") {
            assert_eq!(status.code(), Some(0));
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    replay.kill().expect("kill the program");
    replay.wait().expect("wait for the program");
    panic!("it did not end within {limit:?}");
}

#[test]
fn ctrl_c_ends_a_replay_whose_pipe_is_silent() {
    let (mut replay, pipe) = replay_of_an_open_pipe(&[]);
    let mut lines = BufReader::new(replay.stdout.take().expect("stdout is a pipe")).lines();
    // All events are printed, even though the pipe stays open.
    assert_eq!((0..10).map_while(|_| lines.next()).count(), 10);
    let pid = rustix::process::Pid::from_child(&replay);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("send the signal");
    expect_end_within(replay, Duration::from_secs(5));
    drop(pipe);
}

#[test]
fn a_count_ends_a_replay_whose_pipe_stays_open() {
    let (replay, pipe) = replay_of_an_open_pipe(&["--count", "3"]);
    expect_end_within(replay, Duration::from_secs(5));
    drop(pipe);
}

#[test]
fn quiet_suppresses_messages() {
    let mut recording = RecordingBuilder::begin();
    recording.add(20, "later.version", serde_json::json!({}));
    let gone = process(&[100], "x", 20, HOST);
    recording.fork(20, &gone);
    recording.ends(21, &gone);
    recording.end(30);
    let recording = recording.file();
    for (args, part) in [(&["replay"][..], "skipped 1 event"), (&["pid", "100"], "was gone by then")] {
        let (_, _, stderr) = recording.run(args);
        assert!(stderr.contains(part), "{args:?}: {stderr}");
        let (code, _, stderr) = recording.run(&[args, &["-q"]].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    }
}
