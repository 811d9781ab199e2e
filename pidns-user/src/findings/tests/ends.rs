//! Tests of findings about the ends of namespaces and their inits.

use super::*;

#[test]
fn blocked_teardown_names_the_blocking_processes() {
    let (mut host, member) = host_that_waits_for_a_zombie();
    assert_eq!(host.ids(10.5), []);
    let blocker = |finding: &Finding| {
        finding
            .evidence
            .iter()
            .find_map(|evidence| match &evidence.fact {
                Fact::Blocker { process, by, keeper, .. } => {
                    Some((process.pid, *by, keeper.as_ref().map(|keeper| keeper.pid)))
                }
                _ => None,
            })
            .unwrap_or_else(|| panic!("{finding:#?}"))
    };
    let finding = host.only_finding(11.5);
    assert_eq!((finding.id, finding.since_boot_ns), (Diagnosis::TeardownBlocked, seconds(10.0)));
    assert_eq!(blocker(&finding), (member.pid, BlockedBy::Parent, Some(HostPid(CREATOR))));
    // /proc overrides the model.
    for (state, tracer, frozen, expected) in [
        ('Z', None, false, BlockedBy::Parent),
        ('Z', Some(1), false, BlockedBy::Tracer),
        ('t', Some(1), false, BlockedBy::Tracer),
        ('D', None, true, BlockedBy::Freezer),
        ('D', None, false, BlockedBy::Kernel),
        ('R', None, false, BlockedBy::Unknown),
    ] {
        let tracer = tracer.map(HostPid);
        let activity =
            ProcessActivity { state, ppid: HostPid(CREATOR), tracer, threads: 1, wchan: None, frozen };
        host.readings.activity = BTreeMap::from([(member.key(), Ok(activity))]);
        assert_eq!(blocker(&host.only_finding(11.5)).1, expected, "{state} {tracer:?}");
    }
    host.readings.activity = BTreeMap::from([(member.key(), Err("no permission".to_owned()))]);
    let facts = host.only_finding(11.5).evidence;
    assert!(matches!(&facts.last().expect("a fact").fact, Fact::Unseen { what } if what == "no permission"));
    host.add(12.0, reap(member));
    let torn_down = Body::NamespaceTeardown { ns: ns(NS, 1), killed: 0, nested: Vec::new(), duration_ns: 1 };
    host.add(12.0, torn_down);
    assert_eq!(host.ids(13.0), []);
}

#[test]
fn blocked_teardown_counts_the_processes_that_it_does_not_list() {
    let (mut host, _) = host_that_waits_for_a_zombie();
    for pid in 2..=12 {
        let member = process(&[INIT + pid, pid + 1], CREATOR);
        host.add(5.0, fork(member.clone(), process(&[CREATOR], 1))).add(10.0, exit(member));
    }
    let finding = host.only_finding(11.5);
    let listed = finding.evidence.iter().filter(|evidence| matches!(evidence.fact, Fact::Blocker { .. }));
    assert_eq!(listed.count(), 10);
    let text = crate::output::findings::summary(&finding);
    assert!(text.ends_with("; and 2 more"), "{text}");
}

/// PID 1 has ended and waits for a zombie, which was forked by [`CREATOR`].
fn host_that_waits_for_a_zombie() -> (TestHost, Process) {
    let mut host = TestHost::new();
    let member = process(&[INIT + 1, 2], CREATOR);
    host.add(5.0, fork(member.clone(), process(&[CREATOR], 1)));
    host.add(10.0, init_exit_event(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    host.add(10.0, exit(member.clone()));
    (host, member)
}

fn zombie_of(parent: u32) -> ProcessActivity {
    let (tracer, wchan) = (None, None);
    ProcessActivity { state: 'Z', ppid: HostPid(parent), tracer, threads: 1, wchan, frozen: false }
}

#[test]
fn blocked_teardown_does_not_name_members_that_are_gone() {
    let (mut host, member) = host_that_waits_for_a_zombie();
    host.has_reader = true;
    let needs_snapshot_again = |host: &TestHost, at| {
        host.with_input(at, |input| teardown_blocked::needs_snapshot_again(input, &find(input)))
    };
    host.readings.gone.insert(member.key());
    assert_eq!(host.ids(30.0), [], "the event of its reaping is to come");
    assert!(!needs_snapshot_again(&host, 30.0), "events report all processes");
    host.follow_namespaces(9.0);
    assert_eq!(host.ids(30.0), []);
    assert!(!needs_snapshot_again(&host, 10.5), "it does not wait for long");
    assert!(needs_snapshot_again(&host, 11.5), "another process joined after the snapshot");
    // A member that has not ended may wait with the others.
    host.readings.gone.clear();
    host.readings.activity =
        BTreeMap::from([(member.key(), Ok(ProcessActivity { state: 'S', ..zombie_of(INIT) }))]);
    assert_eq!((host.ids(11.5), needs_snapshot_again(&host, 11.5)), (Vec::new(), true));
    host.follow_namespaces(11.6);
    assert_eq!(host.ids(12.5), [Diagnosis::TeardownBlocked]);
    assert!(!needs_snapshot_again(&host, 12.5), "the last one has all members");
}

#[test]
fn blocked_teardown_names_a_parent_that_only_proc_shows() {
    let (mut host, member) = host_that_waits_for_a_zombie();
    host.follow_namespaces(11.6);
    let mut blocker = |parent: u32, shown: Option<Process>| {
        host.readings.activity = BTreeMap::from([(member.key(), Ok(zombie_of(parent)))]);
        host.readings.keepers = shown.map(|process| (process.pid, process)).into_iter().collect();
        let finding = host.only_finding(12.5);
        let blockers = finding.evidence.into_iter().filter_map(|evidence| match evidence.fact {
            Fact::Blocker { by, keeper, .. } => Some((by, keeper.map(|keeper| keeper.comm))),
            _ => None,
        });
        blockers.last().expect("a blocker")
    };
    let outside = Process { comm: "young".into(), ..process(&[999], 1) };
    assert_eq!(blocker(999, Some(outside)), (BlockedBy::Parent, Some("young".into())));
    let inside = process(&[INIT + 5, 6], INIT);
    assert_eq!(blocker(INIT + 5, Some(inside)), (BlockedBy::Unknown, None), "then it was killed too");
    assert_eq!(blocker(999, None), (BlockedBy::Unknown, None), "its parent may be anywhere");
    assert_eq!(blocker(0, None), (BlockedBy::Parent, None), "this /proc does not show those outside");
    let later = Process { comm: "later".into(), start_boot_ns: seconds(8.0), ..process(&[CREATOR], 1) };
    assert_eq!(
        blocker(CREATOR, Some(later)),
        (BlockedBy::Parent, Some("later".into())),
        "it has the PID now"
    );
}

#[test]
fn fork_into_a_dead_namespace_names_the_init_and_the_forker() {
    let mut host = TestHost::new();
    host.add(10.0, init_exit_event(Exit::Code { code: 3 }, Cause::Exited));
    host.add(11.0, refused(process(&[70], 1), "namespace_dead", None));
    let finding =
        host.found(11.1).into_iter().find(|it| it.id == Diagnosis::NamespaceDeadFork).expect("it is found");
    let facts: Vec<_> = finding.evidence.iter().map(|evidence| &evidence.fact).collect();
    assert!(matches!(facts[0], Fact::InitExit { exit: Exit::Code { code: 3 }, .. }), "{facts:#?}");
    assert!(matches!(facts[1], Fact::RefusedFork { process, .. } if process.pid == HostPid(70)));
    assert!(!host.ids(400.0).contains(&Diagnosis::NamespaceDeadFork), "it is long ago");
}

#[test]
fn fork_into_a_dead_namespace_names_the_call_that_led_there() {
    let forker = || process(&[70], 1);
    let created = Body::NamespaceCreate { ns: ns(NS, 1), via: Some("unshare".into()), creator: forker() };
    let joined = Body::NamespaceJoin { ns: ns(NS, 1), process: forker(), from: None };
    for (call, expected) in
        [(created, Some("unshare")), (joined, Some("setns")), (reap(process(&[69], 1)), None)]
    {
        let mut host = TestHost::new();
        host.add(3.0, fork(forker(), process(&[1], 0))).add(4.0, call);
        host.add(10.0, init_exit_event(Exit::Code { code: 3 }, Cause::Exited));
        host.add(11.0, refused(forker(), "namespace_dead", None));
        let called = host.found(11.1).into_iter().flat_map(|finding| finding.evidence).find_map(|evidence| {
            match evidence.fact {
                Fact::RefusedFork { elsewhere_by, .. } => Some(elsewhere_by),
                _ => None,
            }
        });
        assert_eq!(called, Some(expected.map(Into::into)));
    }
}

#[test]
fn ignored_sigterm_and_the_following_kill_are_two_findings() {
    let signal = |signal: &str, from: &'static str| Body::InitSignal {
        ns: ns(NS, 1),
        process: process(&[INIT, 1], CREATOR),
        signal: signal.to_owned(),
        sender: Some(process(&[70], 1)),
        from: from.into(),
        fate: "ignored".into(),
    };
    let mut host = TestHost::new();
    host.add(10.0, signal("SIGCONT", "ancestor")).add(10.0, signal("SIGTERM", "kernel"));
    assert_eq!(host.ids(10.1), [], "neither is meant to end it");
    host.add(11.0, signal("SIGTERM", "ancestor"));
    let finding = host.only_finding(11.1);
    assert_eq!((finding.id, finding.severity), (Diagnosis::InitIgnoredSignal, Severity::Warning));
    assert!(
        matches!(&finding.evidence[0].fact, Fact::Signal { sender: Some(sender), .. } if sender.pid == HostPid(70))
    );
    host.add(21.0, killed_by(70));
    host.add(22.0, signal("SIGTERM", "ancestor"));
    assert_eq!(host.ids(21.5), [Diagnosis::InitIgnoredSignal, Diagnosis::InitKilled]);
    let killed = host.found(21.5).remove(1);
    assert!(matches!(killed.evidence[0].fact, Fact::Signal { .. }), "what was tried before: {killed:#?}");
    assert_eq!(host.ids(400.0), []);
}

#[test]
fn init_that_exits_was_not_killed() {
    let exits = [
        (Exit::Code { code: 1 }, Cause::Exited, None),
        (
            Exit::Signal { signal: "SIGINT".to_owned(), core: false },
            Cause::Reboot { command: "halt".into() },
            None,
        ),
        (
            Exit::Signal { signal: "SIGKILL".to_owned(), core: false },
            Cause::Oom { victim: process(&[INIT, 1], CREATOR) },
            Some(Severity::Critical),
        ),
        (
            Exit::Signal { signal: "SIGSEGV".to_owned(), core: true },
            Cause::Fault { signal: "SIGSEGV".to_owned() },
            Some(Severity::Critical),
        ),
        (
            Exit::Signal { signal: "SIGKILL".to_owned(), core: false },
            Cause::Cascade { ns: NsInum(5) },
            Some(Severity::Info),
        ),
        (Exit::Signal { signal: "SIGKILL".to_owned(), core: false }, Cause::Unknown, Some(Severity::Warning)),
    ];
    for (exit, cause, expected) in exits {
        let mut host = TestHost::new();
        host.add(10.0, init_exit_event(exit, cause.clone()));
        let found = host.found(10.1).into_iter().find(|finding| finding.id == Diagnosis::InitKilled);
        assert_eq!(found.map(|finding| finding.severity), expected, "{cause:?}");
    }
}
