//! Situations with many short-lived processes at the same time. Their parents count them.

use std::ffi::c_int;
use std::process::ExitStatus;
use std::sync::{Arc, Barrier};
use std::thread;

use super::{
    Child, Situation, become_actor, fork, fork_and_wait, parse, report, sleeping_members, wait_for_go,
};
use crate::facts::{Lives, Who};
use crate::sys;

pub(super) const SITUATIONS: &[Situation] = &[
    ("storm", |args| storm(parse(args, 0, "lives"), parse(args, 1, "workers"))),
    ("counted", |args| counted(parse(args, 0, "lives"), parse(args, 1, "namespaces"))),
    ("endless-storm", |_| endless_storm()),
    ("churn", |args| churn(parse(args, 0, "namespaces"))),
    ("zombies", |args| zombies(parse(args, 0, "zombies"))),
    ("threads-end-at-once", |args| {
        threads_end_at_once(parse(args, 0, "processes"), parse(args, 1, "threads"))
    }),
    ("exit-with-threads", |args| exit_with_threads(parse(args, 0, "threads"))),
    ("storms", |args| storms(parse(args, 0, "lives"), parse(args, 1, "namespaces"))),
];

/// Waits for inits, each with whether it stays until "go". Reaps the others.
fn await_inits(inits: Vec<(bool, Child)>, lives: u32) -> c_int {
    inits.iter().for_each(|(_, child)| child.await_ready());
    let (staying, leaving): (Vec<_>, Vec<_>) = inits.into_iter().partition(|(stays, _)| *stays);
    leaving.into_iter().for_each(|(_, child)| assert!(child.reap().success(), "an init failed"));
    report("lives", lives);
    wait_for_go();
    staying.into_iter().for_each(|(_, child)| child.dismiss());
    0
}

/// `namespaces` inits, running in parallel, divide `lives` children among them, and fork and reap each. Every second
/// init exits after its last child, the others on "go".
fn storms(lives: u32, namespaces: u32) -> c_int {
    let init = |index: u32| {
        let stays = index.is_multiple_of(2);
        let child = Child::clone(sys::NEWPID, |side| {
            report(if stays { "staying" } else { "leaving" }, Who::myself());
            for _ in 0..lives / namespaces + u32::from(index < lives % namespaces) {
                fork_and_wait(|| 0);
            }
            side.ready();
            if stays {
                side.wait();
            }
            0
        });
        (stays, child.expect("create a PID namespace"))
    };
    await_inits((0..namespaces).map(init).collect(), lives)
}

/// Forks and reaps until its parent ends.
fn endless_storm() -> c_int {
    sys::die_with_parent().expect("set the parent death signal");
    loop {
        fork_and_wait(|| 0);
    }
}

/// Two processes make this number of namespaces, one after the other. Each ends at once.
fn churn(namespaces: u64) -> c_int {
    let workers: Vec<_> = [namespaces / 2, namespaces - namespaces / 2]
        .into_iter()
        .map(|share| {
            fork(|| {
                for _ in 0..share {
                    let init = sys::clone(sys::NEWPID, || 0).expect("create a PID namespace");
                    sys::wait(init).expect("wait for the init");
                }
                0
            })
        })
        .collect();
    for worker in workers {
        assert!(sys::wait(worker).expect("wait for the worker").success(), "a worker failed");
    }
    report("done", namespaces);
    0
}

/// An init whose children each end all their threads at the same time. Reports the counts of the namespace.
fn threads_end_at_once(processes: u64, threads: u64) -> c_int {
    let home = Child::init("init", || {
        for _ in 0..processes {
            let pid = fork(|| become_actor(&["exit-with-threads", &threads.to_string()]));
            let status = sys::wait(pid).expect("wait for the child");
            assert!(status.success(), "a child ended with {status}");
        }
        let seen = Lives {
            who: Who::myself(),
            forks: 1 + processes,
            execs: processes,
            ended_well: processes,
            threads: processes * threads,
            ..Lives::default()
        };
        report("seen", seen);
        wait_for_go();
    });
    home.dismiss();
    0
}

/// A process with this number of threads and much memory, which takes long to free. It exits while all threads run.
fn exit_with_threads(threads: usize) -> c_int {
    let memory = std::hint::black_box(vec![1_u8; 32 << 20]);
    let running = Arc::new(Barrier::new(threads + 1));
    for _ in 0..threads {
        let running = Arc::clone(&running);
        thread::spawn(move || {
            running.wait();
            loop {
                std::hint::spin_loop();
            }
        });
    }
    running.wait();
    std::mem::forget(memory);
    sys::exit_now(0)
}

/// An init that reaps its children only on the first "go", and exits on the second.
fn zombies(count: u32) -> c_int {
    let home = Child::init("init", || {
        let children: Vec<_> = (0..count).map(|_| fork(|| 0)).collect();
        wait_for_go();
        for child in children {
            sys::wait(child).expect("reap the zombie");
        }
        wait_for_go();
    });
    home.dismiss();
    0
}

/// Like `storms`, but the children end in several ways, and some members are killed with their init. Reports the
/// counts of each namespace.
fn counted(lives: u32, namespaces: u32) -> c_int {
    // Each child needs four descriptors.
    sys::allow_many_files().expect("raise the limit");
    // If `lives` is 0, the test is about the number of namespaces, and a small machine has room for more of them
    // without members.
    let sleeping = if lives > 0 { 3 } else { 0 };
    let init = |index: u32| {
        let stays = index.is_multiple_of(2);
        let child = Child::clone(sys::NEWPID, |side| {
            // Its own creation.
            let mut seen = Lives { who: Who::myself(), forks: 1, ..Lives::default() };
            for life in 0..lives / namespaces + u32::from(index < lives % namespaces) {
                live(life, &mut seen);
            }
            if !stays {
                sleeping_members(sleeping);
                seen.forks += sleeping as u64;
                seen.killed_with_their_init = sleeping as u64;
                // Its own exit.
                seen.ended_well += 1;
            }
            report(if stays { "staying" } else { "leaving" }, seen);
            side.ready();
            if stays {
                side.wait();
            }
            0
        });
        (stays, child.expect("create a PID namespace"))
    };
    await_inits((0..namespaces).map(init).collect(), lives)
}

/// Forks a child and waits for its end. The first children end in special ways.
fn live(number: u32, seen: &mut Lives) {
    const THREADS: u64 = 3;
    seen.forks += 1;
    let pid = fork(|| match number {
        0 => become_actor(&["threads", &THREADS.to_string()]),
        1 => become_actor(&["exit", "3"]),
        number if number % 4 == 2 => {
            sys::kill(sys::getpid(), libc::SIGTERM).expect("send the signal");
            sys::pause_forever()
        }
        number if number % 4 == 3 => {
            sys::kill(sys::getpid(), libc::SIGKILL).expect("send the signal");
            sys::pause_forever()
        }
        number => (number % 2) as c_int,
    });
    match number {
        0 => {
            seen.execs += 1;
            seen.threads += THREADS;
            seen.ended_well += 1;
        }
        1 => {
            seen.execs += 1;
            seen.failed += 1;
        }
        number if number % 4 >= 2 => seen.ended_by_signal += 1,
        number if number % 2 == 1 => seen.failed += 1,
        _ => seen.ended_well += 1,
    }
    sys::wait(pid).expect("wait for the child");
}

/// In one namespace: on the first "go", `workers` processes divide `lives` children among them, and fork and reap
/// each. On the second "go", one more child exits with 42. On the third, the init exits.
fn storm(lives: u32, workers: u32) -> c_int {
    let home = Child::init("init", || {
        wait_for_go();
        let share = |index| lives / workers + u32::from(index < lives % workers);
        let at_work: Vec<Worker> = (0..workers).map(|index| worker(share(index))).collect();
        let done: u32 = at_work.into_iter().map(Worker::finish).sum();
        report("lives", done);
        wait_for_go();
        let last = fork(|| {
            report("straggler", Who::myself());
            42
        });
        sys::wait(last).expect("wait for the last child");
        wait_for_go();
    });
    home.dismiss();
    0
}

/// A process that forks and reaps children, one after the other.
struct Worker {
    pid: sys::Pid,
    lives: u32,
}

fn worker(lives: u32) -> Worker {
    let pid = fork(|| {
        for life in 0..lives {
            let ended = sys::fork(|| 0).and_then(sys::wait);
            assert!(ended.as_ref().is_ok_and(ExitStatus::success), "life {life} of {lives}: {ended:?}");
        }
        0
    });
    Worker { pid, lives }
}

impl Worker {
    /// Waits for the worker. Returns its number of children. A failed worker fails the storm.
    fn finish(self) -> u32 {
        let status = sys::wait(self.pid).expect("wait for the worker");
        assert!(status.success(), "a worker ended with {status}");
        self.lives
    }
}
