//! runc, called directly, on a bundle of busybox.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use pidns_user::container::{ContainerCache, Roots};
use pidns_user::event::container::Runtime;
use serde_json::{Value, json};

use crate::scratch::{
    SLEEP, Scratch, assert_another_start_is_not_believed, container_of, name, output, process, run,
    sure_container_of, wait_until,
};

/// A runc container. Stopped on drop.
pub(crate) struct Running<'a> {
    /// The directory of runc's state.
    pub(crate) root: PathBuf,
    id: &'a str,
    pub(crate) pid: u32,
}

fn runc(root: &Path) -> Command {
    let mut runc = Command::new("runc");
    runc.arg("--root").arg(root);
    runc
}

fn roots(scratch: &Scratch) -> Roots {
    Roots { runc: scratch.path("runc"), ..Roots::host() }
}

impl<'a> Running<'a> {
    fn start(scratch: &Scratch, id: &'a str, annotations: &Value) -> Self {
        Self::start_in(scratch.path("runc"), scratch, id, annotations)
    }

    pub(crate) fn start_in(root: PathBuf, scratch: &Scratch, id: &'a str, annotations: &Value) -> Self {
        Self::start_with(root, scratch, id, |spec| spec["annotations"] = annotations.clone())
    }

    /// Starts a container after `change` has changed its configuration.
    pub(crate) fn start_with(
        root: PathBuf,
        scratch: &Scratch,
        id: &'a str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        write_config(&root, scratch, change);
        let pid_file = scratch.path("pid");
        let mut start = runc(&root);
        start
            .arg("run")
            .arg("--detach")
            .arg("--bundle")
            .arg(scratch.path(""))
            .arg("--pid-file")
            .arg(&pid_file);
        // Log into a file: the container keeps the descriptors, so a pipe would never end.
        let log = fs::File::create(scratch.path("log")).expect("create the file");
        start
            .arg(id)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate the descriptor"))
            .stderr(log);
        let status = start.status().unwrap_or_else(|error| {
            panic!("runc does not start ({error}): `cargo xtask setup` installs it");
        });
        let log = fs::read_to_string(scratch.path("log")).unwrap_or_default();
        assert!(status.success(), "{start:?}: {status}: {log}");
        let pid =
            fs::read_to_string(&pid_file).expect("read the PID file of runc").trim().parse().expect("a PID");
        Self { root, id, pid }
    }
}

/// Writes the bundle's configuration after `change` has changed it.
fn write_config(root: &Path, scratch: &Scratch, change: impl FnOnce(&mut Value)) {
    scratch.rootfs();
    let config = scratch.path("config.json");
    let _made_anew = fs::remove_file(&config);
    run(runc(root).arg("spec").arg("--bundle").arg(scratch.path("")));
    let mut spec: Value =
        serde_json::from_slice(&fs::read(&config).expect("read the configuration of runc")).expect("JSON");
    spec["process"]["args"] = json!(SLEEP);
    spec["process"]["terminal"] = json!(false);
    // Raising a limit needs a capability that not every machine grants.
    spec["process"]["rlimits"] = json!([]);
    change(&mut spec);
    fs::write(&config, spec.to_string()).expect("write the configuration");
}

/// A container whose runc waits for it as its parent. Stopped on drop.
pub(crate) struct Foreground<'a> {
    keeper: Child,
    container: Running<'a>,
}

impl<'a> Foreground<'a> {
    pub(crate) fn start(
        root: PathBuf,
        scratch: &Scratch,
        id: &'a str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        write_config(&root, scratch, change);
        let pid_file = scratch.path("pid");
        let mut start = runc(&root);
        start.arg("run").arg("--bundle").arg(scratch.path("")).arg("--pid-file").arg(&pid_file).arg(id);
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = start.spawn().unwrap_or_else(|error| {
            panic!("runc does not start ({error}): `cargo xtask setup` installs it");
        });
        let mut pid = None;
        wait_until("the container", || {
            pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        Self { keeper, container: Running { root, id, pid: pid.expect("the PID was found") } }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.container.pid
    }

    /// Sends SIGTERM to its PID 1, which must have a handler. Waits for runc, which ends with it.
    pub(crate) fn stop(mut self) {
        run(runc(&self.container.root).args(["kill", self.container.id, "TERM"]));
        self.keeper.wait().expect("wait for runc");
    }
}

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        output(runc(&self.container.root).args(["delete", "--force", self.container.id]));
        let _ended_already = self.keeper.kill();
        let _reaped = self.keeper.wait();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        output(runc(&self.root).args(["delete", "--force", self.id]));
    }
}

/// Starts another process in the container. Returns its PID.
pub(crate) fn exec(root: &Path, scratch: &Scratch, id: &str) -> u32 {
    let pid_file = scratch.path("exec");
    let log = fs::File::create(scratch.path("log")).expect("create the file");
    let mut exec = runc(root);
    exec.args(["exec", "--detach", "--pid-file"]).arg(&pid_file).arg(id).args(SLEEP);
    exec.stdin(Stdio::null()).stdout(log.try_clone().expect("duplicate the descriptor")).stderr(log);
    assert!(exec.status().expect("start runc").success(), "{exec:?}");
    fs::read_to_string(&pid_file).expect("read the PID file of runc").trim().parse().expect("a PID")
}

#[test]
fn a_plain_runc_container_is_found_by_its_state() {
    let scratch = Scratch::new();
    let id = format!("pidns-{}", std::process::id());
    let annotations = json!({"org.opencontainers.image.ref.name": "busybox:1"});
    let running = Running::start(&scratch, &id, &annotations);
    let mut cache = ContainerCache::new(roots(&scratch));
    let container = sure_container_of(&mut cache, running.pid);
    assert_eq!(container.runtime, Some(Runtime::Runc));
    assert_eq!((&container.id, &container.image), (&name(&id), &name("busybox:1")));
    assert_another_start_is_not_believed(ContainerCache::new(roots(&scratch)), running.pid);

    let first = process(running.pid);
    drop(running);
    wait_until("the container's end", || !Path::new(&format!("/proc/{}", first.pid)).exists());
    assert_eq!(cache.last_known(first).and_then(|found| found.id.clone()), name(&id));

    let again = Running::start(&scratch, &id, &json!({"org.opencontainers.image.ref.name": "busybox:2"}));
    let container = sure_container_of(&mut cache, again.pid);
    assert_eq!(container.image, name("busybox:2"), "the second container with this id");
    assert_eq!(cache.last_known(first).and_then(|found| found.image.clone()), name("busybox:1"));
}

/// Runs the program, which must exit with this code. Returns its output.
pub(crate) fn run_for_output(args: &[&str], code: i32) -> (String, String) {
    let output = output(Command::new(crate::program::path()).args(args));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    (stdout, stderr)
}

#[test]
fn the_commands_name_a_container_and_find_it_by_its_name() {
    let scratch = Scratch::new();
    let ids = ["a", "b"].map(|last| format!("pidns-named-{}-{last}", std::process::id()));
    let annotations = json!({"org.opencontainers.image.ref.name": "busybox:1"});
    let first = Running::start_in(Roots::host().runc, &scratch, &ids[0], &annotations);
    let (tree, _) = run_for_output(&["tree", "-o", "json", &ids[0]], 0);
    let tree: Value = serde_json::from_str(&tree).expect("JSON");
    let namespace = &tree["namespaces"][0];
    assert_eq!(namespace["init"]["pid"], first.pid, "{tree:#}");
    assert_eq!(namespace["ns"]["container"]["id"], ids[0]);
    assert_eq!(namespace["ns"]["container"]["image"], "busybox:1");
    let (table, _) = run_for_output(&["tree", &ids[0]], 0);
    assert!(table.contains(&format!("runc/{}", &ids[0][..12])) || table.contains(&ids[0]), "{table}");
    let (levels, _) = run_for_output(&["pid", "1", "--in", &ids[0], "-o", "json"], 0);
    let levels: Value = serde_json::from_str(&levels).expect("JSON");
    assert_eq!(levels["process"]["pid"], first.pid);

    let _second = Running::start_in(Roots::host().runc, &scratch, &ids[1], &annotations);
    let common = &ids[0][..ids[0].len() - 1];
    let (_, stderr) = run_for_output(&["ps", common], 1);
    assert!(ids.iter().all(|id| stderr.contains(id.as_str())), "a user-chosen id is a name: {stderr}");
    let (_, stderr) = run_for_output(&["ps", &format!("{common}c")], 1);
    assert!(
        ids.iter().all(|id| stderr.contains(id.as_str())),
        "the message must list the containers: {stderr}"
    );
}

#[test]
fn a_runc_container_with_a_chosen_cgroup_is_found_by_its_state() {
    let scratch = Scratch::new();
    let id = format!("pidns-chosen-{}", std::process::id());
    let cgroup = format!("/chosen-for-runc-{}", std::process::id());
    let running = Running::start_with(scratch.path("runc"), &scratch, &id, |spec| {
        spec["linux"]["cgroupsPath"] = json!(cgroup);
    });
    let text = fs::read_to_string(format!("/proc/{}/cgroup", running.pid)).expect("the process lives");
    assert!(text.contains(&cgroup) && !text.contains(&id), "the cgroup must not contain the id: {text}");
    let mut names = ContainerCache::new(roots(&scratch));
    let container = sure_container_of(&mut names, running.pid);
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Runc), &name(&id)), "{container:?}");
    // Another process in that cgroup is in the container too.
    let member = exec(&running.root, &scratch, &id);
    let container = sure_container_of(&mut names, member);
    assert_eq!(container.id, name(&id), "{container:?}");
}

#[test]
fn a_process_that_joined_a_runc_container_is_in_it() {
    let scratch = Scratch::new();
    let id = format!("pidns-join-{}", std::process::id());
    let running = Running::start(&scratch, &id, &json!({}));
    let joined = exec(&running.root, &scratch, &id);
    let mut cache = ContainerCache::new(roots(&scratch));
    let container = sure_container_of(&mut cache, joined);
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Runc), &name(&id)));
    assert_eq!(sure_container_of(&mut cache, running.pid), container);
    let own = container_of(&mut cache, std::process::id());
    assert!(own.is_none_or(|own| own.id != name(&id)), "the test itself is not in the container");
}
