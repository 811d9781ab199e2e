//! A folder for one test, the image in it, and what can be seen of processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pidns_user::{
    container::ContainerCache,
    event::container::Container,
    event::identity::{BootNs, HostPid, ProcessKey},
    text::Name,
};

/// How long a process in a container sleeps: longer than any test.
pub(crate) const SLEEP: [&str; 3] = ["/bin/busybox", "sleep", "600"];

/// A folder of the test's own, gone with it.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests run containers: run them as root");
        Self { folder: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().expect("the temporary directory has a plain name").to_owned()
    }

    /// The root file system of a container: busybox.
    pub(crate) fn rootfs(&self) -> PathBuf {
        let bin = self.path("rootfs/bin");
        fs::create_dir_all(&bin).expect("a folder");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let busybox = busybox.iter().find(|path| path.exists());
        let busybox = busybox.expect("busybox-static is not installed: `cargo xtask setup` installs it");
        let copy = bin.join("busybox");
        // A second container of the test uses the same one: what runs cannot be written to.
        if !copy.exists() {
            fs::copy(busybox, copy).expect("a copy");
        }
        // As images have it: health checks are run by it.
        let shell = bin.join("sh");
        if !shell.exists() {
            std::os::unix::fs::symlink("busybox", shell).expect("a link");
        }
        self.path("rootfs")
    }

    /// The same as an archive, to import as an image.
    pub(crate) fn image(&self) -> String {
        let rootfs = self.rootfs();
        run(Command::new("tar").arg("-C").arg(rootfs).arg("-cf").arg(self.path("image.tar")).arg("."));
        self.arg("image.tar")
    }
}

/// Runs a command to its end, and gives back what it wrote to stdout.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}

#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name} cannot be run ({error}): `cargo xtask setup` installs it"))
}

/// Waits until this is true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "waiting for {what}: not in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The process of this PID, by /proc.
#[track_caller]
pub(crate) fn process(pid: u32) -> ProcessKey {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, numbers) = stat.rsplit_once(')').expect("a name in parentheses");
    let start = numbers.split_whitespace().nth(19).expect("field 22").parse::<u64>().expect("a number");
    ProcessKey { pid: HostPid(pid), start: BootNs::from_ticks(start) }
}

/// The processes whose cgroup has this id in its path.
pub(crate) fn processes_of(id: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut found: Vec<u32> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| cgroup(*pid).is_some_and(|text| String::from_utf8_lossy(&text).contains(id)))
        .collect();
    found.sort_unstable();
    found
}

fn cgroup(pid: u32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cgroup")).ok()
}

/// The container of a living process.
#[track_caller]
pub(crate) fn container_of(names: &mut ContainerCache, pid: u32) -> Option<Arc<Container>> {
    names.of(process(pid), &cgroup(pid).expect("the process lives"))
}

/// The container of a living process, which must have been found without doubt.
#[track_caller]
pub(crate) fn sure_container_of(names: &mut ContainerCache, pid: u32) -> Arc<Container> {
    let text = String::from_utf8_lossy(&cgroup(pid).unwrap_or_default()).into_owned();
    let container = container_of(names, pid);
    let container =
        container.unwrap_or_else(|| panic!("PID {pid} is in no container, by its cgroup:\n{text}"));
    assert_eq!(container.doubts, Vec::<String>::new(), "{container:?}, cgroup:\n{text}");
    container
}

/// Whether the files are believed for a process of the same PID that started later: it must not be.
#[track_caller]
pub(crate) fn assert_another_start_is_not_believed(mut names: ContainerCache, pid: u32) {
    let real = process(pid);
    let text = cgroup(pid).expect("the process lives");
    let believed = names.of(real, &text).expect("a container");
    assert!(believed.is_vouched() && (believed.name.is_some() || believed.image.is_some()), "{believed:?}");
    let later = ProcessKey { start: real.start.saturating_add(10_000_000), ..real };
    // Of an id that its user chose nothing is left: without the file that is the name of a folder.
    let container = names.of(later, &text);
    let claims = container.is_none_or(|container| !container.is_vouched() && container.image.is_none());
    assert!(claims, "a record of PID {pid} is believed of another process");
}

pub(crate) fn name(text: &str) -> Option<Name> {
    Some(Name::from(text))
}
