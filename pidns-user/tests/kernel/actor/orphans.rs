//! Orphans: who takes them depends on where their parent was, and on who has made itself a subreaper.

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use super::{Child, Situation, fork, fork_and_wait, report, wait_for_go};
use crate::facts::Who;
use crate::sys::{self, Gate};

pub(super) const SITUATIONS: &[Situation] =
    &[("orphans", |_| orphans(false)), ("orphans-of-a-subreaper", |_| orphans(true))];

/// The gates that the generations of a family stand at.
struct Gates {
    born: Gate,
    die: Gate,
    speak: Gate,
    spoken: Gate,
}

/// Three families of a parent and a child. Once asked, the parents end, and each child reports its parent then; once asked
/// again, each child does something that makes an event. `near`: the parent is PID 1's child. `far`: its grandchild; the
/// one in between is a subreaper, or not. `joined`: the parent has joined from outside, forked by a subreaper.
fn orphans(subreaper: bool) -> c_int {
    let gates = Gates { born: Gate::new(), die: Gate::new(), speak: Gate::new(), spoken: Gate::new() };
    let home = Child::init("init", || {
        fork(|| parent("near", &gates));
        fork(|| {
            if subreaper {
                sys::become_subreaper().expect("any process can be a subreaper");
            }
            report("between", Who::myself());
            fork(|| parent("far", &gates));
            sys::pause_forever()
        });
    });
    let file = File::open(format!("/proc/{}/ns/pid", home.pid)).expect("its namespace can be opened");
    let outside = Child::fork(|side| {
        sys::become_subreaper().expect("any process can be a subreaper");
        sys::setns(file.as_fd(), sys::NEWPID).expect("this namespace may be joined");
        fork(|| parent("joined", &gates));
        side.ready();
        side.wait();
        0
    });
    let outside = outside.expect("a fork works");
    outside.await_ready();
    let each = |gate: &Gate, act: fn(&Gate)| (0..3).for_each(|_| act(gate));
    each(&gates.born, Gate::wait);
    report("ready", true);
    wait_for_go();
    each(&gates.die, Gate::open);
    wait_for_go();
    each(&gates.speak, Gate::open);
    each(&gates.spoken, Gate::wait);
    report("spoken", true);
    wait_for_go();
    outside.dismiss();
    home.dismiss();
    0
}

fn parent(family: &'static str, gates: &Gates) -> c_int {
    let myself = Who::myself();
    report(&format!("{family}-parent"), &myself);
    fork(|| child(family, &myself, gates));
    gates.die.wait();
    0
}

fn child(family: &'static str, parent: &Who, gates: &Gates) -> c_int {
    gates.born.open();
    while Who::myself().ppid == parent.pid {
        thread::sleep(Duration::from_millis(1));
    }
    report(family, Who::myself());
    gates.speak.wait();
    fork_and_wait(|| 0);
    gates.spoken.open();
    sys::pause_forever()
}
