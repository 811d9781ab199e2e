//! Creations of namespaces and their inits, and refused creations.

use pidns_user::kernel::btf::{self, Btf};
use serde_json::json;

use crate::actor_handle::Actor;
use crate::facts::{Namespace, Refused, Who, Window};
use crate::seen::{
    about, boot_ns, expect, expect_absent, expect_namespace, expect_not, expect_order, expect_process,
    expect_within, get, in_ns, made_by,
};
use crate::tracer::{Tracer, watch};
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(clone_makes_a_namespace_and_its_init),
    test!(clone3_makes_a_namespace_and_its_init),
    test!(unshare_makes_a_namespace_before_its_init_exists),
    test!(without_syscall_hooks_an_unshare_is_seen_at_the_fork_as_inexact),
    test!(unshare_without_a_fork_makes_a_namespace_without_an_init),
    test!(a_restore_shows_the_chosen_pids, needs probes::set_tid),
    test!(nested_namespaces_show_the_pid_at_every_level),
    test!(the_thirty_third_level_is_refused),
    test!(the_count_limit_of_a_user_namespace_is_named, needs probes::user_namespaces),
    test!(a_count_limit_has_its_owner_and_its_current_count, needs probes::user_namespaces),
    test!(a_second_namespace_for_children_is_refused),
    test!(a_user_without_privilege_is_refused),
    test!(a_refused_first_process_is_a_failed_creation, needs probes::set_tid),
    test!(the_refused_one_of_several_namespaces_is_named_if_known, needs probes::user_namespaces),
];

fn clone_makes_a_namespace_and_its_init() {
    namespace_and_init_at_once("clone");
}

fn clone3_makes_a_namespace_and_its_init() {
    namespace_and_init_at_once("clone3");
}

fn namespace_and_init_at_once(via: &str) {
    let (report, seen) = watch(via, &[]);
    let (creator, init) = (report.who("creator"), report.who("init"));
    let (namespace, window): (Namespace, Window) = (report.the("namespace"), report.the("window"));
    assert_eq!(init.pids, [init.pid, 1], "the actor must have made an init");

    let create = seen.one("namespace.create", made_by(creator.pid));
    expect(create, "/via", via);
    expect_process(create, "/creator", &creator);
    expect_namespace(create, &namespace, 1);
    expect_within(create, window);
    let born: u64 = get(create, "/ns/born_boot_ns");
    assert!((window.from..=window.to).contains(&born), "born_boot_ns is not within {window:?}: {create}");

    let first = seen.one("namespace.init", in_ns(namespace.inum));
    expect_process(first, "/process", &init);
    expect_namespace(first, &namespace, 1);
    expect(first, "/ns/born_boot_ns", born);
    expect_within(first, window);
    expect_order(&[create, first]);

    let fork = seen.of("process.fork", &init);
    expect_process(fork, "/process", &init);
    expect_process(fork, "/parent", &creator);
    expect(fork, "/crosses", true);
    expect_not(fork, "/restored");
}

fn unshare_makes_a_namespace_before_its_init_exists() {
    let (report, seen) = watch("unshare-then-fork", &[]);
    let (creator, init) = (report.who("creator"), report.who("init"));
    let (window, forked): (Window, Window) = (report.the("window"), report.the("forked"));
    let namespace: Namespace = report.the("namespace");

    let create = seen.one("namespace.create", made_by(creator.pid));
    expect(create, "/via", "unshare");
    expect_process(create, "/creator", &creator);
    expect_namespace(create, &namespace, 1);
    expect_within(create, window);

    let first = seen.one("namespace.init", in_ns(namespace.inum));
    expect_process(first, "/process", &init);
    expect(first, "/process/ppid", creator.pid);
    expect_within(first, forked);
    expect_order(&[create, first]);
    assert!(boot_ns(create) < boot_ns(first), "the namespace is older than its init:\n  {create}\n  {first}");

    let fork = seen.of("process.fork", &init);
    expect_process(fork, "/parent", &creator);
    expect(fork, "/crosses", true);
}

fn without_syscall_hooks_an_unshare_is_seen_at_the_fork_as_inexact() {
    let tracer = Tracer::start(&["-e", "all", "--hooks", "tracepoint", "--no-syscall-hooks"]);
    let report = Actor::start("unshare-then-fork", &[]).finish();
    let seen = tracer.stop_after(&report);
    let (creator, init) = (report.who("creator"), report.who("init"));
    let create = seen.one("namespace.create", in_ns(init.ns));
    expect(create, "/exact", false);
    expect_within(create, report.the("forked"));
    expect_process(create, "/creator", &creator);
    expect_process(seen.one("namespace.init", in_ns(init.ns)), "/process", &init);
    let off = get::<String>(seen.start(), "/hooks/sys_exit");
    assert!(off.starts_with("off: "), "the stream must report the missing hook: {off}");
}

fn unshare_without_a_fork_makes_a_namespace_without_an_init() {
    let (report, seen) = watch("unshare-only", &[]);
    let creator = report.who("creator");
    let create = seen.one("namespace.create", made_by(creator.pid));
    expect(create, "/via", "unshare");
    expect(create, "/ns/level", 1);
    expect(create, "/ns/parent", creator.ns);
    expect_within(create, report.the("window"));
    let born = &create["ns"]["born_boot_ns"];
    let same = |event: &serde_json::Value| event["ns"]["born_boot_ns"] == *born;
    seen.none("namespace.init", same);
    seen.none("namespace.init_exit", same);
}

fn a_restore_shows_the_chosen_pids() {
    let (report, seen) = watch("restore", &[]);
    let (init, child, newcomer) = (report.who("init"), report.who("child"), report.who("newcomer"));
    let [init_pid, child_pid]: [i32; 2] = report.the("chosen");
    assert_eq!(
        (&*init.pids, &*child.pids),
        (&[init_pid, 1][..], &[child_pid, 77][..]),
        "the kernel must use the chosen PIDs"
    );

    for restored in [&init, &child] {
        let fork = seen.of("process.fork", restored);
        expect_process(fork, "/process", restored);
        expect(fork, "/restored", true);
    }
    expect(seen.one("namespace.create", in_ns(init.ns)), "/via", "clone3");
    expect(seen.of("process.fork", &init), "/crosses", true);
    expect_not(seen.of("process.fork", &child), "/crosses");

    let fork = seen.of("process.fork", &newcomer);
    expect_process(fork, "/process", &newcomer);
    expect_not(fork, "/restored");
}

fn nested_namespaces_show_the_pid_at_every_level() {
    let tracer = Tracer::start(&["-e", "all"]);
    let mut actor = Actor::start("nested", &[]);
    let _: bool = actor.hear("complete");
    actor.go();
    let report = actor.finish();
    let seen = tracer.stop_after(&report);

    let levels: Vec<Who> = report.all("level");
    assert_eq!(levels.len(), 3, "expected three nested namespaces");
    assert_eq!(levels[2].pids[1..], [3, 2, 1], "the PIDs of the innermost init, from outside inwards");
    let mut outer = report.who("creator");
    for (index, init) in levels.into_iter().enumerate() {
        let create = seen.one("namespace.create", made_by(outer.pid));
        expect(create, "/ns/inum", init.ns);
        expect(create, "/ns/parent", outer.ns);
        expect(create, "/ns/level", index + 1);
        expect_process(create, "/creator", &outer);
        let first = seen.one("namespace.init", in_ns(init.ns));
        expect_process(first, "/process", &init);
        assert_eq!(init.level(), index + 1, "NSpid has a PID for every level");
        outer = init;
    }
}

fn the_thirty_third_level_is_refused() {
    let (report, seen) = watch("too-deep", &[]);
    let levels: Vec<Who> = report.all("level");
    assert_eq!(levels.len(), 32, "the number of allowed levels");
    for (index, init) in levels.iter().enumerate() {
        let first = seen.one("namespace.init", |event| event["process"]["pid"] == init.pid);
        expect_process(first, "/process", init);
        expect(first, "/ns/level", index + 1);
    }
    let who = each_way_is_refused(&report, &seen, "ENOSPC", "depth_limit");
    for failed in seen.all("namespace.create_failed", made_by(who.pid)) {
        expect(failed, "/limit", json!({ "kind": "depth_limit", "value": 32, "current": 32 }));
    }
    seen.none("namespace.create", made_by(levels[31].pid));
}

fn the_count_limit_of_a_user_namespace_is_named() {
    let (report, seen) = watch("too-many", &[]);
    let who = each_way_is_refused(&report, &seen, "ENOSPC", "count_limit");
    for failed in seen.all("namespace.create_failed", made_by(who.pid)) {
        expect(failed, "/limit/kind", "max_pid_namespaces");
        expect(failed, "/limit/value", 0);
    }
}

/// Whether BTF leads to the counts that are checked against the limits of a process's own user namespace (5.14 and
/// later).
fn counts_can_be_read() -> bool {
    let bytes = std::fs::read(btf::PATH).expect("read the kernel's BTF");
    let btf = Btf::parse(&bytes).expect("parse the kernel's BTF");
    btf.field("cred", "ucounts").is_ok()
}

fn a_count_limit_has_its_owner_and_its_current_count() {
    let (report, seen) = watch("counted-out", &[]);
    let user_ns: u64 = report.the("user namespace");
    let failed_of = |fact: &str| {
        let refused: Refused = report.the(fact);
        assert_eq!(refused.errno, "ENOSPC", "{fact}");
        let failed = seen.one("namespace.create_failed", made_by(refused.who.pid));
        expect(failed, "/errno", "ENOSPC");
        expect(failed, "/reason", "count_limit");
        expect(failed, "/limit/user_ns", user_ns);
        expect_absent(failed, "/exact");
        failed
    };
    for (fact, is_read) in [("own", counts_can_be_read()), ("outer", true)] {
        let failed = failed_of(fact);
        expect(failed, "/limit/kind", "max_pid_namespaces");
        expect(failed, "/limit/value", 1);
        if is_read {
            expect(failed, "/limit/current", 1);
        } else {
            expect_absent(failed, "/limit/current");
        }
    }
    let failed = failed_of("user");
    expect(failed, "/limit/kind", "max_user_namespaces");
    expect(failed, "/limit/value", 0);
}

fn a_second_namespace_for_children_is_refused() {
    let (report, seen) = watch("unshare-twice", &[]);
    let refused = each_way_is_refused(&report, &seen, "EINVAL", "already_unshared");
    expect(seen.one("namespace.create", made_by(refused.pid)), "/via", "unshare");
}

fn a_user_without_privilege_is_refused() {
    let (report, seen) = watch("unprivileged", &[]);
    let refused = each_way_is_refused(&report, &seen, "EPERM", "permission");
    assert_eq!(refused.uid, 65534, "the actor must run as nobody");
    seen.none("namespace.create", made_by(refused.pid));
}

/// Checks that clone, clone3 and unshare were each refused with this error and reason. Returns the refused process.
fn each_way_is_refused(
    report: &crate::actor_handle::Report,
    seen: &crate::seen::Seen,
    errno: &str,
    reason: &str,
) -> Who {
    let mut who = None;
    for via in ["clone", "clone3", "unshare"] {
        let refused = report.refused(via, errno);
        let by = made_by(refused.who.pid);
        let failed = seen.one("namespace.create_failed", |event| by(event) && event["via"] == via);
        expect(failed, "/errno", errno);
        expect(failed, "/reason", reason);
        expect_process(failed, "/creator", &refused.who);
        who = Some(refused.who);
    }
    who.expect("three ways were tried")
}

fn a_refused_first_process_is_a_failed_creation() {
    let (report, seen) = watch("bad-set-tid", &[]);
    let refused = report.refused("clone3", "EINVAL");
    let failed = seen.one("namespace.create_failed", made_by(refused.who.pid));
    expect(failed, "/via", "clone3");
    expect(failed, "/errno", "EINVAL");
    expect(failed, "/reason", "other");
    expect_process(failed, "/creator", &refused.who);
    seen.none("process.fork", |event| event["parent"]["pid"] == refused.who.pid);
    seen.none("namespace.init", about(refused.who.pid));
}

/// A hook that sees only the system call cannot know which of the namespaces exceeded its limit, and says so.
fn the_refused_one_of_several_namespaces_is_named_if_known() {
    let (report, seen) = watch("one-too-many-of-another-type", &[]);
    let refused = report.refused("unshare", "ENOSPC");
    let failed = seen.one("namespace.create_failed", made_by(refused.who.pid));
    expect(failed, "/errno", "ENOSPC");
    if seen.by_functions() || counts_can_be_read() {
        expect_absent(failed, "/exact");
        expect(failed, "/reason", "other");
    } else {
        expect(failed, "/exact", false);
        expect(failed, "/reason", "count_limit");
    }
    seen.none("namespace.create", made_by(refused.who.pid));
}
