//! Signals sent to an init, from inside its namespace and from outside.

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

/// Stops an init as a runtime stops a container: by SIGTERM, which this one ignores as it has no handler, then by SIGKILL.
fn stop() -> c_int {
    let home = Child::init("init", || {});
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        sys::kill(home.pid, signal).expect("a parent may signal the init");
    }
    let ended = report_end("end", home.pid);
    assert_eq!(ended.signal, Some(libc::SIGKILL), "it ignored the first one");
    0
}

/// The parent of an init kills it with a siginfo of its own making.
fn queued_signal(code: c_int) -> c_int {
    let home = Child::init("init", || {});
    report("sender", Who::myself());
    sys::queue_signal(home.pid, libc::SIGKILL, code).expect("the code is one that a process may choose");
    report_end("end", home.pid);
    0
}

/// An init sends itself SIGUSR1 with a `si_code` that only a process itself may choose for itself.
fn queued_to_itself(code: c_int) -> c_int {
    let home = Child::init("init", || {
        prepare(libc::SIGUSR1, "handle");
        sys::queue_signal(1, libc::SIGUSR1, code).expect("a process may choose any code for itself");
    });
    home.dismiss();
    0
}

/// The parent of an init ends, and the init with it, as that has asked for.
fn parent_ends() -> c_int {
    sys::become_subreaper().expect("PR_SET_CHILD_SUBREAPER is allowed");
    let parent = fork(|| {
        report("parent", Who::myself());
        let _init = Child::init("init", || {});
        sys::exit_now(0)
    });
    sys::wait(parent).expect("a child can be waited for");
    report_end("end", -1);
    0
}

/// The same where only the thread of the parent ends that has forked the init.
fn thread_of_parent_ends() -> c_int {
    report("parent", Who::myself());
    let home = thread::spawn(|| Child::init("init", || {}).pid);
    report_end("end", home.join().expect("the thread ends well"));
    0
}

/// An init that reaches its limit of processor time.
fn uses_up_its_time() -> c_int {
    let life = |_: &super::Side<'_>| {
        report("init", Who::myself());
        sys::limit_processor_time(1).expect("a limit can be lowered");
        loop {
            std::hint::spin_loop();
        }
    };
    let init = Child::clone(sys::NEWPID, life).expect("root can make a PID namespace");
    report_end("end", init.pid);
    0
}

/// Five inits, one after the other, for which io_uring has a worker and a poller as they exit.
fn exit_with_workers() -> c_int {
    for _ in 0..5 {
        let init = Child::clone(sys::NEWPID, |_| {
            report("init", Who::myself());
            let _rings =
                (uring::work_once().expect("io_uring works"), uring::poll().expect("io_uring polls"));
            report("threads", own_threads());
            sys::exit_now(0)
        });
        let init = init.expect("root can make a PID namespace");
        assert!(init.reap().success(), "it ends by itself");
    }
    0
}

/// The threads of this process, as /proc lists them.
fn own_threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("its threads").count()
}

/// Whether those who work for a ring are threads of its process: since 5.12.
fn worker_of_a_ring() -> c_int {
    let rings = (uring::work_once(), uring::poll());
    c_int::from(rings.0.is_err() || rings.1.is_err() || own_threads() != 3)
}

/// Five inits, one after the other, that have threads and exit.
fn threaded_init() -> c_int {
    for _ in 0..5 {
        let init = Child::clone(sys::NEWPID, |_| become_actor(&["exit-with-threads", "12"]));
        let ended = report_end("end", init.expect("root can make a PID namespace").pid);
        assert_eq!(ended.code, Some(0), "it ended by itself");
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
        other => panic!("{other} is none of the signals this actor sends"),
    }
}

/// How the init meets `signal`.
fn prepare(signal: c_int, disposition: &str) {
    let handler: extern "C" fn(c_int) = sys::on_signal_do_nothing;
    let done = match disposition {
        "default" => Ok(()),
        "ignore" => sys::set_disposition(signal, libc::SIG_IGN),
        "handle" => sys::set_disposition(signal, handler as libc::sighandler_t),
        "block" => {
            // With the default action it would be dropped although blocked.
            sys::set_disposition(signal, handler as libc::sighandler_t)
                .and_then(|()| sys::block_signal(signal))
        }
        other => panic!("{other} is no disposition"),
    };
    done.expect("the init can choose what a signal does");
}

/// A child of the init sends it; the init must survive that.
fn from_inside(signal: c_int, disposition: &str, times: usize) -> c_int {
    let home = Child::init("init", || {
        prepare(signal, disposition);
        let sender = fork(|| {
            report("sender", Who::myself());
            (0..times).for_each(|_| sys::kill(1, signal).expect("a member may signal its init"));
            0
        });
        assert!(sys::wait(sender).expect("a child can be waited for").success(), "the sender ended well");
        report("survived", true);
    });
    home.dismiss();
    0
}

/// The parent of the init sends it from the namespace above.
fn from_outside(signal: c_int, disposition: &str, times: usize) -> c_int {
    let home = Child::init("init", || prepare(signal, disposition));
    report("sender", Who::myself());
    (0..times).for_each(|_| sys::kill(home.pid, signal).expect("a parent may signal the init"));
    home.let_go();
    report_end("end", home.pid);
    0
}
