//! Ctrl-C, once and twice: with a reader that reads, one that is slow, and one that does not read.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::seen::expect_code;
use crate::stage::{Actor, patience, wait_in_time};
use crate::sys::{self, Pid};
use crate::tracer::{Tracer, command};
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_second_signal_right_after_the_first_leaves_the_end_whole),
    test!(a_slow_reader_has_two_seconds_and_what_it_does_not_get_is_counted),
    test!(an_unread_stream_ends_two_seconds_after_a_signal),
    test!(an_unread_replay_ends_two_seconds_after_a_signal),
    test!(a_second_signal_ends_a_stream_at_once),
];

/// Two that do not become one while the first is waiting.
fn interrupt_twice(pid: Pid) {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        sys::kill(pid, signal).expect("the program runs until it is stopped");
    }
}

fn a_second_signal_right_after_the_first_leaves_the_end_whole() {
    let tracer = Tracer::start(&["-e", "all"]);
    Actor::start("exit-with-members", &["10", "0"]).finish();
    interrupt_twice(tracer.pid());
    // The check of the stream asks for its end.
    let (seen, status) = tracer.ended();
    expect_code(status, 0, &seen.stderr);
}

/// A stream whose writer waits for room in the pipe.
fn clogged() -> (Child, BufReader<ChildStdout>) {
    let mut process = command(&["-o", "json", "-e", "all"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut stdout = BufReader::with_capacity(1, process.stdout.take().expect("stdout is a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a pipe can be read");
    assert!(line.contains("stream.start"), "the first line: {line}");
    // Each of the processes is worth three lines of some 400 bytes; a pipe holds 64 KiB, and so does the sink.
    Actor::start("exit-with-members", &["300", "0"]).finish();
    thread::sleep(Duration::from_millis(300));
    (process, stdout)
}

/// What it printed on stderr.
fn expect_end(mut process: Child, code: i32) -> String {
    let status: ExitStatus = wait_in_time(&mut process, "pidns-trace after a signal");
    let stderr = std::io::read_to_string(process.stderr.take().expect("stderr is a pipe")).expect("UTF-8");
    expect_code(status, code, &stderr);
    stderr
}

/// The time that a reader has, and what an end takes besides.
fn expect_two_seconds(began: Instant) {
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_900) && took < patience(4), "it took {took:?}");
}

#[track_caller]
fn expect_count(stderr: &str) {
    let last = stderr.lines().last().unwrap_or_default();
    let (_, count) =
        last.split_once("took too long after the end was asked for: ").unwrap_or_else(|| panic!("{stderr}"));
    let count: u64 = count.split(' ').next().and_then(|number| number.parse().ok()).expect(last);
    assert!(count > 0 && last.ends_with("not written"), "{last}");
}

fn a_slow_reader_has_two_seconds_and_what_it_does_not_get_is_counted() {
    let (mut process, mut stdout) = clogged();
    let began = Instant::now();
    sys::kill(process.id() as Pid, libc::SIGINT).expect("it runs");
    let mut piece = [0; 1024];
    while process.try_wait().expect("a child can be waited for").is_none() {
        assert!(stdout.get_mut().read(&mut piece).expect("a pipe can be read") > 0, "it is still there");
        // 64 KiB, which one write may wait for, take two seconds.
        thread::sleep(Duration::from_millis(30));
    }
    expect_two_seconds(began);
    expect_count(&expect_end(process, 2));
}

fn an_unread_stream_ends_two_seconds_after_a_signal() {
    let (process, _stdout) = clogged();
    let began = Instant::now();
    // The second is of the same moment, as timeout(1) sends them.
    interrupt_twice(process.id() as Pid);
    let stderr = expect_end(process, 2);
    expect_two_seconds(began);
    expect_count(&stderr);
}

fn an_unread_replay_ends_two_seconds_after_a_signal() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("recording");
    let file = file.to_str().expect("UTF-8");
    let recorder = Tracer::start_raw(&["record", file]);
    let deadline = Instant::now() + patience(20);
    while std::fs::metadata(file).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < deadline, "the recorder has begun");
        thread::sleep(Duration::from_millis(10));
    }
    Actor::start("exit-with-members", &["300", "0"]).finish();
    sys::kill(recorder.pid(), libc::SIGINT).expect("it runs");
    let (_, stderr, status) = recorder.ended_raw();
    expect_code(status, 0, &stderr);
    let replay = &["replay", file, "-o", "json", "-e", "all"];
    let process = command(replay).stdout(Stdio::piped()).spawn().expect("it runs");
    thread::sleep(patience(1));
    let began = Instant::now();
    sys::kill(process.id() as Pid, libc::SIGTERM).expect("it waits for its reader");
    let stderr = expect_end(process, 2);
    expect_count(&stderr);
    expect_two_seconds(began);
}

fn a_second_signal_ends_a_stream_at_once() {
    let (process, _stdout) = clogged();
    let pid = process.id() as Pid;
    sys::kill(pid, libc::SIGINT).expect("it runs");
    thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    sys::kill(pid, libc::SIGINT).expect("it waits for its reader");
    expect_end(process, 130);
    let took = began.elapsed();
    assert!(took < patience(1), "it took {took:?}");
}
