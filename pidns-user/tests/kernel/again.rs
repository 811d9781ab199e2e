//! Another try for a test whose failure the program under test has explained itself.
//!
//! From 7.0 on the kernel skips a program if another task was preempted within it (docs/internals/hooks.md, "When the kernel skips a
//! program"). The stream reports that (`stream.lost`, stage `hook`) and promises no more than that; a test that asks for the
//! very event that was missed can only be played again. A failure without such a report is a failure, on every kernel.

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pidns_user::event::{Body, Event};

use crate::{probes, stage};

/// Most times that a test is played.
const TRIES: u32 = 5;

/// Whether a stream has reported, since the test began, that hooks were left out.
static HOOKS_LEFT_OUT: AtomicBool = AtomicBool::new(false);

/// Reads a line of a stream, which may report that.
pub(crate) fn hear(line: &str) {
    if line.contains(r#""event":"stream.lost""#)
        && let Ok(event) = serde_json::from_str(line)
    {
        hear_event(&event);
    }
}

/// The same of an event.
pub(crate) fn hear_event(event: &Event) {
    if matches!(&event.body, Body::StreamLost { stage, .. } if stage == "hook") {
        mark_left_out_hooks();
    }
}

/// The kernel left hooks out, by any source.
pub(crate) fn mark_left_out_hooks() {
    HOOKS_LEFT_OUT.store(true, Relaxed);
}

/// Plays a test, and plays it again where its failure is explained. Each further try is printed; `cargo xtask vm` lists
/// them.
pub(crate) fn play(name: &str, body: fn()) {
    for _ in 1..TRIES {
        HOOKS_LEFT_OUT.store(false, Relaxed);
        stage::new_play();
        let Err(failure) = panic::catch_unwind(body) else { return };
        if !HOOKS_LEFT_OUT.load(Relaxed) || !probes::tracepoints_are_preemptible() {
            panic::resume_unwind(failure);
        }
        eprintln!("again {name}: the kernel left hooks out, as the stream had reported when it failed");
    }
    stage::new_play();
    body();
}
