//! Dying namespaces: each way in which an init can die, and what dies with it.

use std::ffi::c_int;
use std::fs;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use super::{Child, Situation, become_actor, fork, parse, report, report_end, sleeping_members, wait_for_go};
use crate::facts::{Who, state};
use crate::sys;

pub(super) const SITUATIONS: &[Situation] = &[
    ("exit-with-members", |args| exit_with_members(parse(args, 0, "members"), parse(args, 1, "exit code"))),
    ("killed-from-outside", |_| killed_from_outside()),
    ("fault", |_| fault()),
    ("nested-teardown", |_| nested_teardown()),
    ("reboot", |args| reboot_inside(&parse::<String>(args, 0, "restart or halt"))),
    ("memory-runs-out", |args| memory_runs_out(&parse::<String>(args, 0, "a cgroup"))),
    ("memory-runs-out-for-a-member", |args| {
        memory_runs_out_for_a_member(&parse::<String>(args, 0, "a cgroup"))
    }),
    ("leader-leaves-init", |_| run_as_init(&["leader-leaves"])),
    ("leader-leaves", |_| leader_leaves()),
    ("thread-execs-in-init", |_| run_as_init(&["thread-execs"])),
    ("thread-execs", |_| thread_execs()),
    ("exit-on-request", |args| exit_on_request(parse(args, 0, "exit code"))),
    ("zombie-held-from-outside", |args| zombie_held_from_outside(parse(args, 0, "milliseconds"))),
];

/// An init with sleeping members exits by itself.
fn exit_with_members(members: usize, code: c_int) -> c_int {
    let life = |_: &super::Side<'_>| {
        report("init", Who::myself());
        sleeping_members(members);
        code
    };
    let init = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
    let ended = report_end("end", init.pid);
    assert_eq!(ended.code, Some(code), "the init must exit with its code");
    0
}

fn killed_from_outside() -> c_int {
    let home = Child::init("init", || sleeping_members(3));
    report("killer", Who::myself());
    sys::kill(home.pid, libc::SIGKILL).expect("kill the init");
    let ended = report_end("end", home.pid);
    assert_eq!(ended.signal, Some(libc::SIGKILL), "the signal must kill the init");
    0
}

/// An init with a bug.
fn fault() -> c_int {
    let life = |_: &super::Side<'_>| {
        report("init", Who::myself());
        sleeping_members(2);
        sys::forbid_core_dumps().expect("forbid core dumps");
        // Rust's runtime has its own handler, which reports stack overflows.
        sys::set_disposition(libc::SIGSEGV, libc::SIG_DFL).expect("reset the handler");
        sys::segfault()
    };
    let init = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
    let ended = report_end("end", init.pid);
    assert_eq!(ended.signal, Some(libc::SIGSEGV), "the fault must kill the init");
    0
}

/// A nested namespace. The outer init is killed, and the inner namespace dies with it.
fn nested_teardown() -> c_int {
    let outer = Child::init("outer", || {
        let inner = Child::init("inner", || sleeping_members(3));
        assert_eq!(inner.pid, 2, "the inner init must be the outer one's first child");
    });
    report("killer", Who::myself());
    sys::kill(outer.pid, libc::SIGKILL).expect("kill the init");
    let ended = report_end("end", outer.pid);
    assert_eq!(ended.signal, Some(libc::SIGKILL), "the signal must kill the init");
    0
}

/// reboot(2) by an init, in a PID namespace that is not the machine's.
fn reboot_inside(command: &str) -> c_int {
    let (command, expected) = match command {
        "restart" => (libc::LINUX_REBOOT_CMD_RESTART, libc::SIGHUP),
        "halt" => (libc::LINUX_REBOOT_CMD_HALT, libc::SIGINT),
        "power_off" => (libc::LINUX_REBOOT_CMD_POWER_OFF, libc::SIGINT),
        other => panic!("{other} is not a command of reboot(2)"),
    };
    let outside = Who::myself();
    let life = move |_: &super::Side<'_>| {
        let who = Who::myself();
        report("init", &who);
        sleeping_members(2);
        // In the initial namespace this call affects the whole machine. Three facts, read from the kernel at the last
        // moment, must show that this is another namespace. If one of them does not, this process ends instead.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let nspid = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let levels = nspid.split_whitespace().count();
        if sys::getpid() != 1 || levels < 2 || who.ns == outside.ns {
            eprintln!("not inside a PID namespace (NSpid: {nspid}): no reboot(2) here");
            std::process::abort();
        }
        let error = sys::reboot(command);
        panic!("reboot(2) in a PID namespace returned: {error}")
    };
    let init = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
    let ended = report_end("end", init.pid);
    assert_eq!(ended.signal, Some(expected), "the wait status must show the command");
    0
}

/// An init in a cgroup that allocates more memory than the limit.
fn memory_runs_out(cgroup: &str) -> c_int {
    let init = Child::clone(sys::NEWPID, |_| {
        report("init", Who::myself());
        take_all_memory(cgroup)
    });
    let ended = report_end("end", init.expect("create a PID namespace").pid);
    assert_eq!(ended.signal, Some(libc::SIGKILL), "the kernel must kill the init");
    0
}

/// The same for a member. PID 1 lives until "go".
fn memory_runs_out_for_a_member(cgroup: &str) -> c_int {
    let home = Child::init("init", || {
        let member = fork(|| {
            report("member", Who::myself());
            take_all_memory(cgroup)
        });
        let ended = report_end("end", member);
        assert_eq!(ended.signal, Some(libc::SIGKILL), "the kernel must kill the member");
        wait_for_go();
    });
    home.dismiss();
    0
}

/// Allocates memory in this cgroup until the kernel kills this process.
fn take_all_memory(cgroup: &str) -> c_int {
    fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

/// Runs this program again as the init of a new namespace, so that it may have threads.
fn run_as_init(args: &[&str]) -> c_int {
    let init = Child::clone(sys::NEWPID, |_| become_actor(args)).expect("create a PID namespace");
    report_end("end", init.pid);
    0
}

/// The first thread of an init ends. The second one stays for a while, and ends the process with 9.
fn leader_leaves() -> c_int {
    let who = Who::myself();
    report("init", &who);
    let stat = format!("/proc/{}/stat", who.pid);
    thread::spawn(move || {
        while state(&stat) != Some('Z') {
            thread::sleep(Duration::from_millis(1));
        }
        report("leader-gone", sys::boot_ns());
        wait_for_go();
        report("last-leaves", sys::boot_ns());
        sys::exit_now(9)
    });
    sys::exit_thread()
}

/// A thread that is not the first one executes another program. It becomes the leader, and so PID 1.
fn thread_execs() -> c_int {
    report("init", Who::myself());
    let thread = thread::spawn(|| {
        assert_ne!(sys::gettid(), sys::getpid(), "this thread must not be the leader");
        become_actor(&["exit-on-request", "4"]);
    });
    thread.join().expect("the exec ends this thread and this program");
    0
}

fn exit_on_request(code: c_int) -> c_int {
    report("after-exec", Who::myself());
    wait_for_go();
    report("leaving", sys::boot_ns());
    code
}

/// A member's parent is outside and does not reap it. The init waits for that parent before it ends.
fn zombie_held_from_outside(milliseconds: u64) -> c_int {
    let home = Child::init("init", || {});
    let file = fs::File::open(format!("/proc/{}/ns/pid", home.pid)).expect("open the namespace file");
    let holder = fork(|| {
        sys::die_with_parent().expect("set the parent death signal");
        sys::setns(file.as_fd(), sys::NEWPID).expect("join the namespace");
        let zombie = fork(|| {
            report("zombie", Who::myself());
            0
        });
        sys::wait_without_reaping(zombie).expect("wait for the zombie");
        home.let_go();
        thread::sleep(Duration::from_millis(milliseconds));
        report("reaping", sys::boot_ns());
        sys::wait(zombie).expect("reap the zombie");
        0
    });
    assert!(sys::wait(holder).expect("wait for the holder").success(), "the outside parent failed");
    report_end("end", home.pid);
    0
}
