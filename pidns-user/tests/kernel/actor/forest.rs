//! Situations for snapshots. Each waits for "go".

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
    report("ns", inode(path).expect("read the namespace"));
}

fn still_nested() -> c_int {
    let outer = Child::init("outer", || {
        // Do not drop it, because it must stay until the outer init dies.
        std::mem::forget(Child::init("inner", || {}));
    });
    let code = stand_still();
    sys::kill(outer.pid, libc::SIGKILL).expect("kill the init");
    sys::wait(outer.pid).expect("wait for the init");
    code
}

fn still_joined() -> c_int {
    let home = Child::init("init", || {});
    report("joiner", Who::myself());
    let file = File::open(format!("/proc/{}/ns/pid", home.pid)).expect("open the namespace file");
    sys::setns(std::os::fd::AsFd::as_fd(&file), sys::NEWPID).expect("join the namespace");
    let child = Child::fork(|side| {
        report("child", Who::myself());
        side.ready();
        side.wait();
        0
    });
    let child = child.expect("fork");
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
            report_tid.send(sys::gettid()).expect("send the TID");
            sys::pause_forever()
        });
        report("thread", hear_tid.recv().expect("receive the TID"));
    });
    let code = stand_still();
    home.dismiss();
    code
}

/// An init that does not reap.
fn still_zombie() -> c_int {
    let home = Child::init("init", || {
        let zombie = fork(|| {
            sys::set_name(b"\xff) Z 1 (\n").expect("set the name");
            0
        });
        sys::wait_without_reaping(zombie).expect("wait for the zombie");
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
    let _file = File::open(path).expect("open the namespace file");
    home.dismiss();
    stand_still()
}

/// Uses a separate mount namespace, so that no mount is left on the machine.
fn still_held_by_a_mount() -> c_int {
    sys::unshare(libc::CLONE_NEWNS).expect("unshare the mount namespace");
    sys::mount_privately().expect("make the mounts private");
    let place = std::env::temp_dir().join(format!("pidns trace test {}", sys::getpid()));
    File::create(&place).expect("create the file");
    let home = Child::init("init", || {});
    let path = format!("/proc/{}/ns/pid", home.pid);
    report_namespace(&path);
    sys::bind_mount(&path, &place).expect("mount the namespace file");
    report("place", place.display().to_string());
    home.dismiss();
    let code = stand_still();
    sys::unmount(&place).expect("unmount the namespace file");
    fs::remove_file(&place).expect("remove the file");
    code
}

fn still_held_by_unshare() -> c_int {
    sys::unshare(sys::NEWPID).expect("unshare the PID namespace");
    fork_and_wait(|| 0);
    report_namespace("/proc/self/ns/pid_for_children");
    stand_still()
}

/// An init and this many members in a cgroup.
fn still_crowded(cgroup: &str, members: usize) -> c_int {
    let home = Child::init("init", || {
        fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
        sleeping_members(members);
    });
    let code = stand_still();
    home.dismiss();
    code
}
