//! Tests findings about namespaces that had the same inode number. The kernel reuses a number as soon as it is free.

use super::*;

/// PID 1 of the later namespace.
const LATER_INIT: u32 = 900;

/// The later namespace with the number of the first.
fn later() -> Namespace {
    Namespace { born_boot_ns: Some(seconds(20.0)), ..ns(NS, 1) }
}

fn later_init() -> Process {
    Process { start_boot_ns: seconds(20.0), ..process(&[LATER_INIT, 1], CREATOR) }
}

/// Adds the events with which the first namespace ends: the exit and the reap of its PID 1, and its destruction.
fn end(host: &mut TestHost, at: f64) {
    host.add(at, init_exit_event(Exit::Code { code: 0 }, Cause::Exited));
    host.add(at, exit(process(&[INIT, 1], CREATOR))).add(at, reap(process(&[INIT, 1], CREATOR)));
    host.add(at, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
}

/// Adds the events with which another namespace with the number of the first begins.
pub(super) fn begin_another(host: &mut TestHost, at: f64) {
    let creator = process(&[CREATOR], 1);
    host.add(at, Body::NamespaceCreate { ns: later(), via: Some("clone".into()), creator: creator.clone() });
    host.add(at, Body::NamespaceInit { ns: later(), process: later_init() });
    host.add(at, fork(later_init(), creator));
}

/// The only finding with this id. Fails if it is not about the first namespace.
fn of_the_first(host: &TestHost, at: f64, id: Diagnosis) -> Finding {
    let found: Vec<_> = host.found(at).into_iter().filter(|finding| finding.id == id).collect();
    let births: Vec<_> = found.iter().map(|it| it.ns.as_ref().and_then(|ns| ns.born_boot_ns)).collect();
    assert_eq!(births, [Some(BootNs(1))], "{found:#?}");
    found.into_iter().next().expect("one")
}

fn ignored_signal() -> Body {
    Body::InitSignal {
        ns: ns(NS, 1),
        process: process(&[INIT, 1], CREATOR),
        signal: "SIGTERM".to_owned(),
        sender: Some(process(&[CREATOR], 1)),
        from: "ancestor".into(),
        fate: "ignored".into(),
    }
}

#[test]
fn an_ignored_signal_is_not_attributed_to_a_later_namespace() {
    let mut host = TestHost::new();
    host.add(5.0, ignored_signal());
    end(&mut host, 10.0);
    begin_another(&mut host, 20.0);
    let finding = of_the_first(&host, 20.5, Diagnosis::InitIgnoredSignal);
    assert_eq!(finding.next, [""; 0], "no command explains another namespace");
    let other = Body::InitSignal {
        ns: later(),
        process: later_init(),
        signal: "SIGTERM".to_owned(),
        sender: None,
        from: "ancestor".into(),
        fate: "ignored".into(),
    };
    host.add(21.0, other);
    assert_eq!(host.ids(21.5), [Diagnosis::InitIgnoredSignal; 2], "one for each");
}

#[test]
fn a_killed_member_is_not_attributed_to_a_later_namespace() {
    let mut host = TestHost::new();
    let member = process(&[INIT + 1, 2], INIT);
    host.add(5.0, fork(member.clone(), process(&[INIT, 1], CREATOR)));
    host.add(6.0, oom_killed(member.clone())).add(6.0, reap(member));
    assert_eq!(host.ids(6.5), [Diagnosis::MemberOomKilled]);
    end(&mut host, 10.0);
    begin_another(&mut host, 20.0);
    assert_eq!(host.ids(20.5), []);
}

#[test]
fn a_refused_fork_is_not_attributed_to_a_later_namespace() {
    let mut host = TestHost::new();
    host.add(5.0, refused(process(&[INIT, 1], CREATOR), "pids_cgroup", None));
    host.add(5.0, refused(process(&[CREATOR], 1), "namespace_dead", None));
    end(&mut host, 10.0);
    begin_another(&mut host, 20.0);
    of_the_first(&host, 20.5, Diagnosis::PidExhaustion);
    of_the_first(&host, 20.5, Diagnosis::NamespaceDeadFork);
    let full = chain(20.0, vec![limit("pids_cgroup", 100, 100)]);
    host.readings.limits.insert(NS, LimitChain { init: HostPid(LATER_INIT), ..full });
    let found = host.found(20.5).into_iter().filter(|finding| finding.id == Diagnosis::PidExhaustion);
    let limits = found
        .map(|finding| finding.evidence.iter().filter(|it| matches!(it.fact, Fact::Limit { .. })).count());
    let mut limits: Vec<_> = limits.collect();
    limits.sort_unstable();
    assert_eq!(limits, [0, 1], "the later one's limits are not evidence for the first");
}

#[test]
fn holders_of_an_earlier_namespace_are_not_those_of_a_later_one() {
    let mut host = TestHost::new();
    let holder = Holder::Fd { pid: HostPid(70), comm: None, tid: None, fd: 4 };
    host.read_holders(Holders { at: seconds(9.0), holders: vec![holder], left_out: 0, unread: 0 });
    end(&mut host, 10.0);
    begin_another(&mut host, 20.0);
    host.add(21.0, exit(later_init())).add(21.0, reap(later_init()));
    assert_eq!(host.ids(22.5), [], "its own holders were not read");
    let requested = host.with_input(22.5, |input| {
        let mut request = ReadRequest::default();
        namespace_leaked::add_requests(input, true, &mut request);
        request.holders
    });
    let births: Vec<_> = requested.values().map(|ns| ns.born_boot_ns).collect();
    assert_eq!(births, [Some(seconds(20.0))]);
}

#[test]
fn a_late_end_is_not_attributed_to_a_later_namespace() {
    let mut host = TestHost::new();
    begin_another(&mut host, 20.0);
    host.add(20.1, killed_by(CREATOR));
    let finding = of_the_first(&host, 20.5, Diagnosis::InitKilled);
    assert_eq!(finding.process.map(|init| init.pid), Some(HostPid(INIT)));
    let teardown =
        Body::NamespaceTeardown { ns: ns(NS, 1), killed: 3, nested: Vec::new(), duration_ns: 1_000 };
    host.add(20.2, teardown);
    let finding = of_the_first(&host, 20.5, Diagnosis::InitKilled);
    assert!(finding.evidence.iter().any(|it| matches!(it.fact, Fact::Teardown { killed: 3, .. })));
    let later = host.recent.namespace(NS).expect("it exists");
    assert_eq!((&later.death, &later.torn_down), (&None, &None));
}

#[test]
fn a_late_exit_of_a_member_does_not_count_for_a_later_namespace() {
    let mut host = TestHost::new();
    let member = process(&[INIT + 1, 2], INIT);
    host.add(5.0, fork(member.clone(), process(&[INIT, 1], CREATOR)));
    end(&mut host, 10.0);
    begin_another(&mut host, 20.0);
    host.add(20.1, exit(member));
    let lives = host.recent.namespace(NS).and_then(|record| record.lives.as_ref()).expect("its PID 1");
    assert_eq!(lives.exits.until(seconds(21.0)).in_1_min, 0);
}

#[test]
fn a_finding_stays_open_for_as_long_as_it_holds() {
    let mut host = TestHost::new();
    let shim = Process { comm: "containerd-shim".into(), ..process(&[CREATOR], 1) };
    let exec = Body::ProcessExec { process: shim, filename: "x".into(), args: None, args_truncated: false };
    host.add(3.0, exec);
    end(&mut host, 10.0);
    let open = host.only_finding(25.0);
    assert_eq!(open.id, Diagnosis::CreatorLeftover);
    let key = open.ns.as_ref().expect("the namespace").key();
    let later = seconds(5_000.0);
    let longest = host.thresholds.longest_after_an_end();
    host.recent.forget(later, &host.world, [key].into(), longest);
    assert_eq!(host.ids(5_000.0), [Diagnosis::CreatorLeftover]);
    for number in 0..1_500 {
        let inum = NsInum(5_000_000 + number);
        let creator = process(&[1], 0);
        host.add(5_000.0, Body::NamespaceCreate { ns: ns(inum, 1), via: None, creator });
        host.add(5_000.0, Body::NamespaceDestroy { ns: ns(inum, 1), lived_ns: None });
    }
    assert_eq!(host.ids(5_000.0), [Diagnosis::CreatorLeftover], "although many others have ended since");
    host.recent.forget(later, &host.world, [].into(), longest);
    assert_eq!(host.ids(5_000.0), []);
}

#[test]
fn an_end_is_remembered_for_as_long_as_a_threshold() {
    let mut host = TestHost::new();
    end(&mut host, 10.0);
    let is_known = |host: &TestHost| host.recent.gone().count() == 1;
    let hour = Duration::from_secs(3_600);
    host.recent.forget(seconds(3_000.0), &host.world, [].into(), hour);
    assert!(is_known(&host));
    host.recent.forget(seconds(3_000.0), &host.world, [].into(), Duration::from_secs(10));
    assert!(!is_known(&host));
}
