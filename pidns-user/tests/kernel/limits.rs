//! The tightest limit of a process, with limits on real cgroups.

use std::fs;
use std::process::{Child, Command};

use pidns_user::event::identity::HostPid;
use pidns_user::procfs::Procfs;
use pidns_user::procfs::limits::{Limit, LimitKind, LimitReader};

use crate::cgroups::{self, ScratchCgroup};
use crate::probes;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(the_tighter_limit_of_two_cgroups_applies, needs probes::counting_cgroups),
    test!(without_a_cgroup_limit_the_machines_limit_applies),
];

/// An idle process.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("60").spawn().expect("start sleep"))
    }

    fn pid(&self) -> HostPid {
        HostPid(self.0.id())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().expect("kill sleep");
        self.0.wait().expect("wait for sleep");
    }
}

fn tightest(pid: HostPid) -> Option<Limit> {
    let procfs = Procfs::default();
    let mut reader = LimitReader::new(&procfs).expect("read the machine's limits");
    let limit = reader.tightest(pid).expect("read the limits of the process");
    assert_eq!(reader.unread(), 0, "{limit:?}");
    limit
}

fn the_tighter_limit_of_two_cgroups_applies() {
    let root = cgroups::pids_controller().expect("the probe found the pids controller");
    let outer = ScratchCgroup::make(&root);
    fs::write(format!("{}/pids.max", outer.path()), "10").expect("set the limit");
    if fs::exists(format!("{root}/cgroup.controllers")).expect("check for the file") {
        fs::write(format!("{}/cgroup.subtree_control", outer.path()), "+pids")
            .expect("enable the controller");
    }
    let inner = ScratchCgroup::make(outer.path());
    fs::write(format!("{}/pids.max", inner.path()), "5").expect("set the limit");
    let sleeper = Sleeper::start();
    fs::write(format!("{}/cgroup.procs", inner.path()), sleeper.pid().to_string()).expect("move the process");
    let expect = |group: &ScratchCgroup, limit| {
        let found = tightest(sleeper.pid()).expect("a limit");
        assert_eq!((found.kind, found.current, found.limit), (LimitKind::PidsCgroup, 1, limit));
        let path = found.cgroup.expect("a cgroup's limit has its path");
        let path = str::from_utf8(path.as_bytes()).expect("UTF-8");
        assert!(group.path().ends_with(path) && path.starts_with('/'), "{path} is not {}", group.path());
    };
    expect(&inner, 5);
    fs::write(format!("{}/pids.max", outer.path()), "3").expect("set the limit");
    expect(&outer, 3);
    let pid = sleeper.pid();
    drop(sleeper);
    assert_eq!(tightest(pid), None, "the process has ended");
}

fn without_a_cgroup_limit_the_machines_limit_applies() {
    let number = |file: &str| -> u64 {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{file}")).expect("read the sysctl");
        text.trim().parse().expect("a number")
    };
    let (pid_max, threads_max) = (number("pid_max"), number("threads-max"));
    // A kernel thread is in the root cgroup, which has no limit.
    let found = tightest(HostPid(2)).expect("a limit");
    let expected = if pid_max <= threads_max {
        (LimitKind::PidMax, pid_max)
    } else {
        (LimitKind::ThreadsMax, threads_max)
    };
    assert_eq!((found.kind, found.limit, &found.cgroup), (expected.0, expected.1, &None));
    let tasks = fs::read_dir("/proc").expect("list /proc").flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count() as u64)
    });
    let tasks: u64 = tasks.sum();
    assert!(found.current.abs_diff(tasks) <= 10 + tasks / 10, "{} tasks, /proc lists {tasks}", found.current);
}
