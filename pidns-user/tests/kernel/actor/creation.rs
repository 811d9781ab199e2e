//! Successful and refused creations of namespaces.

use std::ffi::c_int;
use std::fs;

use super::{Child, Situation, fork_and_wait, report, report_refusal, try_to_make_namespaces, wait_for_go};
use crate::facts::{Namespace, Who, Window, inode};
use crate::sys::{self, Birth, Pid};

pub(super) const SITUATIONS: &[Situation] = &[
    ("clone", |_| clone()),
    ("clone3", |_| clone3()),
    ("restore", |_| restore()),
    ("unshare-then-fork", |_| unshare_then_fork()),
    ("unshare-only", |_| unshare_only()),
    ("nested", |_| nested()),
    ("too-deep", |_| too_deep()),
    ("too-many", |_| too_many()),
    ("counted-out", |_| counted_out()),
    ("one-too-many-of-another-type", |_| one_too_many_of_another_type()),
    ("unshare-twice", |_| unshare_twice()),
    ("unprivileged", |_| unprivileged()),
    ("bad-set-tid", |_| bad_set_tid()),
];

fn clone() -> c_int {
    report("creator", Who::myself());
    let (window, init) = Window::around(|| Child::clone(sys::NEWPID, live_as_init));
    meet_init(window, init.expect("create a PID namespace"))
}

fn clone3() -> c_int {
    report("creator", Who::myself());
    let birth = Birth { flags: sys::NEWPID, ..Birth::default() };
    let (window, init) = Window::around(|| Child::clone3(&birth, live_as_init));
    meet_init(window, init.expect("create a PID namespace"))
}

fn live_as_init(side: &super::Side<'_>) -> c_int {
    report("init", Who::myself());
    side.ready();
    side.wait();
    0
}

/// Reports what the creator knows about a namespace: the time of its creation, and nsfs's data.
fn meet_init(window: Window, init: Child) -> c_int {
    init.await_ready();
    report("window", window);
    report("namespace", Namespace::of(init.pid));
    init.dismiss();
    0
}

/// A PID that no process of this machine has, far from the next ones.
pub(super) fn free_pid(not: Pid) -> Pid {
    let highest: Pid = fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("read pid_max");
    let newest = sys::getpid();
    let taken = |pid: Pid| fs::exists(format!("/proc/{pid}")).unwrap_or(true);
    (300..highest)
        .rev()
        .find(|&pid| pid != not && (pid - newest).abs() > 1000 && !taken(pid))
        .expect("find a free PID")
}

/// Makes an init and its child with chosen PIDs at both levels, as a container restore does.
fn restore() -> c_int {
    report("creator", Who::myself());
    let (init_pid, child_pid) = {
        let first = free_pid(0);
        (first, free_pid(first))
    };
    let birth = Birth { flags: sys::NEWPID, set_tid: vec![1, init_pid] };
    let init = Child::clone3(&birth, |_| {
        report("init", Who::myself());
        let birth = Birth { flags: 0, set_tid: vec![77, child_pid] };
        let child = sys::clone3(&birth, || {
            report("child", Who::myself());
            0
        });
        let status = sys::wait(child.expect("the chosen PIDs are free")).expect("wait for the child");
        assert!(status.success(), "the restored child ended with {status}");
        fork_and_wait(|| {
            report("newcomer", Who::myself());
            0
        });
        0
    });
    let init = init.expect("the chosen PIDs are free");
    assert_eq!(init.pid, init_pid, "clone3 must use the chosen PID");
    report("chosen", [init_pid, child_pid]);
    assert!(init.reap().success(), "the restored init failed");
    0
}

fn unshare_then_fork() -> c_int {
    report("creator", Who::myself());
    let (window, result) = Window::around(|| sys::unshare(sys::NEWPID));
    result.expect("unshare the PID namespace");
    let (forked, init) = Window::around(|| Child::fork(live_as_init));
    report("forked", forked);
    meet_init(window, init.expect("fork after the unshare"))
}

fn unshare_only() -> c_int {
    report("creator", Who::myself());
    let (window, result) = Window::around(|| sys::unshare(sys::NEWPID));
    result.expect("unshare the PID namespace");
    report("window", window);
    0
}

/// Nests `left` inits in each other. The innermost runs `leaf`.
pub(super) fn descend(left: u32, leaf: &dyn Fn()) -> c_int {
    if left == 0 {
        leaf();
        return 0;
    }
    let inner = sys::clone(sys::NEWPID, || {
        sys::die_with_parent().expect("set the parent death signal");
        report("level", Who::myself());
        descend(left - 1, leaf)
    });
    let status =
        sys::wait(inner.expect("create a namespace at this depth")).expect("wait for the inner init");
    status.code().expect("the inner init exits by itself")
}

/// Makes three nested namespaces, which stay until the test has checked them.
fn nested() -> c_int {
    report("creator", Who::myself());
    descend(3, &|| {
        report("complete", true);
        wait_for_go();
    })
}

/// 32 levels are allowed. At the last one, each way to make another namespace is refused.
fn too_deep() -> c_int {
    descend(32, &|| try_to_make_namespaces(&Who::myself()))
}

/// A separate user namespace allows no PID namespace. The limit of the machine does not change.
fn too_many() -> c_int {
    let limit = "/proc/sys/user/max_pid_namespaces";
    let before = fs::read_to_string(limit).expect("read the limit");
    fork_and_wait(|| {
        // Before the unshare, because afterwards the uid would be the overflow uid.
        let who = Who::myself();
        let outside = inode("/proc/self/ns/user").expect("read the user namespace");
        sys::unshare(libc::CLONE_NEWUSER).expect("create a user namespace");
        let inside = inode("/proc/self/ns/user").expect("read the user namespace");
        assert_ne!(outside, inside, "the limit that is set must not be the machine's");
        fs::write(limit, "0").expect("set the limit");
        try_to_make_namespaces(&who);
        0
    });
    let after = fs::read_to_string(limit).expect("read the limit");
    assert_eq!(before, after, "the limit of the machine must not change");
    0
}

/// A user namespace allows one PID namespace, and one exists. Then children try to create a PID namespace: in this user
/// namespace, in a nested user namespace and, when no more user namespaces are allowed, together with a new user
/// namespace.
fn counted_out() -> c_int {
    let set = |limit: &str, most: &str| {
        fs::write(format!("/proc/sys/user/{limit}"), most).expect("set the limit");
    };
    let try_in_child = |fact: &str, enter: c_int, flags: c_int| {
        fork_and_wait(|| {
            let who = Who::myself();
            if enter != 0 {
                sys::unshare(enter).expect("create another user namespace");
            }
            report_refusal(fact, "unshare", &who, &sys::unshare(flags));
            0
        });
    };
    fork_and_wait(|| {
        sys::unshare(libc::CLONE_NEWUSER).expect("create a user namespace");
        report("user namespace", inode("/proc/self/ns/user").expect("read the user namespace"));
        // The creator of a nested user namespace must have a mapped id in this one.
        for (file, text) in [("uid_map", "0 0 1"), ("setgroups", "deny"), ("gid_map", "0 0 1")] {
            fs::write(format!("/proc/self/{file}"), text).expect("map the ids");
        }
        set("max_pid_namespaces", "1");
        let first = Child::clone(sys::NEWPID, live_as_init).expect("create the one allowed namespace");
        first.await_ready();
        try_in_child("own", 0, sys::NEWPID);
        try_in_child("outer", libc::CLONE_NEWUSER, sys::NEWPID);
        set("max_user_namespaces", "0");
        try_in_child("user", 0, libc::CLONE_NEWUSER | sys::NEWPID);
        first.dismiss();
        0
    });
    0
}

/// A PID namespace would be allowed, but the network namespace in the same call is not.
fn one_too_many_of_another_type() -> c_int {
    fork_and_wait(|| {
        // Before the unshare, because afterwards the uid would be the overflow uid.
        let who = Who::myself();
        sys::unshare(libc::CLONE_NEWUSER).expect("create a user namespace");
        fs::write("/proc/sys/user/max_net_namespaces", "0").expect("set the limit");
        report_refusal("refused", "unshare", &who, &sys::unshare(sys::NEWPID | libc::CLONE_NEWNET));
        0
    });
    0
}

fn unshare_twice() -> c_int {
    fork_and_wait(|| {
        sys::unshare(sys::NEWPID).expect("unshare the PID namespace");
        try_to_make_namespaces(&Who::myself());
        0
    });
    0
}

fn unprivileged() -> c_int {
    fork_and_wait(|| {
        sys::become_uid(65534).expect("become nobody");
        try_to_make_namespaces(&Who::myself());
        0
    });
    0
}

/// The namespace is created and freed at once, because its first process must have PID 1.
fn bad_set_tid() -> c_int {
    let who = Who::myself();
    let birth = Birth { flags: sys::NEWPID, set_tid: vec![5] };
    report_refusal("refused", "clone3", &who, &sys::clone3(&birth, || 0).map(sys::wait));
    0
}
