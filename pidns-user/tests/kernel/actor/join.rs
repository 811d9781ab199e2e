//! Processes whose children will be born elsewhere: allowed and refused setns calls.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Child, Situation, fork_and_wait, report, report_refusal};
use crate::facts::{Who, Window, inode};
use crate::sys::{self, Pid};

pub(super) const SITUATIONS: &[Situation] = &[
    ("join-by-fd", |_| join(|init| namespace_file(init, "pid").into(), sys::NEWPID)),
    ("join-by-fd-any-type", |_| join(|init| namespace_file(init, "pid").into(), 0)),
    ("join-by-pidfd", |_| join(|init| sys::pidfd_open(init).expect("open a pidfd of the init"), sys::NEWPID)),
    ("join-one-after-the-other", |_| join_one_after_the_other()),
    ("join-an-ancestor", |_| join_an_ancestor()),
    ("join-a-sibling", |_| join_a_sibling()),
    ("join-a-sibling-by-pidfd", |_| join_a_sibling_by_pidfd()),
    ("join-unprivileged", |_| join_unprivileged()),
    ("join-own-unprivileged", |_| join_own_unprivileged()),
    ("join-and-unshare", |_| join_and_unshare()),
    ("join-other-types", |_| join_other_types()),
    ("join-wrong-type", |_| join_wrong_type()),
];

fn namespace_file(pid: Pid, kind: &str) -> File {
    File::open(format!("/proc/{pid}/ns/{kind}")).expect("open the namespace file")
}

fn setns(fd: BorrowedFd<'_>, flags: c_int) {
    sys::setns(fd, flags).expect("join the namespace");
}

/// Joins a namespace from outside, and forks a child into it.
fn join(open: impl Fn(Pid) -> OwnedFd, flags: c_int) -> c_int {
    let home = Child::init("init", || {});
    let fd = open(home.pid);
    report("joiner", Who::myself());
    let (window, ()) = Window::around(|| setns(fd.as_fd(), flags));
    report("window", window);
    assert_eq!(
        inode("/proc/self/ns/pid_for_children").expect("read the namespace for children"),
        inode(&format!("/proc/{}/ns/pid", home.pid)).expect("read the init's namespace"),
        "children of the joiner must be born in the joined namespace",
    );
    fork_and_wait(|| {
        report("child", Who::myself());
        0
    });
    home.dismiss();
    0
}

/// Joins one namespace, then its sibling, then its own again. Each join starts at the target of the previous one.
fn join_one_after_the_other() -> c_int {
    let (first, second) = (Child::init("first", || {}), Child::init("second", || {}));
    report("joiner", Who::myself());
    let own = namespace_file(sys::getpid(), "pid");
    setns(namespace_file(first.pid, "pid").as_fd(), sys::NEWPID);
    setns(namespace_file(second.pid, "pid").as_fd(), sys::NEWPID);
    setns(own.as_fd(), sys::NEWPID);
    fork_and_wait(|| {
        report("child", Who::myself());
        0
    });
    first.dismiss();
    second.dismiss();
    0
}

/// Ancestors can never be joined: an init keeps a file of its parent namespace and tries.
fn join_an_ancestor() -> c_int {
    report("target", Who::myself().ns);
    let outside = namespace_file(sys::getpid(), "pid");
    let home = Child::init("init", || {
        let who = Who::myself();
        report_refusal("refused", "setns", &who, &sys::setns(outside.as_fd(), sys::NEWPID));
    });
    home.dismiss();
    0
}

/// Siblings cannot be joined either.
fn join_a_sibling() -> c_int {
    let sibling = Child::init("sibling", || {});
    let file = namespace_file(sibling.pid, "pid");
    let home = Child::init("init", || {
        let who = Who::myself();
        report_refusal("refused", "setns", &who, &sys::setns(file.as_fd(), sys::NEWPID));
    });
    home.dismiss();
    sibling.dismiss();
    0
}

fn join_a_sibling_by_pidfd() -> c_int {
    let sibling = Child::init("sibling", || {});
    let pidfd = sys::pidfd_open(sibling.pid).expect("open a pidfd of the sibling");
    let home = Child::init("init", || {
        let who = Who::myself();
        report_refusal("refused", "setns", &who, &sys::setns(pidfd.as_fd(), sys::NEWPID));
    });
    home.dismiss();
    sibling.dismiss();
    0
}

fn join_unprivileged() -> c_int {
    let home = Child::init("init", || {});
    let file = namespace_file(home.pid, "pid");
    fork_and_wait(|| {
        sys::become_uid(65534).expect("become nobody");
        let who = Who::myself();
        report_refusal("refused", "setns", &who, &sys::setns(file.as_fd(), sys::NEWPID));
        0
    });
    home.dismiss();
    0
}

/// A user joins a PID namespace that it owns before it joins the user namespace, as util-linux once did.
fn join_own_unprivileged() -> c_int {
    fork_and_wait(|| {
        sys::become_uid(65534).expect("become nobody");
        sys::be_dumpable().expect("make the process dumpable");
        let life = |side: &super::Side<'_>| {
            report("init pid", sys::getpid());
            side.ready();
            side.wait();
            0
        };
        let home = Child::clone(sys::NEWPID | libc::CLONE_NEWUSER, life).expect("create a user namespace");
        home.await_ready();
        let file = namespace_file(home.pid, "pid");
        report("own user namespace", inode("/proc/self/ns/user").expect("read the user namespace"));
        let who = Who::myself();
        report_refusal("refused", "setns", &who, &sys::setns(file.as_fd(), sys::NEWPID));
        home.dismiss();
        0
    });
    0
}

/// A process whose children go to a joined namespace cannot create one for them.
fn join_and_unshare() -> c_int {
    let home = Child::init("init", || {});
    setns(namespace_file(home.pid, "pid").as_fd(), sys::NEWPID);
    report_refusal("refused", "unshare", &Who::myself(), &sys::unshare(sys::NEWPID));
    home.dismiss();
    0
}

/// Other types of namespaces: two successful calls, one with a type and one without, and a refused one.
fn join_other_types() -> c_int {
    let own = sys::getpid();
    report("joiner", Who::myself());
    setns(namespace_file(own, "mnt").as_fd(), libc::CLONE_NEWNS);
    setns(namespace_file(own, "uts").as_fd(), libc::CLONE_NEWUTS);
    setns(namespace_file(own, "uts").as_fd(), 0);
    let mismatch = sys::setns(namespace_file(own, "mnt").as_fd(), libc::CLONE_NEWUTS);
    report_refusal("refused", "setns", &Who::myself(), &mismatch);
    0
}

/// One call asks for a PID namespace, but the file has another type. In the other, the file is right, but the call
/// asks for another type.
fn join_wrong_type() -> c_int {
    let own = sys::getpid();
    let who = Who::myself();
    let refused = sys::setns(namespace_file(own, "net").as_fd(), sys::NEWPID);
    report_refusal("another file", "setns", &who, &refused);
    let refused = sys::setns(namespace_file(own, "pid").as_fd(), sys::NEWPID | libc::CLONE_NEWNET);
    report_refusal("another type", "setns", &who, &refused);
    let file = File::open("/proc/self/status").expect("open a file that is not a namespace file");
    report_refusal("no namespace", "setns", &who, &sys::setns(file.as_fd(), sys::NEWPID));
    0
}
