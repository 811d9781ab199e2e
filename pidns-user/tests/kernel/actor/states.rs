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
    ("lives-in-second-thread", |_| lives_in_second_thread()),
    ("adopted-from-outside", |_| adopted_from_outside()),
    ("born-with-a-parent-outside", |_| born_with_a_parent_outside()),
];

/// Waits until /proc shows that it is exiting but no zombie: `PF_EXITING` is among the flags, field 9 of its stat.
pub(super) fn wait_until_exiting(pid: Pid) {
    let is_exiting = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        let (_, numbers) = stat.rsplit_once(')').expect("a name in brackets");
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
    let file = File::open(format!("/proc/{pid}/ns/pid")).expect("a namespace file can be opened");
    sys::setns(file.as_fd(), sys::NEWPID).expect("this namespace may be joined");
}

/// The init exits, and waits for a zombie whose parent, this process, is outside and does not wait for it.
fn hung_teardown() -> c_int {
    let home = Child::init("init", || {});
    children_go_to_namespace_of(home.pid);
    let zombie = fork(|| {
        report("zombie", Who::myself());
        0
    });
    sys::wait_without_reaping(zombie).expect("a child can be waited for");
    report("parent", Who::myself());
    report("standing", true);
    wait_for_go();
    home.let_go();
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    sys::wait(zombie).expect("a zombie can be reaped");
    report_end("end", home.pid);
    0
}

/// The outer init is killed and waits for the inner init, which is frozen: while it reads a pipe or, with `asleep`, in
/// nanosleep.
fn frozen_teardown(cgroup: &str, asleep: bool) -> c_int {
    let home = Child::init("outer", || {
        let life = |side: &Side<'_>| {
            report("inner", Who::myself());
            fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("a process may move itself");
            side.ready();
            match asleep {
                true => thread::sleep(Duration::from_secs(3600)),
                false => side.wait(),
            }
            0
        };
        let inner = Child::clone(sys::NEWPID, life).expect("root can make a PID namespace");
        inner.await_ready();
        std::mem::forget(inner);
    });
    if asleep {
        let sleeps = || {
            let members = fs::read_to_string(format!("{cgroup}/cgroup.procs")).expect("it has members");
            let wchan = fs::read_to_string(format!("/proc/{}/wchan", members.trim()));
            wchan.is_ok_and(|wchan| wchan.contains("nanosleep"))
        };
        while !sleeps() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let freeze = |state: &str| fs::write(format!("{cgroup}/freezer.state"), state).expect("it takes a state");
    freeze("FROZEN");
    let is_frozen = || {
        let state = fs::read_to_string(format!("{cgroup}/freezer.state")).expect("it has a state");
        state.trim() == "FROZEN"
    };
    while !is_frozen() {
        thread::sleep(Duration::from_millis(1));
    }
    sys::kill(home.pid, libc::SIGKILL).expect("an init can be killed from outside");
    wait_until_exiting(home.pid);
    report("ready", true);
    wait_for_go();
    freeze("THAWED");
    report_end("end", home.pid);
    0
}

/// A member is frozen by a cgroup of version 2; its PID 1 is killed, and the namespace ends while it is frozen.
fn frozen_v2(cgroup: &str) -> c_int {
    let home = Child::init("init", || {
        let ready = Gate::new();
        fork(|| {
            fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("a process may move itself");
            report("frozen", Who::myself());
            ready.open();
            sys::pause_forever()
        });
        ready.wait();
    });
    fs::write(format!("{cgroup}/cgroup.freeze"), "1").expect("it can be frozen");
    let is_frozen = || {
        let events = fs::read_to_string(format!("{cgroup}/cgroup.events")).expect("it has events");
        events.lines().any(|line| line == "frozen 1")
    };
    while !is_frozen() {
        thread::sleep(Duration::from_millis(1));
    }
    report("ready", true);
    wait_for_go();
    sys::kill(home.pid, libc::SIGKILL).expect("an init can be killed from outside");
    report_end("end", home.pid);
    0
}

/// A member has ended, and this process, which traces it, has not waited for it.
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
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", home.pid)).expect("its children");
    let child: Pid = children.trim().parse().expect("it has one");
    sys::seize(child).expect("root can trace it");
    report("tracer", Who::myself());
    report("alive", true);
    wait_for_go();
    may_end.open();
    wait_until_ended(child);
    report("ready", true);
    wait_for_go();
    sys::wait(child).expect("a tracer can wait for it");
    home.dismiss();
    0
}

/// A member whose first thread has ended lives on in another.
fn first_thread_gone() -> c_int {
    let home = Child::init("init", || {
        fork(|| become_actor(&["lives-in-second-thread"]));
    });
    wait_for_go();
    sys::kill(home.pid, libc::SIGKILL).expect("an init can be killed from outside");
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

/// A member was forked by a process outside that has ended since. This one, a subreaper, has adopted it.
fn adopted_from_outside() -> c_int {
    sys::become_subreaper().expect("a process may adopt orphans");
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
    sys::wait(forker).expect("a child can be waited for");
    end_with_children(home.pid, 2)
}

/// A member that came from outside forks one with CLONE_PARENT: born inside, it has the same parent, this process.
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
        born.expect("a member may do so");
        sys::pause_forever()
    });
    is_there.wait();
    end_with_children(home.pid, 3)
}

/// When it is let go it kills the namespace, and reaps this many children, the init among them.
fn end_with_children(init: Pid, children: usize) -> c_int {
    report("ready", true);
    wait_for_go();
    sys::kill(init, libc::SIGKILL).expect("an init can be killed from outside");
    for _ in 0..children {
        sys::wait(-1).expect("a child can be waited for");
    }
    0
}
