//! A scratch directory for one test with its image, and facts about processes.

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

/// A process in a container that sleeps longer than any test.
pub(crate) const SLEEP: [&str; 3] = ["/bin/busybox", "sleep", "600"];

/// A directory for one test. Removed on drop.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests run containers: run them as root");
        Self { folder: tempfile::tempdir().expect("create a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as a command line argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().expect("the temporary directory has a plain name").to_owned()
    }

    /// The root file system of a container, with busybox.
    pub(crate) fn rootfs(&self) -> PathBuf {
        let bin = self.path("rootfs/bin");
        fs::create_dir_all(&bin).expect("create the directory");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let busybox = busybox.iter().find(|path| path.exists());
        let busybox = busybox.expect("busybox-static is not installed: `cargo xtask setup` installs it");
        let copy = bin.join("busybox");
        // A second container of the test uses the same file, which cannot be written while it runs.
        if !copy.exists() {
            fs::copy(busybox, copy).expect("copy busybox");
        }
        // Images have a shell. Health checks use it.
        let shell = bin.join("sh");
        if !shell.exists() {
            std::os::unix::fs::symlink("busybox", shell).expect("a link");
        }
        self.path("rootfs")
    }

    /// The root file system as an archive, to import as an image.
    pub(crate) fn image(&self) -> String {
        let rootfs = self.rootfs();
        run(Command::new("tar").arg("-C").arg(rootfs).arg("-cf").arg(self.path("image.tar")).arg("."));
        self.arg("image.tar")
    }
}

/// Runs a command to its end. Returns its stdout.
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
        .unwrap_or_else(|error| panic!("{name} does not start ({error}): `cargo xtask setup` installs it"))
}

/// Waits until the condition is true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < deadline, "{what} did not come in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The process with this PID, from /proc.
#[track_caller]
pub(crate) fn process(pid: u32) -> ProcessKey {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, numbers) = stat.rsplit_once(')').expect("a name in parentheses");
    let start = numbers.split_whitespace().nth(19).expect("field 22").parse::<u64>().expect("a number");
    ProcessKey { pid: HostPid(pid), start: BootNs::from_ticks(start) }
}

/// The processes whose cgroup path contains this id.
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
pub(crate) fn container_of(cache: &mut ContainerCache, pid: u32) -> Option<Arc<Container>> {
    cache.find_by_cgroup(process(pid), &cgroup(pid).expect("the process lives"))
}

/// The container of a living process. It must have no doubts.
#[track_caller]
pub(crate) fn sure_container_of(cache: &mut ContainerCache, pid: u32) -> Arc<Container> {
    let text = String::from_utf8_lossy(&cgroup(pid).unwrap_or_default()).into_owned();
    let container = container_of(cache, pid);
    let container =
        container.unwrap_or_else(|| panic!("PID {pid} is in no container, by its cgroup:\n{text}"));
    assert_eq!(container.doubts, Vec::<String>::new(), "{container:?}, cgroup:\n{text}");
    container
}

/// Checks that the files are not trusted for a process with the same PID that started later.
#[track_caller]
pub(crate) fn assert_another_start_is_not_believed(mut cache: ContainerCache, pid: u32) {
    let real = process(pid);
    let text = cgroup(pid).expect("the process lives");
    let believed = cache.find_by_cgroup(real, &text).expect("a container");
    assert!(believed.is_confirmed() && (believed.name.is_some() || believed.image.is_some()), "{believed:?}");
    let later = ProcessKey { start: real.start.saturating_add(10_000_000), ..real };
    // A user-chosen id is then unknown: without the file it is just the name of a directory.
    let container = cache.find_by_cgroup(later, &text);
    let claims = container.is_none_or(|container| !container.is_confirmed() && container.image.is_none());
    assert!(claims, "a record of PID {pid} is trusted for another process");
}

pub(crate) fn name(text: &str) -> Option<Name> {
    Some(Name::from(text))
}
