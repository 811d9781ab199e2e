//! Orphans. Their new parent depends on where their parent was, and on subreapers.

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

/// The gates at which the generations of a family wait.
struct Gates {
    born: Gate,
    die: Gate,
    speak: Gate,
    spoken: Gate,
}

/// Makes three families, each with a parent and a child. On the first "go" the parents exit, and each child reports
/// its new parent. On the second "go", each child causes an event. `near`: the parent is PID 1's child. `far`: the
/// parent is its grandchild, and the process in between may be a subreaper. `joined`: the parent joined from outside,
/// and its own parent is a subreaper.
fn orphans(subreaper: bool) -> c_int {
    let gates = Gates { born: Gate::new(), die: Gate::new(), speak: Gate::new(), spoken: Gate::new() };
    let home = Child::init("init", || {
        fork(|| parent("near", &gates));
        fork(|| {
            if subreaper {
                sys::become_subreaper().expect("become a subreaper");
            }
            report("between", Who::myself());
            fork(|| parent("far", &gates));
            sys::pause_forever()
        });
    });
    let file = File::open(format!("/proc/{}/ns/pid", home.pid)).expect("open the namespace file");
    let outside = Child::fork(|side| {
        sys::become_subreaper().expect("become a subreaper");
        sys::setns(file.as_fd(), sys::NEWPID).expect("join the namespace");
        fork(|| parent("joined", &gates));
        side.ready();
        side.wait();
        0
    });
    let outside = outside.expect("fork");
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
