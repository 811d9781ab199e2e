//! Healthy containers cause no findings from start to stop.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use super::capture::{Capture, HEALTHY, Subject, send, shell};
use crate::{
    containerd::{Containerd, ctr},
    docker::Docker,
    lxc::Lxc,
    podman::Podman,
    runc::Running,
    scratch::{Scratch, run, wait_until},
};

/// Time before, between and after the steps.
const MIN_INTERVAL: Duration = Duration::from_secs(3);
/// The commands of a session.
const SESSION: &str = "(sleep 0.1 &); sleep 0.3; ls /bin";

/// Runs, executes a session, stops, and then expects no findings.
#[track_caller]
fn assert_no_findings_through(
    capture: Capture,
    subject: &Subject,
    session: impl FnOnce(),
    stop: impl FnOnce(),
) {
    thread::sleep(MIN_INTERVAL);
    session();
    thread::sleep(MIN_INTERVAL);
    stop();
    thread::sleep(MIN_INTERVAL);
    capture.only(&[], subject);
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn healthy_runc_container_has_no_findings() {
    let (scratch, id) = (Scratch::new(), format!("pidns-well-{}", std::process::id()));
    let capture = Capture::new(&[]);
    let running = Running::start_with(scratch.path("runc"), &scratch, &id, |spec| {
        spec["process"]["args"] = json!(shell(HEALTHY));
    });
    let (subject, pid) = (capture.subject(&id, running.pid), running.pid);
    let runc = |args: &[&str]| {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(scratch.path("runc")).args(args);
        runc
    };
    let session = || drop(run(runc(&["exec", &id]).args(shell(SESSION))));
    let stop = || {
        run(&mut runc(&["kill", &id, "TERM"]));
        // The host's init reaps it eventually, so an empty cmdline is enough.
        wait_until("the container's end", || {
            !fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
        });
        drop(running);
    };
    assert_no_findings_through(capture, &subject, session, stop);
}

#[test]
fn healthy_containerd_container_has_no_findings() {
    let (scratch, id) = (Scratch::new(), format!("pidns-well-{}", std::process::id()));
    let _containerd = Containerd::start(&scratch);
    let capture = Capture::new(&[]);
    let running = crate::containerd::Running::start_program(&scratch, "default", &id, &[], &shell(HEALTHY));
    let (subject, pid) = (capture.subject(&id, running.pid), running.pid);
    let session = || {
        let exec = ["tasks", "exec", "--exec-id", "session", &id];
        run(ctr(&scratch, "default", &exec).args(shell(SESSION)));
    };
    let stop = || {
        run(&mut ctr(&scratch, "default", &["tasks", "kill", "--signal", "SIGTERM", &id]));
        wait_until("the container's end", || !exists(pid));
        drop(running);
    };
    assert_no_findings_through(capture, &subject, session, stop);
}

/// Runs the scenario with these extra options of `podman run`.
#[track_caller]
fn podman(options: &[&str]) {
    let podman = Podman::with_image();
    let capture = Capture::new(&[]);
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
    let run = [&["run", "--detach", "--network", "none"], &limits[..], options, &["pidns-busybox:1"]];
    let id = podman.run(&[&run.concat()[..], &shell(HEALTHY)].concat());
    let subject = capture.subject(&id, podman.pid(&id, "Pid")).with(podman.pid(&id, "ConmonPid"));
    let session = || drop(podman.run(&[&["exec", &id], &shell(SESSION)[..]].concat()));
    let stop = || drop(podman.run(&["stop", "--time", "60", &id]));
    assert_no_findings_through(capture, &subject, session, stop);
}

#[test]
fn healthy_podman_container_has_no_findings() {
    podman(&[]);
}

#[test]
fn healthy_podman_container_with_an_init_has_no_findings() {
    // Podman's own init is a separate package. docker-init works too.
    podman(&["--init", "--init-path", "/usr/bin/docker-init"]);
}

/// Runs the scenario with these extra options of `docker run`.
#[track_caller]
fn docker(options: &[&str]) {
    let docker = Docker::with_image();
    let capture = Capture::new(&[]);
    let run = [&["run", "--detach", "--network", "none"], options, &["pidns-busybox:1"]].concat();
    let id = docker.run(&[&run[..], &shell(HEALTHY)].concat());
    let subject = capture.subject(&id, docker.pid(&id));
    let session = || drop(docker.run(&[&["exec", &id], &shell(SESSION)[..]].concat()));
    let stop = || drop(docker.run(&["stop", "--time", "60", &id]));
    assert_no_findings_through(capture, &subject, session, stop);
}

#[test]
fn healthy_docker_container_has_no_findings() {
    docker(&[]);
}

#[test]
fn healthy_docker_container_with_an_init_has_no_findings() {
    docker(&["--init"]);
}

#[test]
fn healthy_lxc_container_has_no_findings() {
    let (scratch, name) = (Scratch::new(), format!("pidns-well-{}", std::process::id()));
    let lxc = Lxc::new(&scratch, "lxc", &name, HEALTHY);
    let capture = Capture::new(&[]);
    let pid = lxc.start();
    let subject = capture.subject(&name, pid);
    let session = || drop(run(lxc.command("lxc-attach", &["--"]).args(shell(SESSION))));
    let stop = || {
        send(pid, Signal::TERM);
        wait_until("the container's end", || !exists(pid));
    };
    assert_no_findings_through(capture, &subject, session, stop);
}
