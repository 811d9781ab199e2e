//! Faults of containers as users meet them: of Docker, and a session of runc.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::capture::{Capture, HEALTHY, Subject, facts, send, shell};
use crate::{
    docker::Docker,
    runc::{Foreground, run_for_output},
    scratch::{Scratch, processes_of, wait_until},
};

/// A Docker container.
struct Container<'a> {
    docker: &'a Docker,
    id: String,
    pid: u32,
}

impl<'a> Container<'a> {
    /// Runs a container with these extra options of `docker run`.
    #[track_caller]
    fn run(docker: &'a Docker, options: &[&str], program: &[&str]) -> Self {
        let run = [&["run", "--detach", "--network", "none"], options, &["pidns-busybox:1"], program];
        let id = docker.run(&run.concat());
        let pid = docker.pid(&id);
        Self { docker, id, pid }
    }

    fn stop(&self) {
        self.docker.run(&["stop", "--time", "60", &self.id]);
    }

    /// The PIDs of its processes without PID 1.
    fn others(&self) -> Vec<u32> {
        processes_of(&self.id).into_iter().filter(|&pid| pid != self.pid).collect()
    }
}

/// Checks that the sender of a signal is a runc that the container's shim started.
#[track_caller]
fn assert_is_runc_of(shim: &Value, sender: &Value) {
    assert_eq!((&sender["comm"], &sender["ppid"]), (&"runc".into(), shim), "{sender:#}");
}

#[test]
fn an_ignored_stop_signal_is_found_and_then_the_kill_with_its_sender() {
    let docker = Docker::with_image();
    let mut capture = Capture::new(&[]);
    let container = Container::run(&docker, &[], &["/bin/busybox", "sleep", "600"]);
    let subject = capture.subject(&container.id, container.pid);
    docker.run(&["stop", "--time", "4", &container.id]);
    let ignored = capture.opened("init-ignored-signal", &subject);
    assert_eq!(ignored["process"]["pid"], container.pid);
    let shim = &ignored["process"]["ppid"];
    let signal = facts(&ignored, "signal")[0];
    assert_eq!((&signal["signal"], &signal["from"]), (&"SIGTERM".into(), &"ancestor".into()));
    assert_is_runc_of(shim, &signal["sender"]);
    let killed = capture.opened("init-killed", &subject);
    assert_eq!((&killed["process"]["pid"], &killed["severity"]), (&container.pid.into(), &"warning".into()));
    let cause = &facts(&killed, "init_exit")[0]["cause"];
    assert_eq!((&cause["kind"], &cause["signal"]), (&"signal".into(), &"SIGKILL".into()));
    assert_is_runc_of(shim, &cause["sender"]);
    assert_eq!(facts(&killed, "signal").len(), 1, "the earlier SIGTERM: {killed:#}");
    capture.recorded(&killed);
    capture.closed(&ignored);
    capture.closed(&killed);
    capture.only(&["init-ignored-signal", "init-killed"], &subject);
}

/// A client that the test kills. If the test fails, it is killed on drop.
struct Client(Child);

impl Client {
    fn start(command: &mut Command) -> Self {
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(silent.spawn().expect("start the client"))
    }

    fn kill(mut self) {
        self.0.kill().expect("kill the client");
        self.0.wait().expect("wait for the client");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Waits for the process in the container that sleeps for this time.
#[track_caller]
fn sleeper(id: &str, seconds: &str) -> u32 {
    let is_it = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == format!("/bin/busybox\0sleep\0{seconds}\0").as_bytes()
    };
    let mut found = None;
    wait_until("the session's process", || {
        found = processes_of(id).into_iter().find(is_it);
        found.is_some()
    });
    found.expect("the process was found")
}

#[test]
fn an_old_docker_session_of_a_killed_client_is_found() {
    let docker = Docker::with_image();
    let mut capture = Capture::new(&["--joined-time=5s"]);
    let container = Container::run(&docker, &[], &shell(HEALTHY));
    let subject = capture.subject(&container.id, container.pid);
    let exec = ["exec", &container.id, "/bin/busybox", "sleep", "601"];
    let client = Client::start(&mut docker.containers.command(&exec));
    let session = sleeper(&container.id, "601");
    client.kill();
    let found = capture.opened("joined-leftover", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&session.into(), &"info".into()));
    let parent = facts(&found, "process").into_iter().find(|fact| fact["role"] == "parent");
    let shim = &parent.unwrap_or_else(|| panic!("no parent: {found:#}"))["process"];
    assert_eq!(shim["comm"], "containerd-shim", "the shim is its parent: {found:#}");
    capture.recorded(&found);
    send(session, Signal::KILL);
    capture.closed(&found);
    container.stop();
    capture.only(&["joined-leftover"], &subject);
}

#[test]
fn a_runc_session_of_a_killed_client_is_found_at_once() {
    let (scratch, id) = (Scratch::new(), format!("pidns-left-{}", std::process::id()));
    let root = scratch.path("runc");
    let mut capture = Capture::new(&[]);
    // A foreground container is a child of its runc, as others are of a shim.
    let keeper = Foreground::start(root.clone(), &scratch, &id, |spec| {
        spec["process"]["args"] = json!(shell(HEALTHY));
    });
    let subject = capture.subject(&id, keeper.pid());
    let mut exec = Command::new("runc");
    exec.arg("--root").arg(&root).args(["exec", &id, "/bin/busybox", "sleep", "602"]);
    let client = Client::start(&mut exec);
    let session = sleeper(&id, "602");
    client.kill();
    let found = capture.opened("joined-leftover", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&session.into(), &"warning".into()));
    capture.recorded(&found);
    send(session, Signal::KILL);
    capture.closed(&found);
    // The host's PID 1 reaps it, some only every two seconds. Until then it would block the teardown.
    wait_until("the session's process is reaped", || !Path::new(&format!("/proc/{session}")).exists());
    keeper.stop();
    capture.only(&["joined-leftover"], &subject);
}

/// A PID 1 that reaps nothing until it reads a line from the FIFO /go.
const REAPS_LATER: &str = "mkfifo /go; exec 3<>/go; until read x <&3; do :; done; trap 'exit 0' TERM; \
                           while :; do sleep 0.2 & wait $!; done";

#[test]
fn unreaped_orphans_of_a_health_check_are_found() {
    let docker = Docker::with_image();
    let mut capture = Capture::new(&[]);
    let health = ["--health-interval=1s", "--health-cmd", "sleep 0.1 & exit 0"];
    let container = Container::run(&docker, &health, &shell(REAPS_LATER));
    let subject = capture.subject(&container.id, container.pid);
    let found = capture.opened("zombies-not-reaped", &subject);
    assert_eq!((&found["process"]["pid"], &found["process"]["pids"][1]), (&container.pid.into(), &1.into()));
    let reaper = facts(&found, "process").into_iter().find(|fact| fact["role"] == "reaper");
    assert_eq!(reaper.unwrap_or_else(|| panic!("no reaper: {found:#}"))["process"]["pid"], container.pid);
    let zombies = facts(&found, "zombies")[0];
    assert_eq!(zombies["count"], zombies["orphans"], "all zombies come from the health check: {zombies:#}");
    assert_eq!(zombies["forked_by"][0]["comm"], "sh", "{zombies:#}");
    capture.recorded(&found);
    docker.run(&["exec", &container.id, "/bin/sh", "-c", "echo go > /go"]);
    capture.closed(&found);
    container.stop();
    capture.only(&["zombies-not-reaped"], &subject);
}

/// Allocates memory until none is left.
const TAKES_MEMORY: &str = "x=pidnspidns; while :; do x=$x$x; done";
const MEMORY: [&str; 4] = ["--memory", "32m", "--memory-swap", "32m"];

#[test]
fn an_oom_kill_of_pid_1_is_found() {
    let docker = Docker::with_image();
    let mut capture = Capture::new(&[]);
    // It starts to allocate when the test knows its PID.
    let script = format!("mkfifo /go; read x < /go; {TAKES_MEMORY}");
    let container = Container::run(&docker, &MEMORY, &shell(&script));
    let subject = capture.subject(&container.id, container.pid);
    let go = || {
        let go = ["exec", &container.id, "/bin/sh", "-c", "test -p /go && echo go > /go"];
        docker.containers.command(&go).status().is_ok_and(|status| status.success())
    };
    wait_until("the container's first step", go);
    let found = capture.opened("init-killed", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&container.pid.into(), &"critical".into()));
    let cause = &facts(&found, "init_exit")[0]["cause"];
    assert_eq!((&cause["kind"], &cause["victim"]["pid"]), (&"oom".into(), &container.pid.into()));
    capture.recorded(&found);
    capture.closed(&found);
    capture.only(&["init-killed"], &subject);
}

#[test]
fn an_oom_kill_of_a_child_is_found() {
    let docker = Docker::with_image();
    let mut capture = Capture::new(&[]);
    // PID 1 asks for no memory until the child is gone. Otherwise it can be killed as well, because the memory of a
    // killed process is not free at once.
    let script = format!("({TAKES_MEMORY}) & wait $!; {HEALTHY}");
    let container = Container::run(&docker, &MEMORY, &shell(&script));
    let subject = capture.subject(&container.id, container.pid);
    let found = capture.opened("member-oom-killed", &subject);
    let kill = facts(&found, "oom_kill");
    let (killed, pids) = (&kill[0]["process"], &kill[0]["process"]["pids"]);
    assert_eq!((kill.len(), &killed["ppid"], &killed["comm"]), (1, &container.pid.into(), &"sh".into()));
    assert!(pids[1].as_u64().is_some_and(|pid| pid > 1), "no PID 1: {found:#}");
    capture.recorded(&found);
    capture.closed(&found);
    container.stop();
    capture.only(&["member-oom-killed"], &subject);
}

#[test]
fn a_container_in_the_hosts_namespace_is_found_with_its_main_process() {
    let docker = Docker::with_image();
    let mut capture = Capture::new(&[]);
    let container = Container::run(&docker, &["--pid=host"], &shell(HEALTHY));
    let subject = Subject::sharing(&container.id, container.pid);
    let found = capture.opened("no-cascade", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&container.pid.into(), &"info".into()));
    assert_eq!(found["ns"]["container"]["id"], container.id.as_str());
    capture.recorded(&found);
    // `findings` must report the same, and only for this container.
    let (document, _) = run_for_output(&["findings", &container.id, "-o", "json"], 1);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let ids: Vec<&Value> =
        document["findings"].as_array().expect("findings").iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["no-cascade"], "{document:#}");
    container.stop();
    capture.closed(&found);
    capture.only(&["no-cascade"], &subject);
}

#[test]
fn a_reached_pid_limit_is_found_with_its_cgroup() {
    const LIMIT: u32 = 40;
    let docker = Docker::with_image();
    let mut capture = Capture::new(&[]);
    // A shell that cannot fork ends. PID 1 must not, so a subshell forks.
    let script = "trap 'exit 0' TERM; (while :; do sleep 603 & done); while :; do sleep 0.2 & wait $!; done";
    let limit = format!("--pids-limit={LIMIT}");
    let container = Container::run(&docker, &[&limit], &shell(script));
    let subject = capture.subject(&container.id, container.pid);
    let found = capture.opened("pid-exhaustion", &subject);
    let found = capture.with_fact(&found, "refused_fork", |fact| fact["reason"] == "pids_cgroup");
    assert_eq!(found["severity"], "critical");
    assert_eq!(facts(&found, "refused_fork")[0]["process"]["comm"], "sh", "{found:#}");
    // The limit is a fact if it was read. The hook that saw the refusal has the id of the cgroup.
    capture.with_fact(&found, "limit", |fact| {
        let limit = &fact["limit"];
        let is_its = limit["cgroup"].as_str().is_some_and(|path| path.ends_with(&container.id));
        is_its && limit["kind"] == "pids_cgroup" && limit["value"] == LIMIT
    });
    capture.recorded(&found);
    std::thread::sleep(Duration::from_secs(1));
    let sleeps =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x00603\x00");
    for pid in container.others().into_iter().filter(sleeps) {
        send(pid, Signal::KILL);
    }
    capture.closed(&found);
    container.stop();
    capture.only(&["pid-exhaustion"], &subject);
}
