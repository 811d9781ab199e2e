//! Situations with processes in a namespace: how they start, exec and end, and which process reaps them.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use super::creation::free_pid;
use super::{
    Child, Situation, become_actor, fork, fork_and_wait, parse, report, report_end, report_refusal,
    this_program, wait_for_go,
};
use crate::facts::{Who, Window, state};
use crate::sys::{self, Birth, Gate, Pid};

pub(super) const SITUATIONS: &[Situation] = &[
    ("exec-and-exit", |args| exec_and_exit(args)),
    ("exit", |args| exit(parse(args, 0, "exit code"))),
    ("killed-member", |_| killed_member()),
    ("zombie", |args| zombie(parse(args, 0, "milliseconds"))),
    ("zombie-until-go", |_| zombie_until_go()),
    ("outlived-leader-unwaited", |_| outlived_leader_unwaited()),
    ("leader-goes-first", |_| leader_goes_first()),
    ("orphan", |_| orphan()),
    ("dead-namespace", |_| dead_namespace()),
    ("join-dead-namespace", |_| join_dead_namespace()),
    ("too-many-processes", |_| too_many_processes()),
    ("fills-cgroup", |args| fills_cgroup(&args[0])),
    ("ending", |args| ending(&args[0])),
    ("killed-while-forking", |args| killed_while_forking(&args[0])),
    ("filtered", |args| filtered(&args[0])),
    ("thread-after-unshare", |_| thread_after_unshare()),
    ("same-pid-twice", |_| same_pid_twice()),
    ("strange-name", |_| strange_name()),
    ("threads-in-namespace", |args| threads_in_namespace(&args[0])),
    ("threads", |args| threads(parse(args, 0, "threads"))),
    ("two-families", |_| two_families()),
    ("two-names", |_| two_names()),
    ("two-siblings", |_| two_siblings()),
];

/// Bytes that confuse a terminal, JSON or a careless printer: an escape sequence, invalid UTF-8, a quote, a
/// backslash.
pub(crate) const STRANGE_NAME: &[u8] = b"\x1b[31m\xff\xfe\"\\x";

/// A member that executes this program again with `args`, and ends with their exit code.
fn exec_and_exit(args: &[String]) -> c_int {
    report("program", this_program());
    let home = Child::init("init", || {
        let child = fork(|| {
            report("child", Who::myself());
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            become_actor(&[&["exit"], args.as_slice()].concat())
        });
        report_end("end", child);
    });
    home.dismiss();
    0
}

fn exit(code: c_int) -> c_int {
    report("after-exec", Who::myself());
    code
}

fn killed_member() -> c_int {
    let home = Child::init("init", || {
        let gate = Gate::new();
        let child = fork(|| {
            report("child", Who::myself());
            gate.open();
            sys::pause_forever()
        });
        gate.wait();
        sys::kill(child, libc::SIGTERM).expect("kill the child");
        report_end("end", child);
    });
    home.dismiss();
    0
}

/// A member (not PID 1) ends in one of many ways.
fn ending(how: &str) -> c_int {
    let home = Child::init("init", || {
        let gate = Gate::new();
        let life = || {
            sys::forbid_core_dumps().expect("forbid core dumps");
            // A shell makes its background processes ignore SIGQUIT.
            for signal in [libc::SIGSEGV, libc::SIGTERM, libc::SIGQUIT] {
                let handler: extern "C" fn(c_int) = sys::on_signal_do_nothing;
                let is_handled = how == "signal with a handler" && signal == libc::SIGTERM;
                let disposition = if is_handled { handler as libc::sighandler_t } else { libc::SIG_DFL };
                sys::set_disposition(signal, disposition).expect("set the handler");
            }
            report("child", Who::myself());
            gate.open();
            match how {
                "fault" => sys::segfault(),
                "abort" => std::process::abort(),
                "exit" => 0,
                "signal with a handler" => {
                    thread::sleep(Duration::from_millis(100));
                    0
                }
                _ => sys::pause_forever(),
            }
        };
        let signal = |signal| {
            let child = fork(life);
            gate.wait();
            sys::kill(child, signal).expect("send the signal");
            report_end("end", child);
        };
        match how {
            "SIGKILL" => signal(libc::SIGKILL),
            "SIGTERM" | "signal with a handler" => signal(libc::SIGTERM),
            "SIGQUIT" => signal(libc::SIGQUIT),
            "parent ends" => {
                let parent = fork(|| {
                    fork(|| {
                        sys::die_with_parent().expect("set the parent death signal");
                        life()
                    });
                    gate.wait();
                    0
                });
                sys::wait(parent).expect("wait for the parent");
                report_end("end", -1);
            }
            _ => {
                report_end("end", fork(life));
            }
        }
    });
    home.dismiss();
    0
}

/// A member is a zombie for at least this time.
fn zombie(milliseconds: u64) -> c_int {
    let home = Child::init("init", || {
        let (window, ()) = Window::around(|| {
            let child = fork(|| {
                report("child", Who::myself());
                0
            });
            sys::wait_without_reaping(child).expect("wait for the child");
            thread::sleep(Duration::from_millis(milliseconds));
            sys::wait(child).expect("reap the zombie");
        });
        report("window", window);
    });
    home.dismiss();
    0
}

/// A member is a zombie from this report until "go".
fn zombie_until_go() -> c_int {
    let home = Child::init("init", || {
        let child = fork(|| {
            report("child", Who::myself());
            0
        });
        sys::wait_without_reaping(child).expect("wait for the child");
        report("zombie", child);
        wait_for_go();
        sys::wait(child).expect("reap the zombie");
    });
    home.dismiss();
    0
}

/// A member whose first thread ends before the other one, and that no process waits for. The kernel reaps both at
/// once.
fn outlived_leader_unwaited() -> c_int {
    let home = Child::init("init", || {
        sys::set_disposition(libc::SIGCHLD, libc::SIG_IGN).expect("ignore SIGCHLD");
        let child = fork(|| become_actor(&["leader-goes-first"]));
        sys::wait(child).expect_err("the child is reaped already, without a status");
    });
    home.dismiss();
    0
}

fn leader_goes_first() -> c_int {
    let who = Who::myself();
    report("child", &who);
    let stat = format!("/proc/{}/stat", who.pid);
    thread::spawn(move || {
        while state(&stat) != Some('Z') {
            thread::sleep(Duration::from_millis(1));
        }
        sys::exit_thread()
    });
    sys::exit_thread()
}

/// A child outlives its parent and becomes the init's child. Its sibling does not.
fn orphan() -> c_int {
    let home = Child::init("init", || {
        let gate = Gate::new();
        let parent = fork(|| {
            report("parent", Who::myself());
            fork_and_wait(|| {
                report("sibling", Who::myself());
                0
            });
            fork(|| {
                report("orphan", Who::myself());
                gate.wait();
                0
            });
            0
        });
        sys::wait(parent).expect("wait for the parent");
        gate.open();
        // The only child left is the orphan.
        sys::wait(-1).expect("wait for the adopted orphan");
        report("adopted", true);
    });
    home.dismiss();
    0
}

/// A careless unshare: the first child was the init, and after its death no fork succeeds.
fn dead_namespace() -> c_int {
    sys::unshare(sys::NEWPID).expect("unshare the PID namespace");
    fork_and_wait(|| {
        report("init", Who::myself());
        0
    });
    report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
    0
}

/// setns into a namespace with a dead init succeeds, but the fork after it fails.
fn join_dead_namespace() -> c_int {
    let home = Child::init("init", || {});
    let file = File::open(format!("/proc/{}/ns/pid", home.pid)).expect("open the namespace file");
    home.dismiss();
    sys::setns(file.as_fd(), sys::NEWPID).expect("join the dead namespace");
    report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
    0
}

/// RLIMIT_NPROC of a user that is not root.
fn too_many_processes() -> c_int {
    let home = Child::init("init", || {
        fork_and_wait(|| {
            sys::become_uid(54321).expect("become another user");
            sys::limit_processes(1).expect("set the limit");
            report_refusal("refused", "clone", &Who::myself(), &sys::fork(|| 0).map(sys::wait));
            0
        });
    });
    home.dismiss();
    0
}

/// Processes fork as fast as they can, on the host or as PID 1s, and are killed meanwhile, until a fork was
/// interrupted.
fn killed_while_forking(place: &str) -> c_int {
    let flags = if place == "init" { sys::NEWPID } else { 0 };
    for round in 0..40 {
        let forker = sys::clone(flags, || {
            for _ in 0..3_000 {
                let child = sys::fork(|| {
                    sys::die_with_parent().expect("set the parent death signal");
                    thread::sleep(Duration::from_secs(2));
                    0
                });
                child.expect("fork");
            }
            sys::pause_forever()
        });
        let forker = forker.expect("create a PID namespace");
        thread::sleep(Duration::from_millis(4 + round % 7));
        sys::kill(forker, libc::SIGKILL).expect("kill the forker");
        sys::wait(forker).expect("wait for the forker");
    }
    0
}

/// A seccomp filter refuses calls for processes and namespaces. It is stricter than the default filters of runtimes.
fn filtered(user: &str) -> c_int {
    let filtered = fork(|| {
        if user != "root" {
            sys::become_uid(54321).expect("become another user");
        }
        let (clone, clone3, unshare) = (libc::SYS_clone, libc::SYS_clone3, libc::SYS_unshare);
        let answers = [(clone, libc::EPERM), (clone3, libc::ENOSYS), (unshare, libc::EPERM)];
        sys::answer_calls(&answers).expect("install the filter");
        let who = Who::myself();
        report_refusal("refused", "clone3", &who, &sys::clone3(&Birth::default(), || 0).map(sys::wait));
        report_refusal("refused", "clone", &who, &sys::fork(|| 0).map(sys::wait));
        report_refusal("refused", "unshare", &who, &sys::unshare(sys::NEWPID));
        0
    });
    assert!(
        sys::wait(filtered).expect("wait for the filtered process").success(),
        "the filtered process failed"
    );
    0
}

/// Forks in this cgroup until its limit is reached. All its children die with it.
fn fills_cgroup(cgroup: &str) -> c_int {
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0").expect("move this process");
    let is_tied = Gate::new();
    let pause = || {
        sys::die_with_parent().expect("set the parent death signal");
        is_tied.open();
        sys::pause_forever()
    };
    while sys::fork(pause).is_ok() {
        is_tied.wait();
    }
    let refused = sys::clone(sys::NEWPID, || 0);
    assert_eq!(
        refused.map_err(|why| why.raw_os_error()),
        Err(Some(libc::EAGAIN)),
        "a namespace cannot be created either"
    );
    report("refused", sys::getpid());
    wait_for_go();
    0
}

/// No thread can be created while the children go to another namespace.
fn thread_after_unshare() -> c_int {
    sys::unshare(sys::NEWPID).expect("unshare the PID namespace");
    let thread = thread::Builder::new().spawn(|| {});
    report_refusal("refused", "thread", &Who::myself(), &thread.map(|thread| thread.join()));
    0
}

/// Two processes, one after the other, with the same PIDs at both levels.
fn same_pid_twice() -> c_int {
    let host_pid: Pid = free_pid(0);
    let home = Child::init("init", || {
        for fact in ["first", "second"] {
            let birth = Birth { flags: 0, set_tid: vec![77, host_pid] };
            let child = sys::clone3(&birth, || {
                report(fact, Who::myself());
                0
            });
            sys::wait(child.expect("the chosen PIDs are free")).expect("wait for the child");
        }
    });
    home.dismiss();
    0
}

fn strange_name() -> c_int {
    let home = Child::init("init", || {
        fork_and_wait(|| {
            let who = Who::myself();
            sys::set_name(STRANGE_NAME).expect("set the name");
            assert_eq!(
                std::fs::read("/proc/self/comm").expect("read the name").trim_ascii_end(),
                STRANGE_NAME,
                "the kernel must keep the bytes unchanged",
            );
            report("child", who);
            0
        });
    });
    home.dismiss();
    0
}

fn threads_in_namespace(count: &str) -> c_int {
    let home = Child::init("init", || {
        report_end("end", fork(|| become_actor(&["threads", count])));
    });
    home.dismiss();
    0
}

/// `count` threads in addition to the first one, all alive at the same time.
fn threads(count: usize) -> c_int {
    let barrier = Arc::new(Barrier::new(count + 1));
    let (sender, tids) = mpsc::channel();
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (barrier, sender) = (Arc::clone(&barrier), sender.clone());
            thread::spawn(move || {
                let this = Who::of("thread-self");
                sender.send(this.pids[0]).expect("send the PIDs");
                barrier.wait();
            })
        })
        .collect();
    report("tids", tids.iter().take(count).collect::<Vec<Pid>>());
    report("process", Who::myself());
    barrier.wait();
    threads.into_iter().for_each(|thread| thread.join().expect("the thread does not panic"));
    0
}

/// Two families of processes. Only one has a nested namespace. On "go", each forks a child.
fn two_families() -> c_int {
    let breed = |fact: &'static str| {
        fork_and_wait(|| {
            report(fact, Who::myself());
            0
        });
    };
    let family = |fact: &'static str, inner: bool| {
        let life = move |side: &super::Side<'_>| {
            report(fact, Who::myself());
            let nested = inner.then(|| {
                let life = |side: &super::Side<'_>| {
                    report("nested", Who::myself());
                    side.ready();
                    side.wait();
                    breed("nested-child");
                    0
                };
                let nested = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
                nested.await_ready();
                nested
            });
            side.ready();
            side.wait();
            breed(if inner { "first-child" } else { "second-child" });
            if let Some(nested) = nested {
                nested.dismiss();
            }
            0
        };
        let child = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
        child.await_ready();
        child
    };
    let families = [family("first", true), family("second", false)];
    wait_for_go();
    families.into_iter().for_each(Child::dismiss);
    0
}

/// On "go", starts two members with different names.
fn two_names() -> c_int {
    let home = Child::init("init", || {
        wait_for_go();
        for name in ["alpha-1", "beta-1"] {
            fork_and_wait(|| {
                sys::set_name(name.as_bytes()).expect("set the name");
                report(name, Who::myself());
                0
            });
        }
    });
    home.dismiss();
    0
}

/// Two members that on "go" run another program, and exit with 11 and 12.
fn two_siblings() -> c_int {
    let home = Child::init("init", || {
        let sibling = |fact: &'static str, code: &'static str| {
            let child = Child::fork(|side| {
                report(fact, Who::myself());
                side.ready();
                side.wait();
                become_actor(&["exit", code])
            })
            .expect("fork");
            child.await_ready();
            child
        };
        let siblings = [sibling("first", "11"), sibling("second", "12")];
        wait_for_go();
        for child in siblings {
            child.let_go();
            child.reap();
        }
    });
    home.dismiss();
    0
}
