//! Signals to an init, from inside its namespace and from outside.

use std::ffi::c_int;
use std::sync::Arc;
use std::thread;

use super::{Child, Situation, become_actor, fork, parse, report, report_end};
use crate::facts::Who;
use crate::sys;
use crate::uring;

pub(super) const SITUATIONS: &[Situation] = &[
    ("signal", |args| signal(args)),
    ("stop", |_| stop()),
    ("queued-signal", |args| queued_signal(parse(args, 0, "si_code"))),
    ("queued-to-itself", |args| queued_to_itself(parse(args, 0, "si_code"))),
    ("parent-ends", |_| parent_ends()),
    ("thread-of-parent-ends", |_| thread_of_parent_ends()),
    ("uses-up-its-time", |_| uses_up_its_time()),
    ("threaded-init", |_| threaded_init()),
    ("exit-with-workers", |_| exit_with_workers()),
    ("worker-of-a-ring", |_| worker_of_a_ring()),
    ("exit-with-threads", |args| exit_with_threads(parse(args, 0, "threads"))),
];

fn signal(args: &[String]) -> c_int {
    let signal = signal_number(&parse::<String>(args, 0, "signal"));
    let disposition = parse::<String>(args, 1, "default, ignore, handle or block");
    match parse::<String>(args, 2, "inside or outside").as_str() {
        "inside" => from_inside(signal, &disposition, parse(args, 3, "times")),
        "outside" => from_outside(signal, &disposition, parse(args, 3, "times")),
        other => panic!("{other} is neither inside nor outside"),
    }
}

/// Stops an init as a runtime stops a container: with SIGTERM, which this init ignores because it has no handler, and
/// then with SIGKILL.
fn stop() -> c_int {
    let home = Child::init("init", || {});
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        sys::kill(home.pid, signal).expect("send the signal");
    }
    let ended = report_end("end", home.pid);
    assert_eq!(ended.signal, Some(libc::SIGKILL), "the init must ignore SIGTERM");
    0
}

/// The parent of an init kills it with a siginfo that it built itself.
fn queued_signal(code: c_int) -> c_int {
    let home = Child::init("init", || {});
    report("sender", Who::myself());
    sys::queue_signal(home.pid, libc::SIGKILL, code).expect("queue the signal");
    report_end("end", home.pid);
    0
}

/// An init sends itself SIGUSR1 with a `si_code` that a process may only use for itself.
fn queued_to_itself(code: c_int) -> c_int {
    let home = Child::init("init", || {
        prepare(libc::SIGUSR1, "handle");
        sys::queue_signal(1, libc::SIGUSR1, code).expect("queue the signal");
    });
    home.dismiss();
    0
}

/// The parent of an init ends, and the init's parent death signal kills it.
fn parent_ends() -> c_int {
    sys::become_subreaper().expect("become a subreaper");
    let parent = fork(|| {
        report("parent", Who::myself());
        let _init = Child::init("init", || {});
        sys::exit_now(0)
    });
    sys::wait(parent).expect("wait for the parent");
    report_end("end", -1);
    0
}

/// The same, but only the parent's thread that forked the init ends.
fn thread_of_parent_ends() -> c_int {
    report("parent", Who::myself());
    let home = thread::spawn(|| Child::init("init", || {}).pid);
    report_end("end", home.join().expect("the thread does not panic"));
    0
}

/// An init that reaches its processor time limit.
fn uses_up_its_time() -> c_int {
    let life = |_: &super::Side<'_>| {
        report("init", Who::myself());
        sys::limit_processor_time(1).expect("set the limit");
        loop {
            std::hint::spin_loop();
        }
    };
    let init = Child::clone(sys::NEWPID, life).expect("create a PID namespace");
    report_end("end", init.pid);
    0
}

/// Five inits, one after the other. Each has an io_uring worker and a poller when it exits.
fn exit_with_workers() -> c_int {
    for _ in 0..5 {
        let init = Child::clone(sys::NEWPID, |_| {
            report("init", Who::myself());
            let _rings = (
                uring::work_once().expect("start the io_uring worker"),
                uring::poll().expect("start the io_uring poller"),
            );
            report("threads", own_threads());
            sys::exit_now(0)
        });
        let init = init.expect("create a PID namespace");
        assert!(init.reap().success(), "the init must exit by itself");
    }
    0
}

/// The number of this process's threads in /proc.
fn own_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("list the threads").count()
}

/// Whether the workers of a ring are threads of its process (since 5.12).
fn worker_of_a_ring() -> c_int {
    let rings = (uring::work_once(), uring::poll());
    c_int::from(rings.0.is_err() || rings.1.is_err() || own_threads() != 3)
}

/// Five inits, one after the other, each of which has threads and exits.
fn threaded_init() -> c_int {
    for _ in 0..5 {
        let init = Child::clone(sys::NEWPID, |_| become_actor(&["exit-with-threads", "12"]));
        let ended = report_end("end", init.expect("create a PID namespace").pid);
        assert_eq!(ended.code, Some(0), "the init must exit by itself");
    }
    0
}

fn exit_with_threads(threads: usize) -> c_int {
    report("init", Who::myself());
    let gate = Arc::new(sys::Gate::new());
    for _ in 0..threads {
        let gate = Arc::clone(&gate);
        thread::spawn(move || {
            gate.open();
            sys::pause_forever()
        });
    }
    (0..threads).for_each(|_| gate.wait());
    sys::exit_now(0)
}

fn signal_number(name: &str) -> c_int {
    match name {
        "SIGTERM" => libc::SIGTERM,
        "SIGKILL" => libc::SIGKILL,
        "SIGUSR1" => libc::SIGUSR1,
        other => panic!("this actor does not send {other}"),
    }
}

/// Sets the init's disposition of `signal`.
fn prepare(signal: c_int, disposition: &str) {
    let handler: extern "C" fn(c_int) = sys::on_signal_do_nothing;
    let done = match disposition {
        "default" => Ok(()),
        "ignore" => sys::set_disposition(signal, libc::SIG_IGN),
        "handle" => sys::set_disposition(signal, handler as libc::sighandler_t),
        "block" => {
            // With the default action the signal would be dropped even while blocked.
            sys::set_disposition(signal, handler as libc::sighandler_t)
                .and_then(|()| sys::block_signal(signal))
        }
        other => panic!("{other} is not a disposition"),
    };
    done.expect("set the disposition");
}

/// A child of the init sends the signal, which the init must survive.
fn from_inside(signal: c_int, disposition: &str, times: usize) -> c_int {
    let home = Child::init("init", || {
        prepare(signal, disposition);
        let sender = fork(|| {
            report("sender", Who::myself());
            (0..times).for_each(|_| sys::kill(1, signal).expect("send the signal"));
            0
        });
        assert!(sys::wait(sender).expect("wait for the sender").success(), "the sender failed");
        report("survived", true);
    });
    home.dismiss();
    0
}

/// The parent of the init sends the signal from the outer namespace.
fn from_outside(signal: c_int, disposition: &str, times: usize) -> c_int {
    let home = Child::init("init", || prepare(signal, disposition));
    report("sender", Who::myself());
    (0..times).for_each(|_| sys::kill(home.pid, signal).expect("send the signal"));
    home.let_go();
    report_end("end", home.pid);
    0
}
