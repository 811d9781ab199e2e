//! Recordings that a test writes: lines of JSON, as `record` writes them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

pub(crate) const HOST: u32 = 4026531836;
const SECOND: u64 = 1_000_000_000;

/// A recording that is built event by event.
#[derive(Default)]
pub(crate) struct RecordingBuilder {
    lines: Vec<Value>,
    /// Seconds by which the wall clock was set forward.
    pub(crate) step: u64,
}

/// A process. `pids` are its PIDs from the host inwards.
pub(crate) fn process(pids: &[u32], comm: &str, start: u64, ns: u32) -> Value {
    json!({"pid": pids[0], "pids": pids, "comm": comm, "start_boot_ns": start * SECOND, "ppid": 1, "uid": 0, "ns": ns})
}

/// A namespace directly below the host's, for a Docker container with this name.
pub(crate) fn namespace(inum: u32, born: u64, name: &str) -> Value {
    let container = json!({"runtime": "docker", "id": format!("{name}0123"), "name": name});
    json!({"inum": inum, "level": 1, "parent": HOST, "born_boot_ns": born * SECOND, "user_ns": 4026531837u32,
           "owner_uid": 0, "container": container})
}

impl RecordingBuilder {
    /// Starts a recording with the host's namespace and its init, 10 seconds after boot.
    pub(crate) fn begin() -> Self {
        let mut recording = Self::default();
        recording.start(10);
        recording
    }

    /// Adds the start of a stream.
    pub(crate) fn start(&mut self, second: u64) {
        let hooks = json!({"proc_free_inum": "fentry", "release_task": "fentry"});
        let events = ["process.reap", "namespace.destroy"];
        self.add_with_seq(second, "stream.start", Some(1), json!({
            "version": "0.1.0", "boot_time": "1970-01-01T00:16:40Z", "hooks": hooks, "filter": {"events": events}
        }));
        self.add(second, "snapshot.namespace", json!({"ns": {"inum": HOST, "level": 0}}));
        let init = process(&[1], "init", 0, HOST);
        self.add(
            second,
            "snapshot.process",
            json!({"process": init, "state": "S", "threads": 1, "joined": false}),
        );
    }

    /// Adds an event at this second after boot.
    pub(crate) fn add(&mut self, second: u64, event: &str, body: Value) {
        self.add_with_seq(second, event, None, body);
    }

    /// The same with another sequence number than the event would have.
    pub(crate) fn add_with_seq(&mut self, second: u64, event: &str, seq: Option<u64>, body: Value) {
        let next = self.lines.last().and_then(|line| line["seq"].as_u64()).unwrap_or(0) + 1;
        let time = 1_000 + second + self.step;
        let mut line = json!({
            "v": 1, "event": event, "seq": seq.unwrap_or(next), "boot_ns": second * SECOND,
            "time": format!("1970-01-01T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
        });
        let Value::Object(body) = body else { panic!("a body is an object") };
        line.as_object_mut().expect("an object").extend(body);
        self.lines.push(line);
    }

    /// Adds the start of a container with its PID 1.
    pub(crate) fn container(&mut self, second: u64, inum: u32, name: &str, pid: u32) {
        let ns = namespace(inum, second, name);
        let creator = process(&[1], "init", 0, HOST);
        self.add(second, "namespace.create", json!({"ns": ns, "via": "clone", "creator": creator}));
        let init = process(&[pid, 1], name, second, inum);
        self.add(second, "namespace.init", json!({"ns": ns, "process": init}));
        self.fork(second, &init);
    }

    /// Adds the fork of a process.
    pub(crate) fn fork(&mut self, second: u64, process: &Value) {
        let parent = self::process(&[1], "init", 0, HOST);
        self.add(second, "process.fork", json!({"process": process, "parent": parent}));
    }

    /// Adds the exit and the reap of a process.
    pub(crate) fn ends(&mut self, second: u64, process: &Value) {
        self.add(second, "process.exit", json!({"process": process, "exit": {"code": 0}, "ran_ns": SECOND}));
        self.add(second, "process.reap", json!({"process": process, "zombie_ns": 1}));
    }

    /// Adds the end of the stream.
    pub(crate) fn end(&mut self, second: u64) {
        let nothing = json!({});
        self.add(second, "stream.end", json!({
            "events": nothing, "lost": nothing, "kernel": nothing, "threads": {"created": 0, "ended": 0}, "duration_ns": 1
        }));
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Writes the recording to a file.
    pub(crate) fn file(&self) -> Recording {
        Recording::of(self.text().as_bytes())
    }
}

/// A file. Removed on drop.
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

/// The output of the program: exit code, stdout and stderr.
pub(crate) type Output = (i32, String, String);

impl Recording {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let directory = tempfile::tempdir().expect("create a temporary directory");
        let path = directory.path().join("it.ndjson");
        fs::write(&path, bytes).expect("write a temporary file");
        Self { path, _directory: directory }
    }

    /// Runs the program on the recording.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = program();
        match args {
            ["replay", rest @ ..] => command.arg("replay").arg(&self.path).args(rest),
            args => command.args(args).arg("--from").arg(&self.path),
        };
        let output = command.stdin(Stdio::null()).output().expect("run the program");
        let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
        (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
    }

    /// The output of the program, which must exit with 0.
    #[track_caller]
    pub(crate) fn shown(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
        stdout
    }

    /// The stderr of the program, which must exit with this code.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, args: &[&str]) -> String {
        let (found, stdout, stderr) = self.run(args);
        assert_eq!(found, code, "{args:?}: {stdout}{stderr}");
        stderr
    }
}

pub(crate) fn program() -> Command {
    let mut command = Command::new(crate::program::path());
    command.env("TZ", "UTC").env("NO_COLOR", "1");
    command
}
