//! `replay`: where it stops, and how it is stopped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::story::{HOST, Recording, Story, process, program};

/// An event every ten seconds.
fn ten() -> Story {
    let mut story = Story::begin();
    for at in 2..12 {
        story.fork(10 * at, &process(&[100 + at as u32], "x", 10 * at, HOST));
    }
    story.end(130);
    story
}

#[test]
fn it_stops_after_so_many_events_or_so_much_recorded_time() {
    let recording = ten().file();
    let forks = |args: &[&str]| {
        recording.shown(&[&["replay", "-e", "process.fork", "--no-headers"], args].concat()).lines().count()
    };
    assert_eq!(forks(&[]), 10);
    assert_eq!(forks(&["--count", "3"]), 3);
    assert_eq!(forks(&["--duration", "30s"]), 3, "of 10 s, 20 s, 30 s after the first event");
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
fn ctrl_c_while_it_waits_for_the_next_event_is_a_good_end() {
    let recording = ten().file();
    let mut replay = program();
    replay.arg("replay").arg(&recording.path).args(["-e", "process.fork", "--no-headers", "--speed", "2"]);
    let mut replay = replay.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("it can be run");
    let mut lines = BufReader::new(replay.stdout.take().expect("a pipe")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("101") || first.contains("102"), "{first}");
    let pid = rustix::process::Pid::from_child(&replay);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert_eq!(replay.wait().expect("a child").code(), Some(0));
}

/// Replays what comes through a pipe that stays open, and has no end yet.
fn replay_of_an_open_pipe(args: &[&str]) -> (Child, ChildStdin) {
    let text = ten().text();
    let (events, _end) = text.trim_end().rsplit_once('\n').expect("lines");
    let mut replay = program();
    replay.args(["replay", "-", "-e", "process.fork", "--no-headers"]).args(args);
    let mut replay = replay.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().expect("it can be run");
    let mut pipe = replay.stdin.take().expect("a pipe");
    pipe.write_all(format!("{events}\n").as_bytes()).expect("it reads");
    (replay, pipe)
}

fn expect_end_within(mut replay: Child, limit: Duration) {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = replay.try_wait().expect("a child") {
            assert_eq!(status.code(), Some(0));
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    replay.kill().expect("it runs");
    replay.wait().expect("a child");
    panic!("it did not end within {limit:?}");
}

#[test]
fn ctrl_c_ends_a_replay_whose_pipe_is_silent() {
    let (mut replay, pipe) = replay_of_an_open_pipe(&[]);
    let mut lines = BufReader::new(replay.stdout.take().expect("a pipe")).lines();
    // All that is there is printed, though no more comes.
    assert_eq!((0..10).map_while(|_| lines.next()).count(), 10);
    let pid = rustix::process::Pid::from_child(&replay);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
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
fn quiet_leaves_messages_out() {
    let mut story = Story::begin();
    story.add(20, "later.version", serde_json::json!({}));
    let gone = process(&[100], "x", 20, HOST);
    story.fork(20, &gone);
    story.ends(21, &gone);
    story.end(30);
    let recording = story.file();
    for (args, part) in [(&["replay"][..], "left out 1 event"), (&["pid", "100"], "was gone by then")] {
        let (_, _, stderr) = recording.run(args);
        assert!(stderr.contains(part), "{args:?}: {stderr}");
        let (code, _, stderr) = recording.run(&[args, &["-q"]].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    }
}
