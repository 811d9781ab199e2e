//! Containers in the live stream and in recordings.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::Duration,
};

use pidns_user::container::Roots;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    runc::{Running, exec, run_for_output},
    scratch::{Scratch, wait_until},
};

/// The program, which streams into a file. Stopped on drop.
pub(crate) struct Stream {
    child: Child,
    _stderr: BufReader<ChildStderr>,
}

impl Stream {
    /// Starts the program, and waits until it streams.
    pub(crate) fn start(args: &[&str], to: &Path) -> Self {
        let mut command = Command::new(crate::program::path());
        command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
        let to_stdout = args[0] != "record";
        command.stdout(if to_stdout {
            Stdio::from(File::create(to).expect("create the file"))
        } else {
            Stdio::null()
        });
        let mut child = command.spawn().expect("start the program");
        let stderr = BufReader::new(child.stderr.take().expect("stderr is a pipe"));
        let stream = Self { child, _stderr: stderr };
        wait_until("the stream's start", || fs::metadata(to).is_ok_and(|file| file.len() > 0));
        stream
    }

    pub(crate) fn end(mut self) {
        self.interrupt();
        assert!(self.child.wait().expect("wait for the program").success());
    }

    fn interrupt(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone_already = kill_process(pid, Signal::INT);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.interrupt();
        let _ended_already = self.child.wait();
    }
}

pub(crate) fn lines(file: &Path) -> Vec<Value> {
    let lines = BufReader::new(File::open(file).expect("open the stream's file")).lines();
    lines.map(|line| serde_json::from_str(&line.expect("text")).expect("JSON")).collect()
}

pub(crate) fn of_event<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

fn ids(last: [&str; 2]) -> [String; 2] {
    last.map(|last| format!("pidns-stream-{}-{last}", std::process::id()))
}

#[test]
fn the_stream_names_earlier_and_later_containers() {
    let scratch = Scratch::new();
    let [before, later] = ids(["before", "later"]);
    let root = || Roots::host().runc;
    let first = Running::start_in(root(), &scratch, &before, &json!({}));
    let [json, table] = ["json", "table"].map(|name| scratch.path(name));
    let both = ["-c", before.as_str(), "-c", later.as_str()];
    let stream = Stream::start(&[&["-o", "json"], &both[..]].concat(), &json);
    let people = Stream::start(&["--container", &later], &table);
    let joined = exec(&first.root, &scratch, &before);
    let second = Running::start_in(root(), &scratch, &later, &json!({}));
    let (first_pid, second_pid) = (first.pid, second.pid);
    drop(second);
    drop(first);
    people.end();
    stream.end();

    let lines = lines(&json);
    let execs = of_event(&lines, "process.exec");
    assert!(
        execs.iter().any(|line| line["process"]["pid"] == joined),
        "expected the process that joined the earlier container: {execs:#?}"
    );
    for (pid, id) in [(first_pid, &before), (second_pid, &later)] {
        let exits = of_event(&lines, "namespace.init_exit");
        let exit = exits.iter().find(|line| line["process"]["pid"] == pid);
        let exit = exit.unwrap_or_else(|| panic!("no init_exit of {pid}: {exits:#?}"));
        assert_eq!(exit["ns"]["container"]["id"], **id);
        assert_eq!(exit["ns"]["container"]["runtime"], "runc");
    }
    let foreign = lines.iter().filter_map(|line| line["ns"].as_object());
    for ns in foreign {
        let id = ns["container"]["id"].as_str();
        assert!(id == Some(&before) || id == Some(&later), "not selected: {ns:?}");
    }

    let table = fs::read_to_string(table).expect("read the stream's table");
    let column = table.lines().next().and_then(|heading| heading.find("CONTAINER")).expect("a heading");
    let exit = table.lines().find(|line| line.contains("init exit")).expect("no end of the later container");
    let container: String = exit.chars().skip(column).collect();
    assert!(container.starts_with("runc/pidns-stream"), "{table}");
    assert!(!table.contains(&before), "{table}");
}

#[test]
fn a_namespace_filter_accepts_the_name_of_a_running_container() {
    let scratch = Scratch::new();
    let [one, other] = ids(["one", "other"]);
    let running = Running::start_in(Roots::host().runc, &scratch, &one, &json!({}));
    let json = scratch.path("json");
    let stream = Stream::start(&["-o", "json", "-n", &one], &json);
    drop(running);
    stream.end();
    let lines = lines(&json);
    assert_eq!(of_event(&lines, "namespace.init_exit").len(), 1, "{lines:#?}");
    let (_, stderr) = run_for_output(&["-n", &other, "--duration", "1s"], 2);
    assert!(stderr.contains(&other), "{stderr}");
}

#[test]
fn a_recording_keeps_the_names_of_ended_containers() {
    let scratch = Scratch::new();
    let [before, later] = ids(["r-before", "r-later"]);
    let root = || Roots::host().runc;
    let annotations = json!({"org.opencontainers.image.ref.name": "busybox:1"});
    let first = Running::start_in(root(), &scratch, &before, &annotations);
    let file = scratch.path("recording.ndjson");
    let name = scratch.arg("recording.ndjson");
    let recorder = Stream::start(&["record", &name], &file);
    let second = Running::start_in(root(), &scratch, &later, &json!({}));
    let second_pid = second.pid;
    // The recorder reads the name when the container's program starts. On a busy machine that takes time, and the name
    // appears only with the next event.
    thread::sleep(Duration::from_secs(2));
    drop(second);
    recorder.end();
    let first_pid = first.pid;
    drop(first);

    let snapshots = lines(&file);
    let snapshots = of_event(&snapshots, "snapshot.namespace");
    let existed = snapshots.iter().find(|line| line["ns"]["container"]["id"] == before.as_str());
    assert_eq!(
        existed.expect("the recording begins with the earlier container")["ns"]["container"]["image"],
        "busybox:1"
    );

    let (replayed, _) = run_for_output(&["replay", &name, "-o", "json", "-c", &later], 0);
    let replayed: Vec<Value> =
        replayed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let exits = of_event(&replayed, "namespace.init_exit");
    assert_eq!(exits.len(), 1, "{replayed:#?}");
    assert_eq!(exits[0]["process"]["pid"], second_pid);
    let inits = of_event(&replayed, "namespace.init");
    assert_eq!(inits.len(), 1, "expected the first events, which have no name yet: {replayed:#?}");
    assert_eq!(inits[0]["process"]["pid"], second_pid);
    assert_eq!(of_event(&replayed, "namespace.create").len(), 1, "{replayed:#?}");

    let (tree, _) = run_for_output(&["tree", "--from", &name, "-o", "json"], 0);
    let tree: Value = serde_json::from_str(&tree).expect("JSON");
    let namespaces = tree["namespaces"].as_array().expect("namespaces");
    let ours = namespaces
        .iter()
        .find(|line| line["init"]["pid"] == first_pid)
        .expect("the container ran until the end");
    assert_eq!(ours["ns"]["container"]["id"], before.as_str());
}
