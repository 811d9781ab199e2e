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
    test!(a_second_signal_leaves_the_end_whole_while_a_slow_reader_reads),
    test!(a_second_signal_ends_a_stream_that_nobody_reads),
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

fn expect_end(mut process: Child, code: i32) {
    let status: ExitStatus = wait_in_time(&mut process, "pidns-trace after two signals");
    let stderr = std::io::read_to_string(process.stderr.take().expect("stderr is a pipe")).expect("UTF-8");
    expect_code(status, code, &stderr);
}

fn a_second_signal_leaves_the_end_whole_while_a_slow_reader_reads() {
    let (process, mut stdout) = clogged();
    let pid = process.id() as Pid;
    sys::kill(pid, libc::SIGINT).expect("it runs");
    let (mut stream, mut piece) = (Vec::new(), [0; 1024]);
    let began = Instant::now();
    let mut interrupts = 1;
    loop {
        if began.elapsed().as_secs() >= interrupts && sys::kill(pid, libc::SIGINT).is_ok() {
            interrupts += 1;
        }
        match stdout.get_mut().read(&mut piece).expect("a pipe can be read") {
            0 => break,
            count => stream.extend_from_slice(&piece[..count]),
        }
        // 64 KiB, which one write may wait for, take two seconds.
        thread::sleep(Duration::from_millis(30));
    }
    assert!(interrupts > 2, "it took {:?}: too short for this test", began.elapsed());
    let text = String::from_utf8(stream).expect("UTF-8");
    assert!(text.lines().last().is_some_and(|line| line.contains("stream.end")), "the end is there");
    expect_end(process, 0);
}

fn a_second_signal_ends_a_stream_that_nobody_reads() {
    let (process, _stdout) = clogged();
    let began = Instant::now();
    interrupt_twice(process.id() as Pid);
    expect_end(process, 130);
    let took = began.elapsed();
    assert!(took < patience(5), "it took {took:?}");
}
