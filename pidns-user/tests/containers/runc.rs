//! runc by hand, on a bundle of busybox.

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

/// A container of runc, which ends with this.
pub(crate) struct Running<'a> {
    /// Where runc keeps its state.
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

    /// With what this changes in its configuration.
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
        // Into a file: the container keeps what it was given, and a pipe would never end.
        let log = fs::File::create(scratch.path("log")).expect("a file");
        start.arg(id).stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let status = start.status().unwrap_or_else(|error| {
            panic!("runc cannot be run ({error}): `cargo xtask setup` installs it");
        });
        let log = fs::read_to_string(scratch.path("log")).unwrap_or_default();
        assert!(status.success(), "{start:?}: {status}: {log}");
        let pid = fs::read_to_string(&pid_file).expect("runc wrote it").trim().parse().expect("a PID");
        Self { root, id, pid }
    }
}

/// Writes the bundle's configuration, with what this changes in it.
fn write_config(root: &Path, scratch: &Scratch, change: impl FnOnce(&mut Value)) {
    scratch.rootfs();
    let config = scratch.path("config.json");
    let _made_anew = fs::remove_file(&config);
    run(runc(root).arg("spec").arg("--bundle").arg(scratch.path("")));
    let mut spec: Value = serde_json::from_slice(&fs::read(&config).expect("runc wrote it")).expect("JSON");
    spec["process"]["args"] = json!(SLEEP);
    spec["process"]["terminal"] = json!(false);
    // Raising a limit takes a capability that not every machine gives.
    spec["process"]["rlimits"] = json!([]);
    change(&mut spec);
    fs::write(&config, spec.to_string()).expect("our own file");
}

/// A container that is the child of a runc that waits for it; it ends with this.
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
            panic!("runc cannot be run ({error}): `cargo xtask setup` installs it");
        });
        let mut pid = None;
        wait_until("the container", || {
            pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
            pid.is_some()
        });
        Self { keeper, container: Running { root, id, pid: pid.expect("it was waited for") } }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.container.pid
    }

    /// SIGTERM to its PID 1, which must have a handler; runc ends with it.
    pub(crate) fn stop(mut self) {
        run(runc(&self.container.root).args(["kill", self.container.id, "TERM"]));
        self.keeper.wait().expect("our own child");
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

/// Has another process join the container, and gives its PID.
pub(crate) fn exec(root: &Path, scratch: &Scratch, id: &str) -> u32 {
    let pid_file = scratch.path("exec");
    let log = fs::File::create(scratch.path("log")).expect("a file");
    let mut exec = runc(root);
    exec.args(["exec", "--detach", "--pid-file"]).arg(&pid_file).arg(id).args(SLEEP);
    exec.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
    assert!(exec.status().expect("it ran a moment ago").success(), "{exec:?}");
    fs::read_to_string(&pid_file).expect("runc wrote it").trim().parse().expect("a PID")
}

#[test]
fn runc_by_hand_is_known_by_its_state() {
    let scratch = Scratch::new();
    let id = format!("pidns-{}", std::process::id());
    let annotations = json!({"org.opencontainers.image.ref.name": "busybox:1"});
    let running = Running::start(&scratch, &id, &annotations);
    let mut names = ContainerCache::new(roots(&scratch));
    let container = sure_container_of(&mut names, running.pid);
    assert_eq!(container.runtime, Some(Runtime::Runc));
    assert_eq!((&container.id, &container.image), (&name(&id), &name("busybox:1")));
    assert_another_start_is_not_believed(ContainerCache::new(roots(&scratch)), running.pid);

    let first = process(running.pid);
    drop(running);
    wait_until("the container's end", || !Path::new(&format!("/proc/{}", first.pid)).exists());
    assert_eq!(names.remembered(first).and_then(|found| found.id.clone()), name(&id));

    let again = Running::start(&scratch, &id, &json!({"org.opencontainers.image.ref.name": "busybox:2"}));
    let container = sure_container_of(&mut names, again.pid);
    assert_eq!(container.image, name("busybox:2"), "the second of this id");
    assert_eq!(names.remembered(first).and_then(|found| found.image.clone()), name("busybox:1"));
}

/// What the program prints, which is to end with this code.
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
    assert!(
        ids.iter().all(|id| stderr.contains(id.as_str())),
        "an id that its user chose is a name: {stderr}"
    );
    let (_, stderr) = run_for_output(&["ps", &format!("{common}c")], 1);
    assert!(ids.iter().all(|id| stderr.contains(id.as_str())), "those that there are: {stderr}");
}

#[test]
fn a_process_that_joined_a_container_of_runc_is_in_it() {
    let scratch = Scratch::new();
    let id = format!("pidns-join-{}", std::process::id());
    let running = Running::start(&scratch, &id, &json!({}));
    let joined = exec(&running.root, &scratch, &id);
    let mut names = ContainerCache::new(roots(&scratch));
    let container = sure_container_of(&mut names, joined);
    assert_eq!((container.runtime, &container.id), (Some(Runtime::Runc), &name(&id)));
    assert_eq!(sure_container_of(&mut names, running.pid), container);
    let own = container_of(&mut names, std::process::id());
    assert!(own.is_none_or(|own| own.id != name(&id)), "the test itself is not in it");
}
