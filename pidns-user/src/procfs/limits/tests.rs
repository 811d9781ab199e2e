//! Tests with a made-up /proc, and on this machine.

use std::{fs, os::unix::fs::MetadataExt as _};

use super::*;

/// A made-up /proc, next to a made-up hierarchy of cgroups.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    /// A machine with 99 tasks, and limits that leave room for more.
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().expect("a temporary directory") };
        machine.put("loadavg", "0.25 0.33 2.00 3/99 30145\n");
        machine.put("sys/kernel/pid_max", "32768\n");
        machine.put("sys/kernel/threads-max", "192730\n");
        machine
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().expect("a parent directory")).expect("create a directory");
        fs::write(path, text).expect("write a file");
    }

    /// Sets the mounts: roots, places, and types with options.
    fn mount(&self, mounts: &[(&str, &str, &str)]) {
        let device = fs::metadata(self.root.path()).expect("read metadata").dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        let line = |&(root, place, kind): &(&str, &str, &str)| {
            fs::create_dir_all(self.root.path().join(place)).expect("create a directory");
            let place = self.root.path().join(place).display().to_string().replace(' ', "\\040");
            format!("32 25 {major}:{minor} {root} {place} rw - {kind}\n")
        };
        self.put("self/mountinfo", &mounts.iter().map(line).collect::<String>());
    }

    /// Adds a process in these cgroups.
    fn process(&self, pid: u32, cgroups: &str) {
        self.put(&format!("{pid}/stat"), "");
        self.put(&format!("{pid}/cgroup"), cgroups);
    }

    fn cgroup(&self, folder: &str, current: &str, limit: &str) {
        self.put(&format!("{folder}/pids.current"), &format!("{current}\n"));
        self.put(&format!("{folder}/pids.max"), &format!("{limit}\n"));
    }

    /// The tightest limit of process 20, as text, and the number of unread limits.
    fn tightest(&self) -> (String, u64) {
        let procfs = Procfs::at(self.root.path());
        let mut reader = LimitReader::new(&procfs).expect("limits");
        let limit = reader.tightest(HostPid(20)).expect("a process");
        (limit.map_or_else(|| "none".to_owned(), |limit| show(&limit)), reader.unread())
    }
}

fn show(Limit { kind, current, limit, cgroup }: &Limit) -> String {
    let cgroup = cgroup.as_ref().map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
    format!("{} {current}/{limit} {}", kind.name(), cgroup.unwrap_or_default()).trim_end().to_owned()
}

const FIRST: &str = "cgroup cgroup rw,pids";
const SECOND: &str = "cgroup2 cgroup2 rw";

#[test]
fn the_pids_controller_of_version_1_is_found_among_the_others() {
    let machine = Machine::new();
    machine.mount(&[
        ("/", "cpu", "cgroup cgroup rw,cpu,cpuacct"),
        ("/", "c g", FIRST),
        ("/", "unified", SECOND),
    ]);
    machine.process(20, "9:name=pids:/no\n8:cpu,cpuacct:/no\n7:pids:/a:b\n0::/no\n");
    machine.cgroup("c g/a:b", "5", "7");
    machine.cgroup("cpu/no", "5", "5");
    machine.cgroup("unified/no", "5", "5");
    assert_eq!(machine.tightest(), ("pids_cgroup 5/7 /a:b".to_owned(), 0));
    machine.process(20, "7:freezer,pids:/a:b\n");
    assert_eq!(machine.tightest().0, "pids_cgroup 5/7 /a:b", "mounted together with another one");
}

#[test]
fn the_nested_cgroup_with_the_least_room_counts() {
    let machine = Machine::new();
    machine.mount(&[("/", "cgroup", SECOND)]);
    machine.process(20, "0::/a/b/c\n");
    machine.cgroup("cgroup/a", "90", "100");
    machine.cgroup("cgroup/a/b", "8", "10");
    machine.cgroup("cgroup/a/b/c", "5", "20");
    assert_eq!(machine.tightest(), ("pids_cgroup 8/10 /a/b".to_owned(), 0));
    machine.cgroup("cgroup/a/b/c", "18", "20");
    assert_eq!(machine.tightest().0, "pids_cgroup 18/20 /a/b/c", "the inner one of two with the same room");
    machine.cgroup("cgroup/a", "110", "100");
    assert_eq!(machine.tightest().0, "pids_cgroup 110/100 /a", "its limit is below the current use");
}

#[test]
fn without_a_cgroup_limit_those_of_the_machine_count() {
    let machine = Machine::new();
    machine.mount(&[("/", "cgroup", SECOND)]);
    machine.process(20, "0::/a/b\n");
    machine.cgroup("cgroup/a", "90", "max");
    // The controller is off in a/b.
    fs::create_dir(machine.root.path().join("cgroup/a/b")).expect("create a directory");
    assert_eq!(machine.tightest(), ("pid_max 99/32768".to_owned(), 0));
    machine.put("sys/kernel/threads-max", "100\n");
    assert_eq!(machine.tightest().0, "threads_max 99/100");
    machine.cgroup("cgroup/a", "90", "40000");
    assert_eq!(machine.tightest().0, "threads_max 99/100", "the cgroup leaves more room");
}

#[test]
fn a_gone_process_has_no_limit() {
    let machine = Machine::new();
    machine.mount(&[("/", "cgroup", SECOND)]);
    assert_eq!(machine.tightest(), ("none".to_owned(), 0));
    machine.put("20/stat", "");
    assert_eq!(machine.tightest(), ("pid_max 99/32768".to_owned(), 0), "a kernel without cgroups");
}

#[test]
fn a_cgroup_that_no_mount_shows_is_unread() {
    let machine = Machine::new();
    machine.mount(&[("/", "cgroup", SECOND)]);
    machine.cgroup("cgroup", "1", "2");
    machine.cgroup("cgroup/a (deleted)", "1", "1");
    for path in ["/../b", "/a (deleted)", "/a/../b"] {
        machine.process(20, &format!("0::{path}\n"));
        assert_eq!(machine.tightest(), ("pid_max 99/32768".to_owned(), 1), "{path}");
    }
    machine.mount(&[("/pods", "cgroup", SECOND)]);
    machine.process(20, "0::/pods/x\n");
    machine.cgroup("cgroup/x", "1", "9");
    assert_eq!(machine.tightest(), ("pids_cgroup 1/2 /pods".to_owned(), 0), "below the root of the mount");
    machine.process(20, "0::/elsewhere\n");
    assert_eq!(machine.tightest(), ("pid_max 99/32768".to_owned(), 1));
}

#[test]
fn the_mount_that_shows_the_most_outer_cgroups_is_used() {
    let machine = Machine::new();
    machine.mount(&[("/pods", "bound", SECOND), ("/", "cgroup", SECOND)]);
    machine.process(20, "0::/pods/x\n");
    machine.cgroup("cgroup/pods", "9", "10");
    machine.cgroup("bound/x", "1", "9");
    assert_eq!(machine.tightest(), ("pids_cgroup 9/10 /pods".to_owned(), 0));
}

#[test]
fn a_bad_number_is_unread_and_a_removed_cgroup_is_not() {
    let machine = Machine::new();
    machine.mount(&[("/", "cgroup", SECOND)]);
    machine.process(20, "0::/a/b\n");
    machine.cgroup("cgroup/a", "4", "9");
    machine.cgroup("cgroup/a/b", "x", "9");
    assert_eq!(machine.tightest(), ("pids_cgroup 4/9 /a".to_owned(), 1));
    machine.cgroup("cgroup/a/b", "3", &"9".repeat(5_000));
    assert_eq!(machine.tightest(), ("pids_cgroup 4/9 /a".to_owned(), 1), "longer than any number");
    fs::remove_dir_all(machine.root.path().join("cgroup/a/b")).expect("a folder");
    assert_eq!(machine.tightest(), ("pids_cgroup 4/9 /a".to_owned(), 0));
}

#[test]
fn only_the_outermost_of_very_many_nested_cgroups_are_read() {
    let machine = Machine::new();
    machine.mount(&[("/", "cgroup", SECOND)]);
    let path = |depth: usize| "/x".repeat(depth);
    machine.process(20, &format!("0::{}\n", path(500)));
    machine.cgroup(&format!("cgroup{}", path(DEEPEST)), "1", "1");
    machine.cgroup(&format!("cgroup{}", path(DEEPEST - 1)), "1", "5");
    assert_eq!(machine.tightest(), (format!("pids_cgroup 1/5 {}", path(DEEPEST - 1)), 1));
}

#[test]
fn a_cgroup_is_found_by_number_among_those_of_a_process() {
    let machine = Machine::new();
    machine.mount(&[("/pods", "cgroup", SECOND)]);
    machine.process(20, "0::/pods/a/b\n");
    machine.cgroup("cgroup/a/b", "4", "9");
    let procfs = Procfs::at(machine.root.path());
    let reader = LimitReader::new(&procfs).expect("limits");
    for (folder, path) in [("cgroup", "/pods"), ("cgroup/a", "/pods/a"), ("cgroup/a/b", "/pods/a/b")] {
        let number = fs::metadata(machine.root.path().join(folder)).expect("read metadata").ino();
        let found = reader.pids_cgroup(HostPid(20), number).expect(folder);
        assert_eq!(String::from_utf8_lossy(found.as_bytes()), path);
        assert!(reader.pids_cgroup(HostPid(21), number).is_none(), "a process that is gone");
    }
    assert!(reader.pids_cgroup(HostPid(20), 1).is_none(), "a cgroup that it is not in");
}

#[test]
fn shared_files_of_two_processes_are_read_once() {
    let machine = Machine::new();
    machine.mount(&[("/", "cgroup", SECOND)]);
    machine.process(20, "0::/a/b\n");
    machine.process(21, "0::/a/c\n");
    machine.cgroup("cgroup/a", "4", "9");
    let procfs = Procfs::at(machine.root.path());
    let mut reader = LimitReader::new(&procfs).expect("limits");
    let mut of = |pid| reader.tightest(HostPid(pid)).expect("a process").map(|limit| show(&limit));
    assert_eq!(of(20).as_deref(), Some("pids_cgroup 4/9 /a"));
    machine.cgroup("cgroup/a", "5", "9");
    assert_eq!(of(21).as_deref(), Some("pids_cgroup 4/9 /a"));
    assert_eq!(machine.tightest().0, "pids_cgroup 5/9 /a", "another reader");
}

#[test]
fn a_missing_number_of_tasks_is_an_error() {
    let machine = Machine::new();
    let procfs = Procfs::at(machine.root.path());
    for text in ["", "0.25 0.33 2.00 3 30145", "0.25 0.33 2.00 3/x 30145"] {
        machine.put("loadavg", text);
        let error = LimitReader::new(&procfs).err().expect("an error").to_string();
        assert!(error.contains("loadavg") && error.contains("number of tasks"), "{error}");
    }
    fs::remove_file(machine.root.path().join("loadavg")).expect("a file");
    machine.process(20, "");
    assert_eq!(machine.tightest(), ("none".to_owned(), 0), "without it no limit is known");
}

#[test]
fn this_process_has_a_limit_on_this_machine() {
    let procfs = Procfs::default();
    let limit = LimitReader::new(&procfs).expect("limits").tightest(HostPid(std::process::id()));
    let limit = limit.expect("this process").expect("kernel.pid_max at least");
    assert!(limit.current > 0 && limit.limit > limit.current, "{limit:?}");
}
