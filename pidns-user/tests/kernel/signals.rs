//! Signals to PID 1: their senders, where they came from, and what became of them.

use serde_json::{Value, json};

use crate::facts::Who;
use crate::seen::{about, expect, expect_absent, expect_not, expect_order, expect_process, in_ns};
use crate::tracer::watch;
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(sigterm_from_inside_to_an_init_without_handler_is_ignored),
    test!(sigterm_from_outside_to_an_init_without_handler_is_ignored),
    test!(sigterm_from_inside_to_an_init_with_a_handler_is_delivered),
    test!(sigterm_from_outside_to_an_init_with_a_handler_is_delivered),
    test!(sigterm_to_an_init_that_ignores_it_is_ignored),
    test!(sigkill_from_inside_is_ignored),
    test!(sigkill_from_an_ancestor_is_delivered),
    test!(a_second_signal_while_one_is_pending_is_already_pending),
    test!(a_signal_with_a_user_chosen_code_names_the_sender),
    test!(a_signal_that_an_init_queues_to_itself_does_not_come_from_the_kernel),
    test!(a_signal_for_the_parents_end_is_marked_as_parent_death),
    test!(a_signal_for_the_end_of_a_parents_thread_shows_a_living_parent),
    test!(a_signal_for_the_processor_time_limit_comes_from_the_kernel),
    test!(an_init_that_exits_with_threads_gets_no_signal),
    test!(an_init_that_exits_with_io_uring_workers_gets_no_signal, needs probes::io_uring_workers),
];

/// Sends `signal` to an init several times. Expects one event for each fate, in this order.
fn expect_fates(signal: &str, disposition: &str, place: &str, fates: &[&str]) {
    let (report, seen) = watch("signal", &[signal, disposition, place, &fates.len().to_string()]);
    let (init, sender) = (report.who("init"), report.who("sender"));
    let from = match place {
        "inside" => "inside",
        _ => "ancestor",
    };
    let sent = seen.all("init.signal", |event| about(init.pid)(event) && event["signal"] == signal);
    let seen_fates: Vec<&Value> = sent.iter().map(|event| &event["fate"]).collect();
    assert_eq!(seen_fates, fates, "the fates of {signal}: {sent:#?}");
    for event in &sent {
        expect(event, "/ns/inum", init.ns);
        expect(event, "/from", from);
        expect_process(event, "/process", &init);
        expect_process(event, "/sender", &sender);
    }
    let init_exit = seen.one("namespace.init_exit", in_ns(init.ns));
    expect_order(&[*sent.last().expect("a signal was sent"), init_exit]);
    let end = if signal == "SIGKILL" && from == "ancestor" {
        json!({ "signal": "SIGKILL" })
    } else {
        json!({ "code": 0 })
    };
    expect(init_exit, "/exit", end);
}

fn sigterm_from_inside_to_an_init_without_handler_is_ignored() {
    expect_fates("SIGTERM", "default", "inside", &["ignored"]);
}

fn sigterm_from_outside_to_an_init_without_handler_is_ignored() {
    expect_fates("SIGTERM", "default", "outside", &["ignored"]);
}

fn sigterm_from_inside_to_an_init_with_a_handler_is_delivered() {
    expect_fates("SIGTERM", "handle", "inside", &["delivered"]);
}

fn sigterm_from_outside_to_an_init_with_a_handler_is_delivered() {
    expect_fates("SIGTERM", "handle", "outside", &["delivered"]);
}

fn sigterm_to_an_init_that_ignores_it_is_ignored() {
    expect_fates("SIGTERM", "ignore", "outside", &["ignored"]);
}

fn sigkill_from_inside_is_ignored() {
    expect_fates("SIGKILL", "default", "inside", &["ignored"]);
}

fn sigkill_from_an_ancestor_is_delivered() {
    expect_fates("SIGKILL", "default", "outside", &["delivered"]);
}

fn a_signal_with_a_user_chosen_code_names_the_sender() {
    // SI_QUEUE, and codes that the kernel also uses: SI_MESGQ, SI_ASYNCIO (glibc sends it), SI_ASYNCNL.
    for code in ["-1", "-3", "-4", "-60"] {
        let (report, seen) = watch("queued-signal", &[code]);
        let (init, sender) = (report.who("init"), report.who("sender"));
        let signal = seen.one("init.signal", about(init.pid));
        expect(signal, "/from", "ancestor");
        expect_process(signal, "/sender", &sender);
        let init_exit = seen.one("namespace.init_exit", about(init.pid));
        expect(init_exit, "/cause/kind", "signal");
        expect_process(init_exit, "/cause/sender", &sender);
    }
}

fn a_signal_that_an_init_queues_to_itself_does_not_come_from_the_kernel() {
    // SI_KERNEL and SI_TIMER.
    for code in ["128", "-2"] {
        let (report, seen) = watch("queued-to-itself", &[code]);
        let init = report.who("init");
        let signal = seen.one("init.signal", about(init.pid));
        expect(signal, "/from", "inside");
        expect(signal, "/fate", "delivered");
        expect_process(signal, "/sender", &init);
    }
}

/// Checks that the init dies when its parent, or a thread of it, ends. Returns the cause.
fn expect_parent_death(situation: &str) -> Value {
    let (report, seen) = watch(situation, &[]);
    let (init, parent) = (report.who("init"), report.who("parent"));
    let signal = seen.one("init.signal", about(init.pid));
    expect(signal, "/signal", "SIGKILL");
    expect(signal, "/from", "parent_death");
    expect(signal, "/fate", "delivered");
    expect(signal, "/sender/pid", parent.pid);
    let init_exit = seen.one("namespace.init_exit", about(init.pid));
    expect(init_exit, "/cause/kind", "parent_death");
    expect(init_exit, "/cause/signal", "SIGKILL");
    expect(init_exit, "/cause/parent/pid", parent.pid);
    init_exit["cause"].clone()
}

fn a_signal_for_the_parents_end_is_marked_as_parent_death() {
    expect_not(&expect_parent_death("parent-ends"), "/thread");
}

fn a_signal_for_the_end_of_a_parents_thread_shows_a_living_parent() {
    expect(&expect_parent_death("thread-of-parent-ends"), "/thread", true);
}

fn a_signal_for_the_processor_time_limit_comes_from_the_kernel() {
    let (report, seen) = watch("uses-up-its-time", &[]);
    let init = report.who("init");
    let signal = seen.one("init.signal", about(init.pid));
    expect(signal, "/from", "kernel");
    expect_absent(signal, "/sender");
    let init_exit = seen.one("namespace.init_exit", about(init.pid));
    expect(init_exit, "/cause", json!({ "kind": "signal", "signal": "SIGKILL" }));
}

/// The kernel creates these threads without passing a hook, so the exit does not count them.
fn an_init_that_exits_with_io_uring_workers_gets_no_signal() {
    let (report, seen) = watch("exit-with-workers", &[]);
    let inits: Vec<Who> = report.all("init");
    assert_eq!(
        (inits.len(), report.all::<usize>("threads")),
        (5, vec![3; 5]),
        "each init must have two threads that work for a ring"
    );
    for init in inits {
        seen.none("init.signal", about(init.pid));
        let exit = seen.of("process.exit", &init);
        expect(exit, "/exit", json!({ "code": 0 }));
        expect(exit, "/threads", 1);
        expect_absent(exit, "/cause");
        // The kernel gives each init's namespace number to the next one.
        expect(seen.one("namespace.init_exit", about(init.pid)), "/cause", json!({ "kind": "exited" }));
        for teardown in seen.all("namespace.teardown", in_ns(init.ns)) {
            expect(teardown, "/killed", 0);
        }
    }
}

fn an_init_that_exits_with_threads_gets_no_signal() {
    let (report, seen) = watch("threaded-init", &[]);
    let inits: Vec<Who> = report.all("init");
    assert_eq!(inits.len(), 5, "the number of inits");
    for init in inits {
        // The kernel gives each init's namespace number to the next one.
        expect(seen.one("namespace.init_exit", about(init.pid)), "/cause", json!({ "kind": "exited" }));
        seen.none("init.signal", about(init.pid));
    }
}

fn a_second_signal_while_one_is_pending_is_already_pending() {
    expect_fates("SIGTERM", "block", "outside", &["delivered", "already_pending"]);
}
