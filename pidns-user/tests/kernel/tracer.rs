//! Runs the program under test, and reads its stream until the end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::actor_handle::{Actor, Report, concerns_actor, patience, wait_in_time};
use crate::again;
use crate::facts::state;
pub(crate) use crate::program::path as program;
use crate::schemas::Schema;
use crate::seen::Seen;
use crate::settings;
use crate::sys::{self, Pid};

const SECONDS_TO_START: u64 = 5;
const SECONDS_FOR_AN_EVENT: u64 = 5;

/// Lines that a thread reads.
#[derive(Default)]
struct Feed {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    ended: bool,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("no reader panics while it holds the lines")
    }

    /// Starts a thread that reads `from` to its end.
    fn read(from: impl Read + Send + 'static) -> (Arc<Self>, JoinHandle<()>) {
        let feed = Arc::new(Self::default());
        let writer = Arc::clone(&feed);
        let thread = thread::spawn(move || {
            let mut from = BufReader::new(from);
            loop {
                let mut line = Vec::new();
                let end = !matches!(from.read_until(b'\n', &mut line), Ok(1..));
                let mut lines = writer.lock();
                if end {
                    lines.ended = true;
                } else {
                    let line =
                        String::from_utf8(line).unwrap_or_else(|error| format!("NOT UTF-8: {error:?}"));
                    again::hear(&line);
                    lines.all.push(line.trim_end_matches('\n').to_owned());
                }
                drop(lines);
                writer.changed.notify_all();
                if end {
                    return;
                }
            }
        });
        (feed, thread)
    }

    /// Waits for the first line of the feed that `wanted` accepts.
    fn wait_for(&self, time: Duration, mut wanted: impl FnMut(&str) -> bool) -> Result<String, &'static str> {
        let deadline = Instant::now() + time;
        let mut inspected = 0;
        let mut lines = self.lock();
        loop {
            if let Some(found) = lines.all[inspected..].iter().find(|line| wanted(line)) {
                return Ok(found.clone());
            }
            inspected = lines.all.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended {
                return Err("the stream ended first");
            }
            if left.is_zero() {
                return Err("it did not come in time");
            }
            (lines, _) =
                self.changed.wait_timeout(lines, left).expect("no reader panics while it holds the lines");
        }
    }

    fn take(&self) -> Vec<String> {
        self.lock().all.clone()
    }

    fn text(&self) -> String {
        self.take().join("\n")
    }
}

/// A running `pidns-trace -o json`.
pub(crate) struct Tracer {
    process: Child,
    stdout: Arc<Feed>,
    stderr: Arc<Feed>,
    readers: Vec<JoinHandle<()>>,
}

impl Tracer {
    /// Starts the program with `-o json` and these arguments, and waits until it traces.
    pub(crate) fn start(args: &[&str]) -> Self {
        let tracer = Self::start_raw(&[&["-o", "json"], args].concat());
        tracer.wait_for_line("stream.start", SECONDS_TO_START, |line| {
            line.contains(r#""event":"stream.start""#)
        });
        tracer
    }

    /// Starts the program with only these arguments, without waiting.
    pub(crate) fn start_raw(args: &[&str]) -> Self {
        let mut process = command(args).stdout(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("cannot start {}: {error}", program().display());
        });
        let (stdout, out) = Feed::read(process.stdout.take().expect("stdout is a pipe"));
        let (stderr, err) = Feed::read(process.stderr.take().expect("stderr is a pipe"));
        Self { process, stdout, stderr, readers: vec![out, err] }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.id() as Pid
    }

    /// Waits for a line in any format.
    pub(crate) fn wait_for_line(&self, what: &str, seconds: u64, wanted: impl Fn(&str) -> bool) -> String {
        // When the unwinding drops this tracer, it shows the received lines.
        let found = self.stdout.wait_for(patience(seconds), wanted);
        found.unwrap_or_else(|why| panic!("waiting for {what}: {why}"))
    }

    /// Waits for the first event of the stream that `wanted` accepts.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let is_wanted = |line: &str| serde_json::from_str(line).is_ok_and(|event| wanted(&event));
        let line = self.wait_for_line(what, SECONDS_FOR_AN_EVENT, is_wanted);
        serde_json::from_str(&line).expect("the line is JSON")
    }

    /// Waits for an event of this name about this process.
    pub(crate) fn wait_for_process(&self, event: &str, pid: Pid) -> Value {
        let name = format!("{event} of {pid}");
        self.wait_for(&name, |seen| seen["event"] == event && seen["process"]["pid"] == pid)
    }

    /// For an actor that has ended: waits for its exit event (needs `-e all`), stops the program, and returns the
    /// stream.
    pub(crate) fn stop_after(self, report: &Report) -> Seen {
        self.wait_for_process("process.exit", report.actor);
        self.stop()
    }

    /// Sends Ctrl-C, after which the program must exit with 0. Returns the checked stream.
    pub(crate) fn stop(self) -> Seen {
        let (seen, status) = self.interrupt();
        assert_eq!(status.code(), Some(0), "Ctrl-C is a normal end ({status}), stderr: {}", seen.stderr);
        seen
    }

    /// Sends Ctrl-C. Returns the checked stream and the exit status.
    pub(crate) fn interrupt(self) -> (Seen, ExitStatus) {
        sys::kill(self.pid(), libc::SIGINT).expect("send Ctrl-C");
        self.ended()
    }

    /// Waits until the program ends by itself. Returns the checked stream and the exit status.
    pub(crate) fn ended(mut self) -> (Seen, ExitStatus) {
        let (lines, stderr, status) = self.collect();
        (Seen::check(lines, stderr), status)
    }

    /// Waits until the program ends by itself. Returns its raw output.
    pub(crate) fn ended_raw(mut self) -> (Vec<String>, String, ExitStatus) {
        self.collect()
    }

    fn collect(&mut self) -> (Vec<String>, String, ExitStatus) {
        let status = wait_in_time(&mut self.process, "pidns-trace");
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader does not panic"));
        assert_eq!(status.signal(), None, "killed by a signal, stderr: {}", self.stderr.text());
        let lines = self.stdout.take();
        assert_schema(&lines);
        (lines, self.stderr.text(), status)
    }

    fn relevant(&self) -> String {
        let events: Vec<Value> =
            self.stdout.take().iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        show_relevant(&events)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _gone_already = self.process.kill();
            let _reaped = self.process.wait();
            if thread::panicking() {
                eprintln!("stderr of pidns-trace: {}\n{}", self.stderr.text(), self.relevant());
            }
        }
    }
}

/// Runs a whole situation with every event shown.
pub(crate) fn watch(situation: &str, args: &[&str]) -> (Report, Seen) {
    let tracer = Tracer::start(&["-e", "all"]);
    let report = Actor::start(situation, args).finish();
    let seen = tracer.stop_after(&report);
    (report, seen)
}

/// The program with these arguments, without input, and with stderr in a pipe.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
    let takes_hooks = !args.contains(&"--hooks")
        && !matches!(args.first(), Some(&("tree" | "ps" | "pid" | "explain" | "replay")));
    if takes_hooks {
        settings::add_hooks(&mut command);
    }
    command
}

/// Whether a child runs. A zombie does not.
fn is_running(child: Pid) -> bool {
    state(&format!("/proc/{child}/stat")).is_some_and(|state| state != 'Z')
}

/// The events that mention an actor's process or namespace, for a failure report.
pub(crate) fn show_relevant(events: &[Value]) -> String {
    const MAX_EVENTS: usize = 60;
    let relevant: Vec<&Value> = events.iter().filter(|event| concerns_actor(event)).collect();
    let mut text = format!("{} events, {} about this test:", events.len(), relevant.len());
    for event in relevant.iter().take(MAX_EVENTS) {
        text += &format!("\n  {event}");
    }
    if relevant.len() > MAX_EVENTS {
        text += &format!("\n  … and {} more", relevant.len() - MAX_EVENTS);
    }
    text
}

/// A running `pidns-trace -o json` whose stream goes to a file, for streams that are too long for memory.
pub(crate) struct FileTracer {
    process: Child,
    stream: PathBuf,
    stderr: Arc<Feed>,
    reader: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

/// Checks each JSON event against docs/schema. Other documents, such as those of `ps` and `tree`, are not checked
/// here.
fn assert_schema(lines: &[String]) {
    let schema = Schema::of("events");
    for line in lines.iter().filter(|line| line.starts_with('{') && line.contains(r#""event":""#)) {
        schema.check(&serde_json::from_str(line).expect("a whole line is JSON"), "the stream");
    }
}

impl FileTracer {
    pub(crate) fn start(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("create a temporary directory");
        let stream = directory.path().join("stream.json");
        let file = File::create(&stream).expect("create the file");
        let mut process = command(&[&["-o", "json"], args].concat())
            .stdout(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program().display()));
        let (stderr, reader) = Feed::read(process.stderr.take().expect("stderr is a pipe"));
        let tracer = Self { process, stream, stderr, reader: Some(reader), _directory: directory };
        tracer.wait_for_text("stream.start", r#""event":"stream.start""#);
        tracer
    }

    pub(crate) fn pid(&self) -> Pid {
        self.process.id() as Pid
    }

    /// Waits until no line has come for a while. A busy kernel frees the zombies of a storm long after it.
    pub(crate) fn wait_until_quiet(&self) {
        const QUIET: Duration = Duration::from_millis(500);
        let size = || fs::metadata(&self.stream).expect("read the size of the stream").len();
        let deadline = Instant::now() + patience(60);
        let (mut last, mut since) = (size(), Instant::now());
        while since.elapsed() < QUIET {
            assert!(Instant::now() < deadline, "the stream does not end: {last} bytes");
            thread::sleep(Duration::from_millis(20));
            let now = size();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }

    /// Waits until this text is in the stream.
    pub(crate) fn wait_for_text(&self, what: &str, text: &str) {
        let deadline = Instant::now() + patience(60);
        let mut stream = BufReader::new(File::open(&self.stream).expect("open the stream"));
        let mut line = String::new();
        loop {
            match stream.read_line(&mut line).expect("read the stream") {
                0 => {
                    let stderr = || self.stderr.text();
                    assert!(Instant::now() < deadline, "{what} did not come in time, stderr: {}", stderr());
                    assert!(
                        is_running(self.pid()),
                        "the program ended before {what} came, stderr: {}",
                        stderr()
                    );
                    thread::sleep(Duration::from_millis(20));
                }
                // A line may be incomplete when it is read, so it is dropped only when it is complete.
                _ if line.contains(text) => return,
                _ if line.ends_with('\n') => line.clear(),
                _ => {}
            }
        }
    }

    /// Waits until this many lines contain this text, or until a time limit. The caller checks the count.
    pub(crate) fn wait_for_lines(&self, text: &str, count: u64) {
        let deadline = Instant::now() + patience(15);
        let mut stream =
            BufReader::with_capacity(1 << 20, File::open(&self.stream).expect("open the stream"));
        let (mut line, mut found) = (String::new(), 0);
        while found < count && Instant::now() < deadline {
            let read = stream.read_line(&mut line).expect("read the stream");
            if read == 0 {
                thread::sleep(Duration::from_millis(20));
            } else if line.ends_with('\n') {
                found += u64::from(line.contains(text));
                line.clear();
            }
        }
    }

    /// Sends Ctrl-C, and passes every line of the stream to `each`. Returns stderr and the exit status.
    pub(crate) fn interrupt(mut self, mut each: impl FnMut(&str)) -> (String, ExitStatus) {
        sys::kill(self.pid(), libc::SIGINT).expect("send Ctrl-C");
        let status = wait_in_time(&mut self.process, "pidns-trace");
        self.reader.take().into_iter().for_each(|reader| reader.join().expect("a reader does not panic"));
        let stream = BufReader::new(File::open(&self.stream).expect("open the stream"));
        for line in stream.lines() {
            let line = line.expect("the stream is valid UTF-8");
            again::hear(&line);
            each(&line);
        }
        (self.stderr.text(), status)
    }
}

impl Drop for FileTracer {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _gone_already = self.process.kill();
            let _reaped = self.process.wait();
            if thread::panicking() {
                eprintln!("stderr of pidns-trace: {}", self.stderr.text());
            }
        }
    }
}

/// A copy of the program in this directory that every user may run.
pub(crate) fn world_readable_copy(directory: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let copy = directory.join("pidns-trace");
    fs::copy(program(), &copy).expect("copy the program");
    for path in [directory, &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("make the program executable");
    }
    copy
}

/// Reads one line of a pipe, and closes the pipe.
pub(crate) fn first_line_only(stdout: ChildStdout) -> String {
    let mut line = String::new();
    BufReader::with_capacity(1, stdout).read_line(&mut line).expect("read the first line");
    line
}
