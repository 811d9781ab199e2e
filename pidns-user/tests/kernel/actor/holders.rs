//! A namespace that is held in many ways, by processes that stand still.

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

/// A namespace in another one: neither has a process, and a file holds the inner one.
fn still_held_within_another() -> c_int {
    let mut paths = Vec::new();
    let outer = Child::init("outer", || {
        std::mem::forget(Child::init("inner", || {}));
    });
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", outer.pid)).expect("its children");
    for pid in [outer.pid, children.trim().parse().expect("it has one")] {
        paths.push(format!("/proc/{pid}/ns/pid"));
    }
    let numbers: Vec<u64> = paths.iter().map(|path| inode(path).expect("a namespace file")).collect();
    let _inner = File::open(&paths[1]).expect("a namespace file can be opened");
    sys::kill(outer.pid, libc::SIGKILL).expect("an init can be killed from outside");
    sys::wait(outer.pid).expect("a child can be waited for");
    report("namespaces", numbers);
    stand_still()
}

/// Opens the namespace file, reports that, and leaves it open.
fn hold(path: &str, tid: Option<Pid>) -> File {
    let file = File::open(path).expect("a namespace file can be opened");
    report_held(&file, tid);
    file
}

fn report_held(file: &File, tid: Option<Pid>) {
    report("held", Held { pid: Who::myself().pid, fd: file.as_raw_fd(), tid });
}

fn still_held_in_many_ways() -> c_int {
    let home = Child::init("init", || {});
    let path = &*format!("/proc/{}/ns/pid", home.pid);
    report("ns", inode(path).expect("its namespace can be read"));
    // Before this process opens it, so that none of them inherits that.
    let threads = Child::fork(|side| {
        hold_by_threads(path);
        side.ready();
        side.wait();
        0
    });
    let threads = threads.expect("a fork works");
    threads.await_ready();
    let inside = Child::init("holder in another namespace", || std::mem::forget(hold(path, None)));
    let first_thread_gone = hold_by_second_thread(path);
    let zombie = fork(|| {
        let _file = File::open(path).expect("a namespace file can be opened");
        0
    });
    sys::wait_without_reaping(zombie).expect("a child can be waited for");
    report("zombie", zombie);

    let file = hold(path, None);
    let twice = file.try_clone().expect("a descriptor can be duplicated");
    report_held(&twice, None);
    let pathless =
        File::options().read(true).custom_flags(libc::O_PATH).open(path).expect("O_PATH is enough");
    report_held(&pathless, None);
    // What is of another kind, or of none, holds no PID namespace.
    let _others =
        ["ns/user", "ns/mnt", "ns/time", "stat"].map(|file| File::open(format!("/proc/self/{file}")));
    home.dismiss();
    let code = stand_still();
    threads.dismiss();
    inside.dismiss();
    sys::kill(first_thread_gone, libc::SIGKILL).expect("a child can be killed");
    sys::wait(first_thread_gone).expect("a child can be waited for");
    sys::wait(zombie).expect("a zombie can be reaped");
    code
}

/// The first thread has it open, with which a second one shares its files. A third one has a copy of them and one file more; the
/// children of a fourth one will be born there.
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
        sys::unshare(libc::CLONE_FILES).expect("a thread may have files of its own");
        let tid = Some(sys::gettid());
        report("held", Held { pid: Who::myself().pid, fd: shared, tid });
        std::mem::forget(hold(&own, tid));
        apart.open();
        sys::pause_forever()
    });
    thread::spawn(move || {
        sys::setns(file.as_fd(), sys::NEWPID).expect("this namespace may be joined");
        std::mem::forget(file);
        report("children go there", Who::myself().pid);
        going.open();
        sys::pause_forever()
    });
    started.iter().for_each(|gate| gate.wait());
}

/// A process whose first thread has ended; two others share what it had open.
fn hold_by_second_thread(path: &str) -> Pid {
    let ready = Gate::new();
    let child = fork(|| {
        sys::die_with_parent().expect("PR_SET_PDEATHSIG is allowed");
        let file = File::open(path).expect("a namespace file can be opened");
        let pid = Who::myself().pid;
        let (report_tid, hear_tid) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let report_tid = report_tid.clone();
            thread::spawn(move || {
                // What the first thread asked for has ended with it.
                sys::die_with_parent().expect("PR_SET_PDEATHSIG is allowed");
                report_tid.send(sys::gettid()).expect("it is heard");
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
