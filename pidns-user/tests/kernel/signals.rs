//! Signals to PID 1: who sent them, from where, and what became of them.

use serde_json::{Value, json};

use crate::seen::{about, expect, expect_order, expect_process, in_ns};
use crate::tracer::watch;
use crate::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test!(sigterm_from_inside_to_an_init_without_handler_is_ignored),
    test!(sigterm_from_outside_to_an_init_without_handler_is_ignored),
    test!(sigterm_from_inside_to_an_init_with_a_handler_is_delivered),
    test!(sigterm_from_outside_to_an_init_with_a_handler_is_delivered),
    test!(sigterm_to_an_init_that_ignores_it_is_ignored),
    test!(sigkill_from_inside_is_ignored),
    test!(sigkill_from_an_ancestor_is_delivered),
    test!(a_second_signal_while_one_waits_is_already_pending),
];

/// Sends `signal` to an init and expects one event for each fate, in this order.
fn expect_fates(signal: &str, disposition: &str, place: &str, fates: &[&str]) {
    let (told, seen) = watch("signal", &[signal, disposition, place, &fates.len().to_string()]);
    let (init, sender) = (told.who("init"), told.who("sender"));
    let from = match place {
        "inside" => "inside",
        _ => "ancestor",
    };
    let sent = seen.all("init.signal", |event| about(init.pid)(event) && event["signal"] == signal);
    let seen_fates: Vec<&Value> = sent.iter().map(|event| &event["fate"]).collect();
    assert_eq!(seen_fates, fates, "what became of {signal}: {sent:#?}");
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

fn a_second_signal_while_one_waits_is_already_pending() {
    expect_fates("SIGTERM", "block", "outside", &["delivered", "already_pending"]);
}
