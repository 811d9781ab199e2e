//! setns: it selects the namespace for a process's children.

use serde_json::Value;

use crate::actor_handle::Actor;
use crate::facts::{Refused, Who};
use crate::seen::{
    about, expect, expect_absent, expect_not, expect_order, expect_process, expect_within, get, in_ns,
    made_by,
};
use crate::tracer::{Tracer, watch};
use crate::{Test, probes, test};

pub(crate) const TESTS: &[Test] = &[
    test!(a_namespace_file_joins_a_descendant),
    test!(a_namespace_file_without_a_type_joins_a_descendant),
    test!(a_pidfd_joins_a_descendant, needs probes::pidfd),
    test!(without_syscall_hooks_a_join_is_seen_at_the_fork_as_inexact),
    test!(each_join_names_the_previous_namespace_for_children),
    test!(an_ancestor_cannot_be_joined_from_inside),
    test!(a_sibling_cannot_be_joined),
    test!(a_join_without_privilege_is_refused),
    test!(the_owner_of_a_namespace_lacks_a_capability_in_its_own_user_namespace, needs probes::user_namespaces),
    test!(an_unshare_after_a_join_is_refused),
    test!(joins_of_other_namespace_types_are_not_reported),
    test!(a_file_of_another_type_is_refused_for_its_type),
    test!(a_refused_pidfd_names_the_namespace_if_it_is_known, needs probes::pidfd),
];

fn a_namespace_file_joins_a_descendant() {
    joins_a_descendant("join-by-fd");
}

fn a_namespace_file_without_a_type_joins_a_descendant() {
    joins_a_descendant("join-by-fd-any-type");
}

fn a_pidfd_joins_a_descendant() {
    joins_a_descendant("join-by-pidfd");
}

fn joins_a_descendant(situation: &str) {
    let (report, seen) = watch(situation, &[]);
    let (init, joiner, child) = (report.who("init"), report.who("joiner"), report.who("child"));
    assert_eq!(
        (child.ns, child.pids[1], child.ppid),
        (init.ns, 2, joiner.pid),
        "the child must be born inside"
    );

    let join = seen.one("namespace.join", about(joiner.pid));
    expect(join, "/ns/inum", init.ns);
    expect(join, "/ns/level", 1);
    expect(join, "/from", joiner.ns);
    expect_process(join, "/process", &joiner);
    expect_within(join, report.the("window"));

    let fork = seen.of("process.fork", &child);
    expect_process(fork, "/process", &child);
    expect_process(fork, "/parent", &joiner);
    expect(fork, "/crosses", true);
    expect_order(&[seen.one("namespace.init", in_ns(init.ns)), join, fork]);
    seen.none("namespace.join_failed", about(joiner.pid));
}

fn without_syscall_hooks_a_join_is_seen_at_the_fork_as_inexact() {
    let tracer = Tracer::start(&["-e", "all", "--hooks", "tracepoint", "--no-syscall-hooks"]);
    let report = Actor::start("join-by-fd", &[]).finish();
    let seen = tracer.stop_after(&report);
    let (init, joiner, child) = (report.who("init"), report.who("joiner"), report.who("child"));
    let join = seen.one("namespace.join", about(joiner.pid));
    expect(join, "/exact", false);
    expect(join, "/ns/inum", init.ns);
    expect_process(join, "/process", &joiner);
    expect_order(&[join, seen.of("process.fork", &child)]);
}

fn each_join_names_the_previous_namespace_for_children() {
    let (report, seen) = watch("join-one-after-the-other", &[]);
    let (first, second, joiner) = (report.who("first").ns, report.who("second").ns, report.who("joiner"));
    let child: Who = report.the("child");
    assert_eq!(child.ns, joiner.ns, "the last join must lead back to the own namespace");

    let joins = seen.all("namespace.join", about(joiner.pid));
    let way: Vec<(&Value, &Value)> = joins.iter().map(|join| (&join["from"], &join["ns"]["inum"])).collect();
    let home = joiner.ns;
    assert_eq!(
        way,
        [(&home.into(), &first.into()), (&first.into(), &second.into()), (&second.into(), &home.into())]
    );
    joins.iter().for_each(|join| expect_process(join, "/process", &joiner));

    let fork = seen.of("process.fork", &child);
    expect_process(fork, "/process", &child);
    expect_not(fork, "/crosses");
}

fn an_ancestor_cannot_be_joined_from_inside() {
    let (report, seen) = watch("join-an-ancestor", &[]);
    refused(&report, &seen, "EINVAL", "not_descendant", report.the("target"));
}

fn a_sibling_cannot_be_joined() {
    let (report, seen) = watch("join-a-sibling", &[]);
    refused(&report, &seen, "EINVAL", "not_descendant", report.who("sibling").ns);
}

fn a_join_without_privilege_is_refused() {
    let (report, seen) = watch("join-unprivileged", &[]);
    refused(&report, &seen, "EPERM", "permission", report.who("init").ns);
    let failed = seen.one("namespace.join_failed", about(report.refused("setns", "EPERM").who.pid));
    expect(failed, "/capability", "CAP_SYS_ADMIN");
    expect(failed, "/user_ns", get::<u64>(failed, "/ns/user_ns"));
}

fn the_owner_of_a_namespace_lacks_a_capability_in_its_own_user_namespace() {
    let (report, seen) = watch("join-own-unprivileged", &[]);
    let failed = seen.one("namespace.join_failed", about(report.refused("setns", "EPERM").who.pid));
    expect(failed, "/reason", "permission");
    expect(failed, "/capability", "CAP_SYS_ADMIN");
    expect(failed, "/user_ns", report.the::<u64>("own user namespace"));
    assert_ne!(
        failed["user_ns"], failed["ns"]["user_ns"],
        "it has all capabilities in its own user namespace"
    );
}

fn an_unshare_after_a_join_is_refused() {
    let (report, seen) = watch("join-and-unshare", &[]);
    let failed = seen.one("namespace.create_failed", made_by(report.refused("unshare", "EINVAL").who.pid));
    expect(failed, "/reason", "children_elsewhere");
}

/// Checks that the join was refused. The event may omit the target namespace, but must not name a wrong one.
fn refused(
    report: &crate::actor_handle::Report,
    seen: &crate::seen::Seen,
    errno: &str,
    reason: &str,
    target: u64,
) {
    let refused = report.refused("setns", errno);
    let failed = seen.one("namespace.join_failed", about(refused.who.pid));
    expect(failed, "/errno", errno);
    expect(failed, "/reason", reason);
    expect_process(failed, "/process", &refused.who);
    if let Some(ns) = failed.get("ns") {
        assert_eq!(ns["inum"], target, "expected the target namespace: {failed}");
    }
    seen.none("namespace.join", about(refused.who.pid));
}

fn joins_of_other_namespace_types_are_not_reported() {
    let (report, seen) = watch("join-other-types", &[]);
    let joiner = report.who("joiner");
    report.refused("setns", "EINVAL");
    seen.none("namespace.join", about(joiner.pid));
    seen.none("namespace.join_failed", about(joiner.pid));
}

fn a_file_of_another_type_is_refused_for_its_type() {
    let (report, seen) = watch("join-wrong-type", &[]);
    for fact in ["another file", "another type", "no namespace"] {
        assert_eq!(report.the::<Refused>(fact).errno, "EINVAL", "{fact}");
    }
    let who = report.the::<Refused>("another file").who;
    let failed = seen.all("namespace.join_failed", about(who.pid));
    let [other_file, other_type, no_namespace] = failed[..] else {
        panic!("expected three refusals: {failed:#?}")
    };
    expect(other_file, "/reason", "wrong_type");
    expect_absent(other_file, "/ns");
    expect(other_type, "/reason", "wrong_type");
    expect(other_type, "/ns/inum", who.ns);
    expect(no_namespace, "/reason", "other");
    for failed in [other_file, other_type, no_namespace] {
        expect(failed, "/errno", "EINVAL");
        expect_process(failed, "/process", &who);
        expect_absent(failed, "/exact");
    }
}

/// A pidfd names a process. Only a hook on an inner function knows which of its namespaces was meant, and its number.
fn a_refused_pidfd_names_the_namespace_if_it_is_known() {
    let (report, seen) = watch("join-a-sibling-by-pidfd", &[]);
    let refused = report.refused("setns", "EINVAL");
    let failed = seen.one("namespace.join_failed", about(refused.who.pid));
    expect(failed, "/errno", "EINVAL");
    if seen.by_functions() {
        expect(failed, "/ns/inum", report.who("sibling").ns);
        expect(failed, "/reason", "not_descendant");
    } else {
        expect_absent(failed, "/ns");
        expect(failed, "/reason", "other");
    }
}
