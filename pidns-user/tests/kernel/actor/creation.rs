//! Namespaces that come to exist, and those that may not.

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
    meet_init(window, init.expect("root can make a PID namespace"))
}

fn clone3() -> c_int {
    report("creator", Who::myself());
    let birth = Birth { flags: sys::NEWPID, ..Birth::default() };
    let (window, init) = Window::around(|| Child::clone3(&birth, live_as_init));
    meet_init(window, init.expect("root can make a PID namespace"))
}

fn live_as_init(side: &super::Side<'_>) -> c_int {
    report("init", Who::myself());
    side.ready();
    side.wait();
    0
}

/// What the creator knows of a namespace: when it made it and what nsfs has about it.
fn meet_init(window: Window, init: Child) -> c_int {
    init.await_ready();
    report("window", window);
    report("namespace", Namespace::of(init.pid));
    init.dismiss();
    0
}

/// A number that no process of this machine has, far from the ones given next.
pub(super) fn free_pid(not: Pid) -> Pid {
    let highest: Pid = fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("pid_max is a number");
    let newest = sys::getpid();
    let taken = |pid: Pid| fs::exists(format!("/proc/{pid}")).unwrap_or(true);
    (300..highest)
        .rev()
        .find(|&pid| pid != not && (pid - newest).abs() > 1000 && !taken(pid))
        .expect("a free PID")
}

/// An init and its child with PIDs that we choose at both levels, as a container restore does it.
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
        let status = sys::wait(child.expect("the chosen PIDs are free")).expect("a child can be waited for");
        assert!(status.success(), "the restored child ended with {status}");
        fork_and_wait(|| {
            report("newcomer", Who::myself());
            0
        });
        0
    });
    let init = init.expect("the chosen PIDs are free");
    assert_eq!(init.pid, init_pid, "clone3 took the PID it was given");
    report("chosen", [init_pid, child_pid]);
    assert!(init.reap().success(), "the restored init ended well");
    0
}

fn unshare_then_fork() -> c_int {
    report("creator", Who::myself());
    let (window, result) = Window::around(|| sys::unshare(sys::NEWPID));
    result.expect("root can unshare its PID namespace");
    let (forked, init) = Window::around(|| Child::fork(live_as_init));
    report("forked", forked);
    meet_init(window, init.expect("the first fork after an unshare works"))
}

fn unshare_only() -> c_int {
    report("creator", Who::myself());
    let (window, result) = Window::around(|| sys::unshare(sys::NEWPID));
    result.expect("root can unshare its PID namespace");
    report("window", window);
    0
}

/// Inits within inits, `left` of them; the innermost runs `leaf`.
pub(super) fn descend(left: u32, leaf: &dyn Fn()) -> c_int {
    if left == 0 {
        leaf();
        return 0;
    }
    let inner = sys::clone(sys::NEWPID, || {
        sys::die_with_parent().expect("PR_SET_PDEATHSIG is allowed");
        report("level", Who::myself());
        descend(left - 1, leaf)
    });
    let status = sys::wait(inner.expect("a namespace at this depth")).expect("a child can be waited for");
    status.code().expect("an inner namespace ends by itself")
}

/// Three levels; they stay until the test has checked them.
fn nested() -> c_int {
    report("creator", Who::myself());
    descend(3, &|| {
        report("complete", true);
        wait_for_go();
    })
}

/// 32 levels are allowed; at the last one each way to make one more is refused.
fn too_deep() -> c_int {
    descend(32, &|| try_to_make_namespaces(&Who::myself()))
}

/// A user namespace of our own allows no PID namespace; the limit of the machine is not touched.
fn too_many() -> c_int {
    let limit = "/proc/sys/user/max_pid_namespaces";
    let before = fs::read_to_string(limit).expect("the limit can be read");
    fork_and_wait(|| {
        // Before it: inside, its uid would be shown as the overflow uid.
        let who = Who::myself();
        let outside = inode("/proc/self/ns/user").expect("a user namespace");
        sys::unshare(libc::CLONE_NEWUSER).expect("root can make a user namespace");
        let inside = inode("/proc/self/ns/user").expect("a user namespace");
        assert_ne!(outside, inside, "the limit that is set must not be the machine's");
        fs::write(limit, "0").expect("the owner of a user namespace can set its limit");
        try_to_make_namespaces(&who);
        0
    });
    let after = fs::read_to_string(limit).expect("the limit can be read");
    assert_eq!(before, after, "the limit of the machine was left alone");
    0
}

/// A user namespace that may have one PID namespace has it; then more are asked for there, and in a user namespace within, and then
/// with a user namespace of their own, of which it may have none.
fn counted_out() -> c_int {
    let set = |limit: &str, most: &str| {
        fs::write(format!("/proc/sys/user/{limit}"), most).expect("the owner can set its limit");
    };
    let try_in_child = |fact: &str, enter: c_int, flags: c_int| {
        fork_and_wait(|| {
            let who = Who::myself();
            if enter != 0 {
                sys::unshare(enter).expect("another user namespace is allowed");
            }
            report_refusal(fact, "unshare", &who, &sys::unshare(flags));
            0
        });
    };
    fork_and_wait(|| {
        sys::unshare(libc::CLONE_NEWUSER).expect("root can make a user namespace");
        report("user namespace", inode("/proc/self/ns/user").expect("a user namespace"));
        // Who makes one within must have a number in this one.
        for (file, text) in [("uid_map", "0 0 1"), ("setgroups", "deny"), ("gid_map", "0 0 1")] {
            fs::write(format!("/proc/self/{file}"), text).expect("its owner can map itself");
        }
        set("max_pid_namespaces", "1");
        let first = Child::clone(sys::NEWPID, live_as_init).expect("one is allowed");
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

/// A PID namespace would be allowed, the network namespace that is asked for with it is not.
fn one_too_many_of_another_type() -> c_int {
    fork_and_wait(|| {
        // Before it: inside, its uid would be shown as the overflow uid.
        let who = Who::myself();
        sys::unshare(libc::CLONE_NEWUSER).expect("root can make a user namespace");
        fs::write("/proc/sys/user/max_net_namespaces", "0").expect("the owner can set its limit");
        report_refusal("refused", "unshare", &who, &sys::unshare(sys::NEWPID | libc::CLONE_NEWNET));
        0
    });
    0
}

fn unshare_twice() -> c_int {
    fork_and_wait(|| {
        sys::unshare(sys::NEWPID).expect("root can unshare its PID namespace");
        try_to_make_namespaces(&Who::myself());
        0
    });
    0
}

fn unprivileged() -> c_int {
    fork_and_wait(|| {
        sys::become_uid(65534).expect("root can become nobody");
        try_to_make_namespaces(&Who::myself());
        0
    });
    0
}

/// The namespace is made and freed again at once, because its first process may only be 1.
fn bad_set_tid() -> c_int {
    let who = Who::myself();
    let birth = Birth { flags: sys::NEWPID, set_tid: vec![5] };
    report_refusal("refused", "clone3", &who, &sys::clone3(&birth, || 0).map(sys::wait));
    0
}
