//! The last reference to a namespace disappears: a process, a file, a mount.

use serde_json::Value;

use crate::actor_handle::Report;
use crate::facts::Window;
use crate::seen::{Seen, boot_ns, expect_absent, expect_order, get, in_ns, made_by};
use crate::tracer::{Tracer, watch};
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_namespace_is_destroyed_with_its_last_process, needs probes::function_hooks),
    test!(an_open_file_keeps_a_namespace_until_it_is_closed, needs probes::function_hooks),
    test!(a_bind_mount_keeps_a_namespace_until_it_is_unmounted, needs probes::function_hooks),
    test!(a_nested_namespace_keeps_the_outer_one, needs probes::function_hooks),
    test!(a_namespace_without_an_init_is_destroyed_with_its_creator, needs probes::function_hooks),
];

/// The longest time that the kernel may take after the last reference, for RCU grace periods and a kernel thread.
/// Emulated machines have taken at most 38 ms.
const PROMPT_NS: u64 = 100_000_000;

/// Traces a situation until its namespace is destroyed. The fact `ns` is its inode number.
fn watch_release(situation: &str) -> (Report, Seen) {
    let tracer = Tracer::start(&["-e", "all"]);
    let report = crate::actor_handle::Actor::start(situation, &[]).finish();
    let ns: u64 = report.the("ns");
    tracer.wait_for("namespace.destroy", |event| event["event"] == "namespace.destroy" && in_ns(ns)(event));
    (report, tracer.stop())
}

/// The only destruction of this namespace. It must be exact, and match the reported creation.
fn expect_destroyed(seen: &Seen, ns: u64) -> &Value {
    let destroy = seen.one("namespace.destroy", in_ns(ns));
    expect_absent(destroy, "/exact");
    let create = seen.one("namespace.create", in_ns(ns));
    let lived: u64 = get(destroy, "/lived_ns");
    assert_eq!(lived, boot_ns(destroy) - boot_ns(create), "the time from {create}\nto {destroy}");
    for field in ["inum", "level", "parent", "born_boot_ns", "user_ns", "owner_uid"] {
        assert_eq!(destroy["ns"][field], create["ns"][field], "{field} must be the same: {destroy}");
    }
    destroy
}

fn expect_prompt(destroy: &Value, released: Window) {
    let (from, at) = (released.from, boot_ns(destroy));
    let latest = released.to + PROMPT_NS;
    assert!((from..=latest).contains(&at), "not within 100 ms of {released:?}: {destroy}");
    println!(
        "destroyed {:.1} ms after the last reference disappeared",
        at.saturating_sub(released.to) as f64 / 1e6
    );
}

fn a_namespace_is_destroyed_with_its_last_process() {
    let (report, seen) = watch_release("last-process");
    let ns = report.the("ns");
    let destroy = expect_destroyed(&seen, ns);
    expect_prompt(destroy, report.the("released"));
    expect_order(&[
        seen.one("namespace.create", in_ns(ns)),
        seen.one("namespace.init", in_ns(ns)),
        seen.one("namespace.init_exit", in_ns(ns)),
        seen.one("namespace.teardown", in_ns(ns)),
        destroy,
    ]);
}

fn an_open_file_keeps_a_namespace_until_it_is_closed() {
    let (report, seen) = watch_release("held-by-a-file");
    expect_prompt(expect_destroyed(&seen, report.the("ns")), report.the("released"));
}

fn a_bind_mount_keeps_a_namespace_until_it_is_unmounted() {
    let (report, seen) = watch_release("held-by-a-mount");
    expect_prompt(expect_destroyed(&seen, report.the("ns")), report.the("released"));
}

fn a_nested_namespace_keeps_the_outer_one() {
    let (report, seen) = watch_release("held-by-an-inner-namespace");
    let outer = expect_destroyed(&seen, report.the("ns"));
    let inner = expect_destroyed(&seen, report.who("inner").ns);
    expect_order(&[inner, outer]);
    expect_prompt(outer, report.the("released"));
}

fn a_namespace_without_an_init_is_destroyed_with_its_creator() {
    let (report, seen) = watch("unshare-only", &[]);
    let create = seen.one("namespace.create", made_by(report.who("creator").pid));
    let ns: u64 = get(create, "/ns/inum");
    let destroy = expect_destroyed(&seen, ns);
    expect_order(&[create, seen.of("process.exit", &report.who("creator")), destroy]);
    seen.none("namespace.teardown", in_ns(ns));
}
