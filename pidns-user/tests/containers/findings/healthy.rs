//! Containers that are well: nothing is found about them, from their start to their end.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use super::stage::{HEALTHY, Stage, Subject, send, shell};
use crate::{
    containerd::{Containerd, ctr},
    docker::Docker,
    lxc::Lxc,
    podman::Podman,
    runc::Running,
    scratch::{Scratch, run, wait_until},
};

/// How long each runs, before and after a session in it.
const A_WHILE: Duration = Duration::from_secs(3);
/// What a session does.
const SESSION: &str = "(sleep 0.1 &); sleep 0.3; ls /bin";

/// A life: a while, a session, another while, and the end; then the findings after that.
#[track_caller]
fn lives(stage: Stage, subject: &Subject, session: impl FnOnce(), stop: impl FnOnce()) {
    thread::sleep(A_WHILE);
    session();
    thread::sleep(A_WHILE);
    stop();
    thread::sleep(A_WHILE);
    stage.only(&[], subject);
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn nothing_is_found_about_a_healthy_container_of_runc() {
    let (scratch, id) = (Scratch::new(), format!("pidns-well-{}", std::process::id()));
    let stage = Stage::new(&[]);
    let running = Running::start_with(scratch.path("runc"), &scratch, &id, |spec| {
        spec["process"]["args"] = json!(shell(HEALTHY));
    });
    let (subject, pid) = (stage.subject(&id, running.pid), running.pid);
    let runc = |args: &[&str]| {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(scratch.path("runc")).args(args);
        runc
    };
    let session = || drop(run(runc(&["exec", &id]).args(shell(SESSION))));
    let stop = || {
        run(&mut runc(&["kill", &id, "TERM"]));
        // The machine's own PID 1 reaps it, when it comes to it.
        wait_until("the container's end", || {
            !fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
        });
        drop(running);
    };
    lives(stage, &subject, session, stop);
}

#[test]
fn nothing_is_found_about_a_healthy_container_of_containerd() {
    let (scratch, id) = (Scratch::new(), format!("pidns-well-{}", std::process::id()));
    let _containerd = Containerd::start(&scratch);
    let stage = Stage::new(&[]);
    let running = crate::containerd::Running::start_program(&scratch, "default", &id, &[], &shell(HEALTHY));
    let (subject, pid) = (stage.subject(&id, running.pid), running.pid);
    let session = || {
        let exec = ["tasks", "exec", "--exec-id", "session", &id];
        run(ctr(&scratch, "default", &exec).args(shell(SESSION)));
    };
    let stop = || {
        run(&mut ctr(&scratch, "default", &["tasks", "kill", "--signal", "SIGTERM", &id]));
        wait_until("the container's end", || !is_there(pid));
        drop(running);
    };
    lives(stage, &subject, session, stop);
}

/// With these options of `run`.
#[track_caller]
fn podman(options: &[&str]) {
    let podman = Podman::with_image();
    let stage = Stage::new(&[]);
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    let run = [&["run", "--detach", "--network", "none"], &limits[..], options, &["pidns-busybox:1"]];
    let id = podman.run(&[&run.concat()[..], &shell(HEALTHY)].concat());
    let subject = stage.subject(&id, podman.pid(&id, "Pid")).with(podman.pid(&id, "ConmonPid"));
    let session = || drop(podman.run(&[&["exec", &id], &shell(SESSION)[..]].concat()));
    let stop = || drop(podman.run(&["stop", "--time", "60", &id]));
    lives(stage, &subject, session, stop);
}

#[test]
fn nothing_is_found_about_a_healthy_container_of_podman() {
    podman(&[]);
}

#[test]
fn nothing_is_found_about_a_healthy_container_of_podman_with_an_init() {
    // Podman's own is another package; Docker's does the same.
    podman(&["--init", "--init-path", "/usr/bin/docker-init"]);
}

/// With these options of `run`.
#[track_caller]
fn docker(options: &[&str]) {
    let docker = Docker::with_image();
    let stage = Stage::new(&[]);
    let run = [&["run", "--detach", "--network", "none"], options, &["pidns-busybox:1"]].concat();
    let id = docker.run(&[&run[..], &shell(HEALTHY)].concat());
    let subject = stage.subject(&id, docker.pid(&id));
    let session = || drop(docker.run(&[&["exec", &id], &shell(SESSION)[..]].concat()));
    let stop = || drop(docker.run(&["stop", "--time", "60", &id]));
    lives(stage, &subject, session, stop);
}

#[test]
fn nothing_is_found_about_a_healthy_container_of_docker() {
    docker(&[]);
}

#[test]
fn nothing_is_found_about_a_healthy_container_of_docker_with_an_init() {
    docker(&["--init"]);
}

#[test]
fn nothing_is_found_about_a_healthy_container_of_lxc() {
    let (scratch, name) = (Scratch::new(), format!("pidns-well-{}", std::process::id()));
    let lxc = Lxc::new(&scratch, "lxc", &name, HEALTHY);
    let stage = Stage::new(&[]);
    let pid = lxc.start();
    let subject = stage.subject(&name, pid);
    let session = || drop(run(lxc.command("lxc-attach", &["--"]).args(shell(SESSION))));
    let stop = || {
        send(pid, Signal::TERM);
        wait_until("the container's end", || !is_there(pid));
    };
    lives(stage, &subject, session, stop);
}
