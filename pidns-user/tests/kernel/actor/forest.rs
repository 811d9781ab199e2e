//! Situations that stand still, for snapshots: each waits to be let go.

use std::ffi::c_int;
use std::fs::{self, File};

use super::{Child, Situation, fork, fork_and_wait, parse, report, sleeping_members, wait_for_go};
use crate::facts::{Who, inode};
use crate::sys;

pub(super) const SITUATIONS: &[Situation] = &[
    ("still-nested", |_| still_nested()),
    ("still-joined", |_| still_joined()),
    ("still-thread", |_| still_thread()),
    ("still-zombie", |_| still_zombie()),
    ("still-held-by-a-file", |_| still_held_by_a_file()),
    ("still-held-by-a-mount", |_| still_held_by_a_mount()),
    ("still-held-by-unshare", |_| still_held_by_unshare()),
    ("still-crowded", |args| still_crowded(&parse::<String>(args, 0, "a cgroup"), parse(args, 1, "members"))),
];

pub(super) fn stand_still() -> c_int {
    report("ready", true);
    wait_for_go();
    0
}

fn report_namespace(path: &str) {
    report("ns", inode(path).expect("its namespace can be read"));
}

fn still_nested() -> c_int {
    let outer = Child::init("outer", || {
        // Not dropped: it is to stay until the outer init dies.
        std::mem::forget(Child::init("inner", || {}));
    });
    let code = stand_still();
    sys::kill(outer.pid, libc::SIGKILL).expect("an init can be killed from outside");
    sys::wait(outer.pid).expect("a child can be waited for");
    code
}

fn still_joined() -> c_int {
    let home = Child::init("init", || {});
    report("joiner", Who::myself());
    let file = File::open(format!("/proc/{}/ns/pid", home.pid)).expect("a namespace file can be opened");
    sys::setns(std::os::fd::AsFd::as_fd(&file), sys::NEWPID).expect("this namespace may be joined");
    let child = Child::fork(|side| {
        report("child", Who::myself());
        side.ready();
        side.wait();
        0
    });
    let child = child.expect("a fork works");
    child.await_ready();
    let code = stand_still();
    child.dismiss();
    home.dismiss();
    code
}

/// An init with a second thread.
fn still_thread() -> c_int {
    let home = Child::init("init", || {
        let (report_tid, hear_tid) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            report_tid.send(sys::gettid()).expect("the first thread listens");
            sys::pause_forever()
        });
        report("thread", hear_tid.recv().expect("the thread reports its number"));
    });
    let code = stand_still();
    home.dismiss();
    code
}

/// An init that does not reap.
fn still_zombie() -> c_int {
    let home = Child::init("init", || {
        let zombie = fork(|| {
            sys::set_name(b"\xff) Z 1 (\n").expect("a name");
            0
        });
        sys::wait_without_reaping(zombie).expect("a child can be waited for");
        report("zombie", zombie);
    });
    let code = stand_still();
    home.dismiss();
    code
}

fn still_held_by_a_file() -> c_int {
    let home = Child::init("init", || {});
    let path = format!("/proc/{}/ns/pid", home.pid);
    report_namespace(&path);
    let _file = File::open(path).expect("a namespace file can be opened");
    home.dismiss();
    stand_still()
}

/// In a mount namespace of this process's own, so that nothing of it is left on the machine.
fn still_held_by_a_mount() -> c_int {
    sys::unshare(libc::CLONE_NEWNS).expect("root can unshare its mount namespace");
    sys::mount_privately().expect("its mounts can be its own");
    let place = std::env::temp_dir().join(format!("pidns trace test {}", sys::getpid()));
    File::create(&place).expect("a temporary file");
    let home = Child::init("init", || {});
    let path = format!("/proc/{}/ns/pid", home.pid);
    report_namespace(&path);
    sys::bind_mount(&path, &place).expect("a namespace file can be bound");
    report("place", place.display().to_string());
    home.dismiss();
    let code = stand_still();
    sys::unmount(&place).expect("what was mounted can be unmounted");
    fs::remove_file(&place).expect("a temporary file");
    code
}

fn still_held_by_unshare() -> c_int {
    sys::unshare(sys::NEWPID).expect("root can unshare its PID namespace");
    fork_and_wait(|| 0);
    report_namespace("/proc/self/ns/pid_for_children");
    stand_still()
}

/// An init in a cgroup, with this many members beside it.
fn still_crowded(cgroup: &str, members: usize) -> c_int {
    let home = Child::init("init", || {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("a process may move itself");
        sleeping_members(members);
    });
    let code = stand_still();
    home.dismiss();
    code
}
