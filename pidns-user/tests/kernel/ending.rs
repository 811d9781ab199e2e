//! Tests the end after one and two signals, with a reader that reads, reads slowly, or does not read.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::actor_handle::{Actor, patience, wait_in_time};
use crate::seen::expect_code;
use crate::sys::{self, Pid};
use crate::tracer::{Tracer, command};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_second_signal_right_after_the_first_keeps_the_end_complete),
    test!(a_slow_reader_has_two_seconds_and_unread_events_are_counted),
    test!(an_unread_stream_ends_two_seconds_after_a_signal),
    test!(an_unread_replay_ends_two_seconds_after_a_signal),
    test!(a_second_signal_ends_a_stream_at_once),
];

/// Sends two different signals: two pending signals of the same kind would become one.
fn interrupt_twice(pid: Pid) {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        sys::kill(pid, signal).expect("the program runs until it is stopped");
    }
}

fn a_second_signal_right_after_the_first_keeps_the_end_complete() {
    let tracer = Tracer::start(&["-e", "all"]);
    Actor::start("exit-with-members", &["10", "0"]).finish();
    interrupt_twice(tracer.pid());
    // The check of the stream requires its end.
    let (seen, status) = tracer.ended();
    expect_code(status, 0, &seen.stderr);
}

/// A stream whose writer waits for room in the pipe.
fn clogged() -> (Child, BufReader<ChildStdout>) {
    let mut process =
        command(&["-o", "json", "-e", "all"]).stdout(Stdio::piped()).spawn().expect("start the program");
    let mut stdout = BufReader::with_capacity(1, process.stdout.take().expect("stdout is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("read the first line");
    assert!(line.contains("stream.start"), "the first line: {line}");
    // Each process causes three lines of about 400 bytes. The pipe and the sink hold 64 KiB each.
    Actor::start("exit-with-members", &["300", "0"]).finish();
    thread::sleep(Duration::from_millis(300));
    (process, stdout)
}

/// Checks the exit code. Returns stderr.
fn expect_end(mut process: Child, code: i32) -> String {
    let status: ExitStatus = wait_in_time(&mut process, "pidns-trace after a signal");
    let stderr = std::io::read_to_string(process.stderr.take().expect("stderr is a pipe")).expect("UTF-8");
    expect_code(status, code, &stderr);
    stderr
}

/// Checks that the end took the two seconds that a slow reader gets, and little more.
fn expect_two_seconds(began: Instant) {
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_900) && took < patience(4), "the end took {took:?}");
}

#[track_caller]
fn expect_count(stderr: &str) {
    let last = stderr.lines().last().unwrap_or_default();
    let (_, count) =
        last.split_once("took too long after the end was requested: ").unwrap_or_else(|| panic!("{stderr}"));
    let count: u64 = count.split(' ').next().and_then(|number| number.parse().ok()).expect(last);
    assert!(count > 0 && last.ends_with("not written"), "{last}");
}

fn a_slow_reader_has_two_seconds_and_unread_events_are_counted() {
    let (mut process, mut stdout) = clogged();
    let began = Instant::now();
    sys::kill(process.id() as Pid, libc::SIGINT).expect("send the signal");
    let mut piece = [0; 1024];
    while process.try_wait().expect("wait for the program").is_none() {
        assert!(stdout.get_mut().read(&mut piece).expect("a pipe can be read") > 0, "the pipe is still open");
        // 64 KiB, which one write may wait for, take two seconds at this speed.
        thread::sleep(Duration::from_millis(30));
    }
    expect_two_seconds(began);
    expect_count(&expect_end(process, 2));
}

fn an_unread_stream_ends_two_seconds_after_a_signal() {
    let (process, _stdout) = clogged();
    let began = Instant::now();
    // Both signals come at the same time, as timeout(1) sends them.
    interrupt_twice(process.id() as Pid);
    let stderr = expect_end(process, 2);
    expect_two_seconds(began);
    expect_count(&stderr);
}

fn an_unread_replay_ends_two_seconds_after_a_signal() {
    let directory = tempfile::tempdir().expect("create a temporary directory");
    let file = directory.path().join("recording");
    let file = file.to_str().expect("UTF-8");
    let recorder = Tracer::start_raw(&["record", file]);
    let deadline = Instant::now() + patience(20);
    while std::fs::metadata(file).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "the recorder did not begin");
        thread::sleep(Duration::from_millis(10));
    }
    Actor::start("exit-with-members", &["300", "0"]).finish();
    sys::kill(recorder.pid(), libc::SIGINT).expect("stop the recorder");
    let (_, stderr, status) = recorder.ended_raw();
    expect_code(status, 0, &stderr);
    let replay = &["replay", file, "-o", "json", "-e", "all"];
    let process = command(replay).stdout(Stdio::piped()).spawn().expect("start the replay");
    thread::sleep(patience(1));
    let began = Instant::now();
    sys::kill(process.id() as Pid, libc::SIGTERM).expect("send the signal");
    let stderr = expect_end(process, 2);
    expect_count(&stderr);
    expect_two_seconds(began);
}

fn a_second_signal_ends_a_stream_at_once() {
    let (process, _stdout) = clogged();
    let pid = process.id() as Pid;
    sys::kill(pid, libc::SIGINT).expect("send the first signal");
    thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    sys::kill(pid, libc::SIGINT).expect("send the second signal");
    expect_end(process, 130);
    let took = began.elapsed();
    assert!(took < patience(1), "the end took {took:?}");
}
