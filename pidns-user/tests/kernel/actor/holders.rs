//! Situations in which processes hold a namespace in many ways, and then wait.

use std::ffi::c_int;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use super::forest::stand_still;
use super::{Child, Situation, fork, report};
use crate::facts::{Held, Who, inode, state};
use crate::sys::{self, Gate, Pid};

pub(super) const SITUATIONS: &[Situation] = &[
    ("still-held-in-many-ways", |_| still_held_in_many_ways()),
    ("still-held-within-another", |_| still_held_within_another()),
];

/// A nested namespace. Neither it nor the outer one has a process, and a file holds the inner one.
fn still_held_within_another() -> c_int {
    let mut paths = Vec::new();
    let outer = Child::init("outer", || {
        std::mem::forget(Child::init("inner", || {}));
    });
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.pid)).expect("read the children");
    for pid in [outer.pid, children.trim().parse().expect("the init has one child")] {
        paths.push(format!("/proc/{pid}/ns/pid"));
    }
    let numbers: Vec<u64> = paths.iter().map(|path| inode(path).expect("read the inode number")).collect();
    let _inner = File::open(&paths[1]).expect("open the namespace file");
    sys::kill(outer.pid, libc::SIGKILL).expect("kill the init");
    sys::wait(outer.pid).expect("wait for the init");
    report("namespaces", numbers);
    stand_still()
}

/// Opens the namespace file, reports that, and keeps it open.
fn hold(path: &str, tid: Option<Pid>) -> File {
    let file = File::open(path).expect("open the namespace file");
    report_held(&file, tid);
    file
}

fn report_held(file: &File, tid: Option<Pid>) {
    report("held", Held { pid: Who::myself().pid, fd: file.as_raw_fd(), tid });
}

fn still_held_in_many_ways() -> c_int {
    let home = Child::init("init", || {});
    let path = &*format!("/proc/{}/ns/pid", home.pid);
    report("ns", inode(path).expect("read the namespace"));
    // Fork them before this process opens the file, so that none of them inherits it.
    let threads = Child::fork(|side| {
        hold_by_threads(path);
        side.ready();
        side.wait();
        0
    });
    let threads = threads.expect("fork");
    threads.await_ready();
    let inside = Child::init("holder in another namespace", || std::mem::forget(hold(path, None)));
    let first_thread_gone = hold_by_second_thread(path);
    let zombie = fork(|| {
        let _file = File::open(path).expect("open the namespace file");
        0
    });
    sys::wait_without_reaping(zombie).expect("wait for the zombie");
    report("zombie", zombie);

    let file = hold(path, None);
    let twice = file.try_clone().expect("duplicate the descriptor");
    report_held(&twice, None);
    let pathless = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)
        .expect("open the namespace file with O_PATH");
    report_held(&pathless, None);
    // Other namespace files, and other files, hold no PID namespace.
    let _others =
        ["ns/user", "ns/mnt", "ns/time", "stat"].map(|file| File::open(format!("/proc/self/{file}")));
    home.dismiss();
    let code = stand_still();
    threads.dismiss();
    inside.dismiss();
    sys::kill(first_thread_gone, libc::SIGKILL).expect("kill the child");
    sys::wait(first_thread_gone).expect("wait for the child");
    sys::wait(zombie).expect("reap the zombie");
    code
}

/// The first thread opens the file, and a second thread shares its file table. A third one has a copy of the table
/// and one more file. The children of a fourth one will be born in the namespace.
fn hold_by_threads(path: &str) {
    let file = hold(path, None);
    let shared = file.as_raw_fd();
    let started = [Gate::new(), Gate::new(), Gate::new()].map(std::sync::Arc::new);
    let [sharing, apart, going] = started.clone();
    thread::spawn(move || {
        sharing.open();
        sys::pause_forever()
    });
    let own = path.to_owned();
    thread::spawn(move || {
        sys::unshare(libc::CLONE_FILES).expect("unshare the file table");
        let tid = Some(sys::gettid());
        report("held", Held { pid: Who::myself().pid, fd: shared, tid });
        std::mem::forget(hold(&own, tid));
        apart.open();
        sys::pause_forever()
    });
    thread::spawn(move || {
        sys::setns(file.as_fd(), sys::NEWPID).expect("join the namespace");
        std::mem::forget(file);
        report("children go there", Who::myself().pid);
        going.open();
        sys::pause_forever()
    });
    started.iter().for_each(|gate| gate.wait());
}

/// A process whose first thread has ended. Two other threads share its files.
fn hold_by_second_thread(path: &str) -> Pid {
    let ready = Gate::new();
    let child = fork(|| {
        sys::die_with_parent().expect("set the parent death signal");
        let file = File::open(path).expect("open the namespace file");
        let pid = Who::myself().pid;
        let (report_tid, hear_tid) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let report_tid = report_tid.clone();
            thread::spawn(move || {
                // The first thread's death signal setting has ended with it.
                sys::die_with_parent().expect("set the parent death signal");
                report_tid.send(sys::gettid()).expect("send the TID");
                sys::pause_forever()
            });
        }
        let tids: Vec<Pid> = hear_tid.iter().take(2).collect();
        let first = tids.iter().copied().min();
        report("held", Held { pid, fd: file.as_raw_fd(), tid: first });
        std::mem::forget(file);
        ready.open();
        sys::exit_thread()
    });
    ready.wait();
    while state(&format!("/proc/{child}/stat")) != Some('Z') {
        thread::sleep(Duration::from_millis(1));
    }
    child
}
