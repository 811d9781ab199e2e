//! What goes wrong in containers, as people meet it: each of Docker's, and a session of runc.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::stage::{HEALTHY, Stage, Subject, facts, send, shell};
use crate::{
    docker::Docker,
    runc::{Foreground, run_for_output},
    scratch::{Scratch, processes_of, wait_until},
};

/// A container of Docker.
struct Container<'a> {
    docker: &'a Docker,
    id: String,
    pid: u32,
}

impl<'a> Container<'a> {
    /// With these options of `run`.
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

    /// The PIDs of its processes besides PID 1.
    fn others(&self) -> Vec<u32> {
        processes_of(&self.id).into_iter().filter(|&pid| pid != self.pid).collect()
    }
}

/// The sender of a signal, or of the signal that ended a process: a runc that the container's shim started.
#[track_caller]
fn assert_is_runc_of(shim: &Value, sender: &Value) {
    assert_eq!((&sender["comm"], &sender["ppid"]), (&"runc".into(), shim), "{sender:#}");
}

#[test]
fn a_stop_that_pid_1_has_no_handler_for_is_found_and_then_the_kill_with_its_sender() {
    let docker = Docker::with_image();
    let mut stage = Stage::new(&[]);
    let container = Container::run(&docker, &[], &["/bin/busybox", "sleep", "600"]);
    let subject = stage.subject(&container.id, container.pid);
    docker.run(&["stop", "--time", "4", &container.id]);
    let ignored = stage.opened("init-ignored-signal", &subject);
    assert_eq!(ignored["process"]["pid"], container.pid);
    let shim = &ignored["process"]["ppid"];
    let signal = facts(&ignored, "signal")[0];
    assert_eq!((&signal["signal"], &signal["from"]), (&"SIGTERM".into(), &"ancestor".into()));
    assert_is_runc_of(shim, &signal["sender"]);
    let killed = stage.opened("init-killed", &subject);
    assert_eq!((&killed["process"]["pid"], &killed["severity"]), (&container.pid.into(), &"warning".into()));
    let cause = &facts(&killed, "init_exit")[0]["cause"];
    assert_eq!((&cause["kind"], &cause["signal"]), (&"signal".into(), &"SIGKILL".into()));
    assert_is_runc_of(shim, &cause["sender"]);
    assert_eq!(facts(&killed, "signal").len(), 1, "what was tried before: {killed:#}");
    stage.recorded(&killed);
    stage.closed(&ignored);
    stage.closed(&killed);
    stage.only(&["init-ignored-signal", "init-killed"], &subject);
}

/// A client that is killed, and not let run on where the test fails.
struct Client(Child);

impl Client {
    fn start(command: &mut Command) -> Self {
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(silent.spawn().expect("it ran a moment ago"))
    }

    fn kill(mut self) {
        self.0.kill().expect("it waits for its session");
        self.0.wait().expect("our own child");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The process that sleeps for so long in the container, when it is there.
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
    found.expect("it was waited for")
}

#[test]
fn a_session_of_docker_whose_client_was_killed_is_found_when_it_is_old() {
    let docker = Docker::with_image();
    let mut stage = Stage::new(&["--joined-time=5s"]);
    let container = Container::run(&docker, &[], &shell(HEALTHY));
    let subject = stage.subject(&container.id, container.pid);
    let exec = ["exec", &container.id, "/bin/busybox", "sleep", "601"];
    let client = Client::start(&mut docker.containers.command(&exec));
    let session = sleeper(&container.id, "601");
    client.kill();
    let found = stage.opened("joined-leftover", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&session.into(), &"info".into()));
    let parent = facts(&found, "process").into_iter().find(|fact| fact["role"] == "parent");
    let shim = &parent.unwrap_or_else(|| panic!("no parent: {found:#}"))["process"];
    assert_eq!(shim["comm"], "containerd-shim", "which keeps it: {found:#}");
    stage.recorded(&found);
    send(session, Signal::KILL);
    stage.closed(&found);
    container.stop();
    stage.only(&["joined-leftover"], &subject);
}

#[test]
fn a_session_of_runc_whose_client_was_killed_is_found_at_once() {
    let (scratch, id) = (Scratch::new(), format!("pidns-left-{}", std::process::id()));
    let root = scratch.path("runc");
    let mut stage = Stage::new(&[]);
    // A foreground container is its runc's child, as it is a shim's elsewhere.
    let keeper = Foreground::start(root.clone(), &scratch, &id, |spec| {
        spec["process"]["args"] = json!(shell(HEALTHY));
    });
    let subject = stage.subject(&id, keeper.pid());
    let mut exec = Command::new("runc");
    exec.arg("--root").arg(&root).args(["exec", &id, "/bin/busybox", "sleep", "602"]);
    let client = Client::start(&mut exec);
    let session = sleeper(&id, "602");
    client.kill();
    let found = stage.opened("joined-leftover", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&session.into(), &"warning".into()));
    stage.recorded(&found);
    send(session, Signal::KILL);
    stage.closed(&found);
    keeper.stop();
    stage.only(&["joined-leftover"], &subject);
}

/// A PID 1 that reaps nothing until it is asked to, through a file of its own.
const REAPS_LATER: &str = "mkfifo /go; exec 3<>/go; until read x <&3; do :; done; trap 'exit 0' TERM; \
                           while :; do sleep 0.2 & wait $!; done";

#[test]
fn orphans_of_a_health_check_that_pid_1_does_not_reap_are_found() {
    let docker = Docker::with_image();
    let mut stage = Stage::new(&[]);
    let health = ["--health-interval=1s", "--health-cmd", "sleep 0.1 & exit 0"];
    let container = Container::run(&docker, &health, &shell(REAPS_LATER));
    let subject = stage.subject(&container.id, container.pid);
    let found = stage.opened("zombies-not-reaped", &subject);
    assert_eq!((&found["process"]["pid"], &found["process"]["pids"][1]), (&container.pid.into(), &1.into()));
    let reaper = facts(&found, "process").into_iter().find(|fact| fact["role"] == "reaper");
    assert_eq!(reaper.unwrap_or_else(|| panic!("no reaper: {found:#}"))["process"]["pid"], container.pid);
    let zombies = facts(&found, "zombies")[0];
    assert_eq!(zombies["count"], zombies["orphans"], "all are the health check's: {zombies:#}");
    assert_eq!(zombies["forked_by"][0]["comm"], "sh", "{zombies:#}");
    stage.recorded(&found);
    docker.run(&["exec", &container.id, "/bin/sh", "-c", "echo go > /go"]);
    stage.closed(&found);
    container.stop();
    stage.only(&["zombies-not-reaped"], &subject);
}

/// Takes memory until there is none.
const TAKES_MEMORY: &str = "x=pidnspidns; while :; do x=$x$x; done";
const MEMORY: [&str; 4] = ["--memory", "32m", "--memory-swap", "32m"];

#[test]
fn a_pid_1_that_memory_ran_out_for_is_found() {
    let docker = Docker::with_image();
    let mut stage = Stage::new(&[]);
    // It begins when its PID is known.
    let script = format!("mkfifo /go; read x < /go; {TAKES_MEMORY}");
    let container = Container::run(&docker, &MEMORY, &shell(&script));
    let subject = stage.subject(&container.id, container.pid);
    let go = || {
        let go = ["exec", &container.id, "/bin/sh", "-c", "test -p /go && echo go > /go"];
        docker.containers.command(&go).status().is_ok_and(|status| status.success())
    };
    wait_until("the container's first step", go);
    let found = stage.opened("init-killed", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&container.pid.into(), &"critical".into()));
    let cause = &facts(&found, "init_exit")[0]["cause"];
    assert_eq!((&cause["kind"], &cause["victim"]["pid"]), (&"oom".into(), &container.pid.into()));
    stage.recorded(&found);
    stage.closed(&found);
    stage.only(&["init-killed"], &subject);
}

#[test]
fn a_child_that_memory_ran_out_for_is_found() {
    let docker = Docker::with_image();
    let mut stage = Stage::new(&[]);
    let script = format!("({TAKES_MEMORY}) & {HEALTHY}");
    let container = Container::run(&docker, &MEMORY, &shell(&script));
    let subject = stage.subject(&container.id, container.pid);
    let found = stage.opened("member-oom-killed", &subject);
    let kill = facts(&found, "oom_kill");
    let (killed, pids) = (&kill[0]["process"], &kill[0]["process"]["pids"]);
    assert_eq!((kill.len(), &killed["ppid"], &killed["comm"]), (1, &container.pid.into(), &"sh".into()));
    assert!(pids[1].as_u64().is_some_and(|pid| pid > 1), "no PID 1: {found:#}");
    stage.recorded(&found);
    stage.closed(&found);
    container.stop();
    stage.only(&["member-oom-killed"], &subject);
}

#[test]
fn a_container_in_the_hosts_namespace_is_found_with_its_main_process() {
    let docker = Docker::with_image();
    let mut stage = Stage::new(&[]);
    let container = Container::run(&docker, &["--pid=host"], &shell(HEALTHY));
    let subject = Subject::sharing(&container.id, container.pid);
    let found = stage.opened("no-cascade", &subject);
    assert_eq!((&found["process"]["pid"], &found["severity"]), (&container.pid.into(), &"info".into()));
    assert_eq!(found["ns"]["container"]["id"], container.id.as_str());
    stage.recorded(&found);
    // Findings of a while, and of this container alone.
    let (document, _) = run_for_output(&["findings", &container.id, "-o", "json"], 1);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let ids: Vec<&Value> =
        document["findings"].as_array().expect("findings").iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["no-cascade"], "{document:#}");
    container.stop();
    stage.closed(&found);
    stage.only(&["no-cascade"], &subject);
}

#[test]
fn a_limit_on_pids_that_is_reached_is_found_with_its_cgroup() {
    const LIMIT: u32 = 40;
    let docker = Docker::with_image();
    let mut stage = Stage::new(&[]);
    // A shell that cannot fork ends: not PID 1.
    let script = "trap 'exit 0' TERM; (while :; do sleep 603 & done); while :; do sleep 0.2 & wait $!; done";
    let limit = format!("--pids-limit={LIMIT}");
    let container = Container::run(&docker, &[&limit], &shell(script));
    let subject = stage.subject(&container.id, container.pid);
    let found = stage.opened("pid-exhaustion", &subject);
    assert_eq!(found["severity"], "critical");
    let found = stage.with_fact(&found, "refused_fork", |fact| fact["reason"] == "pids_cgroup");
    assert_eq!(facts(&found, "refused_fork")[0]["process"]["comm"], "sh", "{found:#}");
    // Where it was read: the hook that saw the refusal has the cgroup's number.
    stage.with_fact(&found, "limit", |fact| {
        let limit = &fact["limit"];
        let is_its = limit["cgroup"].as_str().is_some_and(|path| path.ends_with(&container.id));
        is_its && limit["kind"] == "pids_cgroup" && limit["value"] == LIMIT
    });
    stage.recorded(&found);
    std::thread::sleep(Duration::from_secs(1));
    let sleeps =
        |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x00603\x00");
    for pid in container.others().into_iter().filter(sleeps) {
        send(pid, Signal::KILL);
    }
    stage.closed(&found);
    container.stop();
    stage.only(&["pid-exhaustion"], &subject);
}
