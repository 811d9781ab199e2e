//! Runs a test again if the program under test has reported the reason for the failure.
//!
//! Since 7.0 the kernel skips a program if another task was preempted in it (docs/internals/hooks.md, "When the
//! kernel skips a program"). The stream reports that (`stream.lost`, stage `hook`) and promises no more. A test that
//! needs a skipped event can only run again. A failure without such a report is a failure on every kernel.

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pidns_user::event::{Body, Event};

use crate::{actor_handle, probes};

/// The maximum number of runs of a test.
const TRIES: u32 = 5;

/// Whether a stream has reported skipped hooks since the test began.
static HOOKS_LEFT_OUT: AtomicBool = AtomicBool::new(false);

/// Reads a line of a stream, and notes a report of skipped hooks.
pub(crate) fn hear(line: &str) {
    if line.contains(r#""event":"stream.lost""#)
        && let Ok(event) = serde_json::from_str(line)
    {
        hear_event(&event);
    }
}

/// Notes a report of skipped hooks in an event.
pub(crate) fn hear_event(event: &Event) {
    if matches!(&event.body, Body::StreamLost { stage, .. } if stage == "hook") {
        mark_left_out_hooks();
    }
}

/// Notes that the kernel skipped hooks.
pub(crate) fn mark_left_out_hooks() {
    HOOKS_LEFT_OUT.store(true, Relaxed);
}

/// Runs a test, and runs it again if skipped hooks explain its failure. Each retry is printed; `cargo xtask vm` lists
/// them.
pub(crate) fn run(name: &str, body: fn()) {
    for _ in 1..TRIES {
        HOOKS_LEFT_OUT.store(false, Relaxed);
        actor_handle::forget_actors();
        let Err(failure) = panic::catch_unwind(body) else { return };
        if !HOOKS_LEFT_OUT.load(Relaxed) || !probes::tracepoints_are_preemptible() {
            panic::resume_unwind(failure);
        }
        eprintln!("again {name}: the kernel skipped hooks, as the stream had reported when it failed");
    }
    actor_handle::forget_actors();
    body();
}
