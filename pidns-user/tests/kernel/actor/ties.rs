//! Situations that stand still, of what ties processes and namespaces to others: tracers.

use std::ffi::c_int;
use std::thread;

use super::forest::stand_still;
use super::{Child, Situation, say};
use crate::sys::{self, Gate};

pub(super) const SITUATIONS: &[Situation] = &[("still-traced", |_| still_traced())];

/// By a thread that is not the first one: the kernel keeps the thread, and the process is what is to be told.
fn still_traced() -> c_int {
    let traced = Child::init("traced", || {});
    let pid = traced.pid;
    let (seized, go) = (Gate::new(), Gate::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            sys::seize(pid).expect("a child can be traced");
            say("tracing thread", sys::gettid());
            seized.open();
            // With its thread the tracing ends.
            go.wait();
        });
        seized.wait();
        let code = stand_still();
        go.open();
        code
    });
    traced.dismiss();
    0
}
