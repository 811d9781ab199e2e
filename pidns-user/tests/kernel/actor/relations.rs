//! Waiting situations with relations between processes and namespaces: tracers, subreapers and mounts of proc.

use std::ffi::c_int;
use std::fs;
use std::path::Path;
use std::thread;

use super::forest::stand_still;
use super::{Child, Situation, fork, report, wait_for_go};
use crate::facts::{Who, inode};
use crate::sys::{self, Gate};

pub(super) const SITUATIONS: &[Situation] = &[
    ("still-traced", |_| still_traced()),
    ("still-subreaper", |_| still_subreaper()),
    ("still-shown-by-procs", |_| still_shown_by_procs()),
    ("still-shown-by-a-bound-proc", |_| still_shown_by_a_bound_proc()),
];

/// A subreaper in a namespace whose PID 1 is not a subreaper.
fn still_subreaper() -> c_int {
    let home = Child::init("init", || {
        let ready = Gate::new();
        fork(|| {
            sys::become_subreaper().expect("become a subreaper");
            report("member", Who::myself());
            ready.open();
            sys::pause_forever()
        });
        ready.wait();
    });
    let code = stand_still();
    home.dismiss();
    code
}

/// A thread that is not the first one traces a process. The kernel stores the thread, but the process must be
/// reported.
fn still_traced() -> c_int {
    let traced = Child::init("traced", || {});
    let pid = traced.pid;
    let (seized, go) = (Gate::new(), Gate::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            sys::seize(pid).expect("trace the child");
            report("tracing thread", sys::gettid());
            seized.open();
            // The trace ends with this thread.
            go.wait();
        });
        seized.wait();
        let code = stand_still();
        go.open();
        code
    });
    traced.dismiss();
    0
}

fn report_mount_namespace(fact: &str) {
    report(fact, inode("/proc/self/ns/mnt").expect("read the mount namespace"));
}

/// A mount point in a separate mount namespace.
pub(super) fn own_place() -> tempfile::TempDir {
    sys::unshare(libc::CLONE_NEWNS).expect("unshare the mount namespace");
    sys::mount_privately().expect("make the mounts private");
    let place =
        tempfile::Builder::new().prefix("pidns trace test ").tempdir().expect("create a temporary directory");
    report_mount_namespace("mount namespace");
    report("place", place.path().display().to_string());
    place
}

/// An init with a separate mount namespace and its own /proc, as in a container. It has also mounted another proc
/// outside of that. It ends first, and the other mount stays.
fn still_shown_by_procs() -> c_int {
    let place = own_place();
    let home = Child::init("init", || {
        sys::mount_proc(place.path(), "").expect("mount proc");
        sys::unshare(libc::CLONE_NEWNS).expect("unshare the mount namespace");
        report_mount_namespace("init's mount namespace");
        sys::mount_proc(Path::new("/proc"), "").expect("mount proc");
    });
    report("ready", true);
    wait_for_go();
    home.dismiss();
    report("orphaned", true);
    wait_for_go();
    sys::unmount(place.path()).expect("unmount the proc");
    report("unmounted", true);
    wait_for_go();
    0
}

/// A part of a proc that is not mounted as a whole anywhere.
fn still_shown_by_a_bound_proc() -> c_int {
    let place = own_place();
    let (whole, part) = (place.path().join("whole"), place.path().join("part"));
    for folder in [&whole, &part] {
        fs::create_dir(folder).expect("create the directory");
    }
    let home = Child::init("init", || {
        sys::mount_proc(&whole, "").expect("mount proc");
    });
    let sys = whole.join("sys");
    sys::bind_mount(sys.to_str().expect("UTF-8"), &part).expect("a folder can be bound");
    sys::unmount(&whole).expect("what was mounted can be unmounted");
    let code = stand_still();
    sys::unmount(&part).expect("what was mounted can be unmounted");
    home.dismiss();
    code
}
