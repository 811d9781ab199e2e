//! Namespaces that outlive their last process, because something holds them.

use std::ffi::c_int;
use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use super::{Child, Situation, report};
use crate::facts::{Window, inode};
use crate::sys::{self, Pid};

pub(super) const SITUATIONS: &[Situation] = &[
    ("last-process", |_| last_process()),
    ("held-by-a-file", |_| held_by_a_file()),
    ("held-by-a-mount", |_| held_by_a_mount()),
    ("held-by-an-inner-namespace", |_| held_by_an_inner_namespace()),
];

/// How long the namespace is held after its last process has ended.
const HOLD: Duration = Duration::from_millis(200);

pub(super) fn namespace_of(init: Pid) -> String {
    format!("/proc/{init}/ns/pid")
}

fn report_namespace(fact: &str, init: Pid) {
    report(fact, inode(&namespace_of(init)).expect("read the namespace"));
}

/// The only child of this process, found in /proc, because the kernel may lack /proc/PID/task/TID/children.
fn child_of(parent: Pid) -> Pid {
    let processes = fs::read_dir("/proc").expect("list /proc").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == format!("PPid:\t{parent}"))
        })
        .expect("find the child")
}

fn release(how: impl FnOnce()) -> c_int {
    thread::sleep(HOLD);
    let (released, ()) = Window::around(how);
    report("released", released);
    0
}

fn last_process() -> c_int {
    let home = Child::init("init", || {});
    report_namespace("ns", home.pid);
    let (released, ()) = Window::around(|| home.dismiss());
    report("released", released);
    0
}

fn held_by_a_file() -> c_int {
    let home = Child::init("init", || {});
    report_namespace("ns", home.pid);
    let file = File::open(namespace_of(home.pid)).expect("open the namespace file");
    home.dismiss();
    release(|| drop(file))
}

/// Uses a separate mount namespace, so that no mount is left on the machine.
fn held_by_a_mount() -> c_int {
    sys::unshare(libc::CLONE_NEWNS).expect("unshare the mount namespace");
    sys::mount_privately().expect("make the mounts private");
    let place = std::env::temp_dir().join(format!("pidns-trace-test-{}", sys::getpid()));
    File::create(&place).expect("create the file");
    let home = Child::init("init", || {});
    report_namespace("ns", home.pid);
    sys::bind_mount(&namespace_of(home.pid), &place).expect("mount the namespace file");
    home.dismiss();
    let code = release(|| sys::unmount(&place).expect("unmount the namespace file"));
    fs::remove_file(&place).expect("remove the file");
    code
}

/// A file holds the inner namespace, which holds the outer one. All their processes have ended.
fn held_by_an_inner_namespace() -> c_int {
    let outer = Child::init("outer", || {
        // Do not drop it, because it must stay until the outer init dies.
        std::mem::forget(Child::init("inner", || {}));
    });
    report_namespace("ns", outer.pid);
    let file = File::open(namespace_of(child_of(outer.pid))).expect("open the namespace file");
    sys::kill(outer.pid, libc::SIGKILL).expect("kill the init");
    sys::wait(outer.pid).expect("wait for the init");
    release(|| drop(file))
}
