//! Namespaces that outlive their last process, for as long as something holds them.

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

/// How long something holds the namespace after its last process has gone.
const HOLD: Duration = Duration::from_millis(200);

pub(super) fn namespace_of(init: Pid) -> String {
    format!("/proc/{init}/ns/pid")
}

fn report_namespace(fact: &str, init: Pid) {
    report(fact, inode(&namespace_of(init)).expect("its namespace can be read"));
}

/// Its only child: the kernel may lack /proc/PID/task/TID/children.
fn child_of(parent: Pid) -> Pid {
    let processes = fs::read_dir("/proc").expect("/proc can be read").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == format!("PPid:\t{parent}"))
        })
        .expect("it has a child")
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
    let file = File::open(namespace_of(home.pid)).expect("a namespace file can be opened");
    home.dismiss();
    release(|| drop(file))
}

/// In a mount namespace of this process's own, so that nothing of it is left on the machine.
fn held_by_a_mount() -> c_int {
    sys::unshare(libc::CLONE_NEWNS).expect("root can unshare its mount namespace");
    sys::mount_privately().expect("its mounts can be its own");
    let place = std::env::temp_dir().join(format!("pidns-trace-test-{}", sys::getpid()));
    File::create(&place).expect("a temporary file");
    let home = Child::init("init", || {});
    report_namespace("ns", home.pid);
    sys::bind_mount(&namespace_of(home.pid), &place).expect("a namespace file can be bound");
    home.dismiss();
    let code = release(|| sys::unmount(&place).expect("what was mounted can be unmounted"));
    fs::remove_file(&place).expect("a temporary file");
    code
}

/// A file holds the inner namespace, and that holds the outer one, whose processes are all gone.
fn held_by_an_inner_namespace() -> c_int {
    let outer = Child::init("outer", || {
        // Not dropped: it is to stay until the outer init dies.
        std::mem::forget(Child::init("inner", || {}));
    });
    report_namespace("ns", outer.pid);
    let file = File::open(namespace_of(child_of(outer.pid))).expect("a namespace file can be opened");
    sys::kill(outer.pid, libc::SIGKILL).expect("an init can be killed from outside");
    sys::wait(outer.pid).expect("a child can be waited for");
    release(|| drop(file))
}
