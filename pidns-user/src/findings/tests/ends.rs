//! How namespaces and their inits end.

use super::*;

#[test]
fn a_hanging_teardown_names_its_processes() {
    let mut story = Story::new();
    let member = process(&[INIT + 1, 2], CREATOR);
    story.add(5.0, fork(member.clone(), process(&[CREATOR], 1)));
    story
        .add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    story.add(10.0, exit(member.clone()));
    assert_eq!(story.ids(10.5), []);
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
    let finding = story.the(11.5);
    assert_eq!((finding.id, finding.since_boot_ns), (Diagnosis::TeardownBlocked, seconds(10.0)));
    assert_eq!(blocker(&finding), (member.pid, BlockedBy::Parent, Some(HostPid(CREATOR))));
    // /proc is newer.
    for (state, tracer, frozen, expected) in [
        ('Z', None, false, BlockedBy::Parent),
        ('Z', Some(1), false, BlockedBy::Tracer),
        ('t', Some(1), false, BlockedBy::Tracer),
        ('D', None, true, BlockedBy::Freezer),
        ('D', None, false, BlockedBy::Kernel),
        ('R', None, false, BlockedBy::Unknown),
    ] {
        let tracer = tracer.map(HostPid);
        let doing = Doing { state, ppid: HostPid(CREATOR), tracer, threads: 1, wchan: None, frozen };
        story.readings.doing = BTreeMap::from([(member.key(), Ok(doing))]);
        assert_eq!(blocker(&story.the(11.5)).1, expected, "{state} {tracer:?}");
    }
    story.readings.doing = BTreeMap::from([(member.key(), Err("no permission".to_owned()))]);
    let facts = story.the(11.5).evidence;
    assert!(matches!(&facts.last().expect("a fact").fact, Fact::Unseen { what } if what == "no permission"));
    story.add(12.0, reap(member));
    let torn_down = Body::NamespaceTeardown { ns: ns(NS, 1), killed: 0, nested: Vec::new(), duration_ns: 1 };
    story.add(12.0, torn_down);
    assert_eq!(story.ids(13.0), []);
}

#[test]
fn a_fork_into_a_dead_namespace_names_its_init_and_the_forker() {
    let mut story = Story::new();
    story.add(10.0, init_exit(Exit::Code { code: 3 }, Cause::Exited));
    story.add(11.0, refused(process(&[70], 1), "namespace_dead", None));
    let finding =
        story.found(11.1).into_iter().find(|it| it.id == Diagnosis::NamespaceDeadFork).expect("it is found");
    let facts: Vec<_> = finding.evidence.iter().map(|evidence| &evidence.fact).collect();
    assert!(matches!(facts[0], Fact::InitExit { exit: Exit::Code { code: 3 }, .. }), "{facts:#?}");
    assert!(matches!(facts[1], Fact::RefusedFork { process, .. } if process.pid == HostPid(70)));
    assert!(!story.ids(400.0).contains(&Diagnosis::NamespaceDeadFork), "it is long ago");
}

#[test]
fn an_ignored_sigterm_and_the_kill_that_follows_are_two_findings() {
    let signal = |signal: &str, from: &'static str| Body::InitSignal {
        ns: ns(NS, 1),
        process: process(&[INIT, 1], CREATOR),
        signal: signal.to_owned(),
        sender: Some(process(&[70], 1)),
        from: from.into(),
        fate: "ignored".into(),
    };
    let mut story = Story::new();
    story.add(10.0, signal("SIGCONT", "ancestor")).add(10.0, signal("SIGTERM", "kernel"));
    assert_eq!(story.ids(10.1), [], "neither is meant to end it");
    story.add(11.0, signal("SIGTERM", "ancestor"));
    let finding = story.the(11.1);
    assert_eq!((finding.id, finding.severity), (Diagnosis::InitIgnoredSignal, Severity::Warning));
    assert!(
        matches!(&finding.evidence[0].fact, Fact::Signal { sender: Some(sender), .. } if sender.pid == HostPid(70))
    );
    story.add(21.0, killed_by(70));
    story.add(22.0, signal("SIGTERM", "ancestor"));
    assert_eq!(story.ids(21.5), [Diagnosis::InitIgnoredSignal, Diagnosis::InitKilled]);
    let killed = story.found(21.5).remove(1);
    assert!(matches!(killed.evidence[0].fact, Fact::Signal { .. }), "what was tried before: {killed:#?}");
    assert_eq!(story.ids(400.0), []);
}

#[test]
fn an_init_that_ends_by_itself_was_not_killed() {
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
        let mut story = Story::new();
        story.add(10.0, init_exit(exit, cause.clone()));
        let found = story.found(10.1).into_iter().find(|finding| finding.id == Diagnosis::InitKilled);
        assert_eq!(found.map(|finding| finding.severity), expected, "{cause:?}");
    }
}
