//! Signals sent to an init, from inside its namespace and from outside.

use std::ffi::c_int;

use super::{Child, Situation, fork, parse, say, say_end};
use crate::facts::Who;
use crate::sys;

pub(super) const SITUATIONS: &[Situation] = &[("signal", |args| signal(args)), ("stop", |_| stop())];

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
    let ended = say_end("end", home.pid);
    assert_eq!(ended.signal, Some(libc::SIGKILL), "it ignored the first one");
    0
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
            say("sender", Who::myself());
            (0..times).for_each(|_| sys::kill(1, signal).expect("a member may signal its init"));
            0
        });
        assert!(sys::wait(sender).expect("a child can be waited for").success(), "the sender ended well");
        say("survived", true);
    });
    home.dismiss();
    0
}

/// The parent of the init sends it from the namespace above.
fn from_outside(signal: c_int, disposition: &str, times: usize) -> c_int {
    let home = Child::init("init", || prepare(signal, disposition));
    say("sender", Who::myself());
    (0..times).for_each(|_| sys::kill(home.pid, signal).expect("a parent may signal the init"));
    home.let_go();
    say_end("end", home.pid);
    0
}
