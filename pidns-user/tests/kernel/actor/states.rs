//! Situations whose process or namespace states are easy to confuse. Each waits for "go".

use std::ffi::c_int;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use super::{Child, Side, Situation, become_actor, fork, parse, report, report_end, wait_for_go};
use crate::facts::{Who, state};
use crate::sys::{self, Gate, Pid};

pub(super) const SITUATIONS: &[Situation] = &[
    ("hung-teardown", |_| hung_teardown()),
    ("frozen-v2", |args| frozen_v2(&parse::<String>(args, 0, "a cgroup of version 2"))),
    ("frozen-teardown", |args| frozen_teardown(&parse::<String>(args, 0, "a cgroup of the freezer"), false)),
    ("frozen-asleep-teardown", |args| {
        frozen_teardown(&parse::<String>(args, 0, "a cgroup of the freezer"), true)
    }),
    ("traced-zombie", |_| traced_zombie()),
    ("first-thread-gone", |_| first_thread_gone()),
    ("first-thread-of-init-gone", |_| first_thread_of_init_gone()),
    ("lives-in-second-thread", |_| lives_in_second_thread()),
    ("adopted-from-outside", |_| adopted_from_outside()),
    ("born-with-a-parent-outside", |_| born_with_a_parent_outside()),
];

/// Waits until /proc shows that it is exiting but not a zombie: `PF_EXITING` is among the flags, field 9 of its stat.
pub(super) fn wait_until_exiting(pid: Pid) {
    let is_exiting = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read the stat file");
        let (_, numbers) = stat.rsplit_once(')').expect("a name in parentheses");
        let mut numbers = numbers.split_whitespace();
        let state = numbers.next().expect("a state").to_owned();
        let flags: u32 = numbers.nth(5).and_then(|flags| flags.parse().ok()).expect("flags");
        assert_ne!(state, "Z", "{pid} is a zombie already: its exit did not block");
        flags & 4 != 0
    };
    while !is_exiting() {
        thread::sleep(Duration::from_millis(1));
    }
    // It blocks a few microseconds later.
    thread::sleep(Duration::from_millis(50));
}

pub(super) fn wait_until_ended(pid: Pid) {
    while state(&format!("/proc/{pid}/stat")) != Some('Z') {
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn children_go_to_namespace_of(pid: Pid) {
    let file = File::open(format!("/proc/{pid}/ns/pid")).expect("open the namespace file");
    sys::setns(file.as_fd(), sys::NEWPID).expect("join the namespace");
}

/// The init exits, and waits for a zombie. Its parent, which is this process, is outside and does not reap it.
fn hung_teardown() -> c_int {
    let home = Child::init("init", || {});
    children_go_to_namespace_of(home.pid);
    let zombie = fork(|| {
        report("zombie", Who::myself());
        0
    });
    sys::wait_without_reaping(zombie).expect("wait for the zombie");
    report("parent", Who::myself());
    report("standing", true);
    wait_for_go();
    home.let_go();
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    sys::wait(zombie).expect("reap the zombie");
    report_end("end", home.pid);
    0
}

/// The outer init is killed and waits for the inner init, which is frozen: while it reads a pipe or, with `asleep`, in
/// nanosleep.
fn frozen_teardown(cgroup: &str, asleep: bool) -> c_int {
    let home = Child::init("outer", || {
        let life = |side: &Side<'_>| {
            report("inner", Who::myself());
            fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
            side.ready();
            match asleep {
                true => thread::sleep(Duration::from_secs(3600)),
                false => side.wait(),
            }
            0
        };
        let inner = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
        inner.await_ready();
        std::mem::forget(inner);
    });
    if asleep {
        let sleeps = || {
            let members = fs::read_to_string(format!("{cgroup}/cgroup.procs")).expect("read the members");
            let wchan = fs::read_to_string(format!("/proc/{}/wchan", members.trim()));
            wchan.is_ok_and(|wchan| wchan.contains("nanosleep"))
        };
        while !sleeps() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let freeze =
        |state: &str| fs::write(format!("{cgroup}/freezer.state"), state).expect("set the freezer state");
    freeze("FROZEN");
    let is_frozen = || {
        let state = fs::read_to_string(format!("{cgroup}/freezer.state")).expect("read the freezer state");
        state.trim() == "FROZEN"
    };
    while !is_frozen() {
        thread::sleep(Duration::from_millis(1));
    }
    sys::kill(home.pid, libc::SIGKILL).expect("kill the init");
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    freeze("THAWED");
    report_end("end", home.pid);
    0
}

/// A v2 cgroup freezes a member. Its PID 1 is killed, and the namespace ends while the member is frozen.
fn frozen_v2(cgroup: &str) -> c_int {
    let home = Child::init("init", || {
        let ready = Gate::new();
        fork(|| {
            fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
            report("frozen", Who::myself());
            ready.open();
            sys::pause_forever()
        });
        ready.wait();
    });
    fs::write(format!("{cgroup}/cgroup.freeze"), "1").expect("freeze the cgroup");
    let is_frozen = || {
        let events = fs::read_to_string(format!("{cgroup}/cgroup.events")).expect("read the cgroup's events");
        events.lines().any(|line| line == "frozen 1")
    };
    while !is_frozen() {
        thread::sleep(Duration::from_millis(1));
    }
    report("ready", true);
    wait_for_go();
    sys::kill(home.pid, libc::SIGKILL).expect("kill the init");
    report_end("end", home.pid);
    0
}

/// A member is a zombie. This process traces it, and has not waited for it.
fn traced_zombie() -> c_int {
    let may_end = Gate::new();
    let home = Child::init("init", || {
        let is_there = Gate::new();
        fork(|| {
            report("child", Who::myself());
            is_there.open();
            may_end.wait();
            0
        });
        is_there.wait();
    });
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", home.pid)).expect("read the children");
    let child: Pid = children.trim().parse().expect("the init has one child");
    sys::seize(child).expect("trace the member");
    report("tracer", Who::myself());
    report("alive", true);
    wait_for_go();
    may_end.open();
    wait_until_ended(child);
    report("ready", true);
    wait_for_go();
    sys::wait(child).expect("wait for the member");
    home.dismiss();
    0
}

/// A member whose first thread has ended. Another thread lives on.
fn first_thread_gone() -> c_int {
    let home = Child::init("init", || {
        fork(|| become_actor(&["lives-in-second-thread"]));
    });
    wait_for_go();
    sys::kill(home.pid, libc::SIGKILL).expect("kill the init");
    report_end("end", home.pid);
    0
}

/// A PID 1 whose first thread has ended. Another thread lives on.
fn first_thread_of_init_gone() -> c_int {
    let home = Child::clone(sys::NEWPID, |_| become_actor(&["lives-in-second-thread"]));
    let home = home.expect("create a PID namespace");
    wait_for_go();
    sys::kill(home.pid, libc::SIGKILL).expect("kill the init");
    report_end("end", home.pid);
    0
}

fn lives_in_second_thread() -> c_int {
    let who = Who::myself();
    let pid = who.pid;
    report("child", who);
    thread::spawn(move || {
        wait_until_ended(pid);
        report("ready", true);
        sys::pause_forever()
    });
    sys::exit_thread()
}

/// A process outside forked a member and has ended since. This process is a subreaper, and has adopted the member.
fn adopted_from_outside() -> c_int {
    sys::become_subreaper().expect("become a subreaper");
    let home = Child::init("init", || {});
    report("adopter", Who::myself());
    report("standing", true);
    wait_for_go();
    let forker = fork(|| {
        report("forker", Who::myself());
        children_go_to_namespace_of(home.pid);
        let is_there = Gate::new();
        fork(|| {
            report("child", Who::myself());
            is_there.open();
            sys::pause_forever()
        });
        is_there.wait();
        0
    });
    sys::wait(forker).expect("wait for the forker");
    end_with_children(home.pid, 2)
}

/// A member that joined from outside forks with CLONE_PARENT. The new process was born inside, but its parent is this
/// process too.
fn born_with_a_parent_outside() -> c_int {
    let home = Child::init("init", || {});
    report("parent", Who::myself());
    report("standing", true);
    wait_for_go();
    children_go_to_namespace_of(home.pid);
    let is_there = Gate::new();
    fork(|| {
        report("joined", Who::myself());
        let born = sys::clone(libc::CLONE_PARENT, || {
            report("born", Who::myself());
            is_there.open();
            sys::pause_forever()
        });
        born.expect("fork with CLONE_PARENT");
        sys::pause_forever()
    });
    is_there.wait();
    end_with_children(home.pid, 3)
}

/// On "go" kills the init, and reaps this many children, the init included.
fn end_with_children(init: Pid, children: usize) -> c_int {
    report("ready", true);
    wait_for_go();
    sys::kill(init, libc::SIGKILL).expect("kill the init");
    for _ in 0..children {
        sys::wait(-1).expect("wait for a child");
    }
    0
}
