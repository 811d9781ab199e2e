//! Leftover or misplaced namespaces, processes and proc mounts.

use super::*;

#[test]
fn leaked_namespace_names_its_holders() {
    let mut host = TestHost::new();
    host.add(10.0, init_exit_event(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    host.add(10.0, Body::NamespaceTeardown { ns: ns(NS, 1), killed: 0, nested: Vec::new(), duration_ns: 1 });
    host.add(10.0, reap(process(&[INIT, 1], CREATOR)));
    assert_eq!(host.ids(15.0), [], "it is not known what holds it");
    let holder = Holder::Fd { pid: HostPid(70), comm: None, tid: None, fd: 4 };
    let holders = Holders { at: seconds(10.0), holders: vec![holder.clone()], left_out: 0, unread: 0 };
    host.read_holders(holders);
    assert_eq!(host.ids(10.5), [], "a short while");
    let finding = host.only_finding(11.5);
    assert_eq!(
        (finding.id, &finding.evidence[0].fact),
        (Diagnosis::NamespaceLeaked, &Fact::Holder { holder: holder.clone() })
    );
    for (left_out, unread, expected) in
        [(0, 0, "kept by ?[70] fd 4"), (0, 1, "fd 4"), (3, 1, "fd 4, and 3 more")]
    {
        let holders = Holders { at: seconds(11.0), holders: vec![holder.clone()], left_out, unread };
        host.read_holders(holders);
        let text = crate::output::findings::summary(&host.only_finding(11.5));
        assert!(text.ends_with(expected), "{text}");
    }
    host.read_holders(Holders { at: seconds(11.0), unread: 1, ..Holders::default() });
    let text = crate::output::findings::summary(&host.only_finding(11.5));
    assert_eq!(text, "no process is in it; kept by an unknown holder");
    host.add(12.0, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
    assert_eq!(host.ids(13.0), []);
}

#[test]
fn leaked_namespace_is_found_without_a_hook_for_destruction() {
    let mut host = TestHost::new();
    host.add(0.0, stream_start(BTreeMap::new(), &["process.reap"]));
    host.add(10.0, init_exit_event(Exit::Code { code: 0 }, Cause::Exited));
    host.add(10.0, exit(process(&[INIT, 1], CREATOR))).add(10.0, reap(process(&[INIT, 1], CREATOR)));
    assert!(host.world.namespace(NS).is_none(), "its processes are gone");
    let holder = Holder::Fd { pid: HostPid(70), comm: None, tid: None, fd: 4 };
    let holders = Holders { at: seconds(11.0), holders: vec![holder], left_out: 0, unread: 0 };
    host.read_holders(holders);
    assert_eq!(host.ids(11.5), [Diagnosis::NamespaceLeaked]);
    host.read_holders(Holders { at: seconds(12.0), ..Holders::default() });
    assert_eq!(host.ids(12.5), []);
}

#[test]
fn namespace_held_by_a_link_is_leaked_although_its_pid_1_ended_before_the_stream() {
    let mut host = TestHost::new();
    let held = SnapshotNamespace { parent: Some(INITIAL_NS), ..SnapshotNamespace::bare(NsInum(7), 1) };
    let holder = Holder::PidForChildren { pid: HostPid(CREATOR), comm: None };
    let (ns, holders) = (held, vec![holder.clone()]);
    host.add(5.0, Body::SnapshotNamespace { ns, holders, holders_left_out: 0 });
    assert_eq!(host.ids(5.5), [], "its first process may be reported next");
    let finding = host.only_finding(6.5);
    assert_eq!(
        (finding.id, finding.ns.map(|ns| ns.inum), &finding.evidence[0].fact),
        (Diagnosis::NamespaceLeaked, Some(NsInum(7)), &Fact::Holder { holder })
    );
}

#[test]
fn proc_without_a_process_keeps_a_namespace_that_is_unknown() {
    let mut host = TestHost::new();
    let mount = ProcMount { path: "/mnt".into(), mount_ns: 9, pid: HostPid(CREATOR) };
    let read = |at, mounts: &[&ProcMount]| Readings {
        empty_procs: Some(mounts.iter().map(|&mount| (mount.clone(), seconds(at))).collect()),
        ..Readings::default()
    };
    host.readings.merge(read(10.0, &[&mount]));
    assert_eq!(host.ids(10.5), [], "a container may be ending");
    host.readings.merge(read(11.5, &[&mount]));
    let finding = host.only_finding(11.6);
    assert_eq!(
        (finding.id, finding.ns, finding.since_boot_ns),
        (Diagnosis::NamespaceLeaked, None, seconds(10.0))
    );
    assert_eq!(finding.evidence[0].fact, Fact::Holder { holder: Holder::ProcMount(mount.clone()) });
    host.readings.merge(Readings { unmounted: [mount].into(), ..Readings::default() });
    assert_eq!(host.ids(12.0), []);
}

#[test]
fn joined_process_is_a_leftover_unless_its_shim_keeps_it() {
    let mut host = TestHost::new();
    let runtime = process(&[60], CREATOR);
    let joined = process(&[INIT + 1, 2], 60);
    host.add(5.0, fork(runtime.clone(), process(&[CREATOR], 1)));
    host.add(5.0, fork(joined.clone(), runtime.clone()));
    assert_eq!(host.ids(8.0), [], "its session is there");
    host.add(10.0, exit(runtime.clone())).add(10.0, reap(runtime));
    let with_parent = |host: &mut TestHost, pid: u32| {
        let activity = ProcessActivity {
            state: 'S',
            ppid: HostPid(pid),
            tracer: None,
            threads: 1,
            wchan: None,
            frozen: false,
        };
        host.readings.activity = BTreeMap::from([(joined.key(), Ok(activity))]);
    };
    with_parent(&mut host, CREATOR);
    assert_eq!(host.ids(12.0), [], "the process that keeps PID 1 has it");
    with_parent(&mut host, 1);
    let finding = host.only_finding(12.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::JoinedLeftover, Severity::Warning));
    with_parent(&mut host, CREATOR);
    let old = host.only_finding(4_000.0);
    assert_eq!((old.id, old.severity), (Diagnosis::JoinedLeftover, Severity::Info), "after an hour");
}

#[test]
fn age_shows_nothing_about_a_process_with_a_client_or_about_a_main_process() {
    let story_of = |parent: &'static str, container: Option<&'static str>| {
        let mut host = TestHost::new();
        let id = |id: &str| Container { id: Some(id.into()), ..Container::default() };
        let container = container.map(|name| Arc::new(id(name)));
        let parent = Process { comm: parent.into(), ..process(&[60], CREATOR) };
        let joined = Process { container, ..process(&[INIT + 1, 2], 60) };
        host.add(5.0, fork(parent.clone(), process(&[CREATOR], 1)));
        host.add(5.0, fork(joined.clone(), parent));
        (host, joined)
    };
    let left = |host: &TestHost| {
        let found = host.found(4_000.0).into_iter().filter(|found| found.id == Diagnosis::JoinedLeftover);
        found.map(|found| found.severity).collect::<Vec<_>>()
    };
    let (mut host, _) = story_of("nsenter", None);
    assert_eq!(left(&host), [], "its client lives");
    let client = process(&[60], CREATOR);
    host.add(3_000.0, exit(client.clone())).add(3_000.0, reap(client));
    assert_eq!(left(&host), [Severity::Info], "nothing shows which process has adopted it");
    assert_eq!(left(&story_of("conmon", None).0), [Severity::Info], "conmon stays after the client");
    assert_eq!(left(&story_of("conmon", Some("side")).0), [], "it is the main process of a container");
    let (mut host, joined) = story_of("conmon", Some("side"));
    let child = Process { container: joined.container.clone(), ..process(&[INIT + 2, 3], 60) };
    host.add(6.0, fork(child, Process { comm: "conmon".into(), ..process(&[60], CREATOR) }));
    assert_eq!(left(&host), [Severity::Info], "an exec session in that container");
}

/// A process of a snapshot, which joined its namespace.
fn seen_in_a_snapshot(process: Process) -> Body {
    let mut body = Body::snapshot_process(process, 'S', 1);
    if let Body::SnapshotProcess { threads_live, joined, .. } = &mut body {
        (*threads_live, *joined) = (Some(1), Some(true));
    }
    body
}

#[test]
fn snapshots_alone_show_that_a_process_was_left() {
    let mut host = TestHost::new();
    host.add(4.0, fork(process(&[60], 1), process(&[1], 0)));
    host.follow_namespaces(5.0).add(5.0, seen_in_a_snapshot(process(&[INIT + 1, 2], 60)));
    assert_eq!(host.ids(6.0), [], "its session is there");
    host.follow_namespaces(20.0).add(20.0, seen_in_a_snapshot(process(&[INIT + 1, 2], 1)));
    let finding = host.only_finding(21.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::JoinedLeftover, Severity::Warning));
}

#[test]
fn helper_that_outlives_its_namespace_is_found() {
    let mut host = TestHost::new();
    let shim = Process { comm: "containerd-shim".into(), ..process(&[CREATOR], 1) };
    host.add(
        3.0,
        Body::ProcessExec { process: shim, filename: "x".into(), args: None, args_truncated: false },
    );
    host.add(10.0, init_exit_event(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    host.add(10.0, reap(process(&[INIT, 1], CREATOR)));
    host.add(10.0, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
    assert_eq!(host.ids(15.0), []);
    assert_eq!(host.only_finding(21.0).id, Diagnosis::CreatorLeftover);
    // The model may have it from a snapshot, and it has ended since.
    host.has_reader = true;
    assert_eq!(host.ids(21.0), [], "it was not read yet");
    let key = process(&[CREATOR], 1).key();
    let request = host.with_input(21.0, |input| {
        let mut request = ReadRequest::default();
        creator_leftover::add_requests(input, &mut request);
        request.activity
    });
    assert_eq!(request, [key].into());
    host.readings.gone.insert(key);
    assert_eq!(host.ids(21.0), []);
    host.readings.gone.clear();
    for (state, expected) in [('S', vec![Diagnosis::CreatorLeftover]), ('Z', Vec::new())] {
        let (ppid, tracer, wchan) = (HostPid(1), None, None);
        let activity = ProcessActivity { state, ppid, tracer, threads: 1, wchan, frozen: false };
        host.readings.activity.insert(key, Ok(activity));
        assert_eq!(host.ids(21.0), expected, "{state}");
    }
    host.has_reader = false;
    host.readings.activity.clear();
    host.add(22.0, exit(process(&[CREATOR], 1)));
    assert_eq!(host.ids(23.0), []);
}

#[test]
fn proc_mismatch_is_found_only_on_request() {
    let mut host = TestHost::new();
    let shown = Some(ProcShows { ns: INITIAL_NS, path: "/proc".into() });
    host.readings.proc = BTreeMap::from([(process(&[INIT, 1], CREATOR).key(), shown)]);
    assert_eq!(host.ids(10.0), []);
    host.targets.insert(NS);
    assert_eq!(host.ids(10.0), [Diagnosis::ProcMismatch]);
}

#[test]
fn only_the_innermost_namespace_of_a_deep_nest_is_reported() {
    let mut host = TestHost::new();
    for level in 26..=29 {
        let parent = if level == 26 { NS } else { NsInum(level - 1) };
        let inner = Namespace { parent: Some(parent), ..ns(NsInum(level), level) };
        let init = Process { ns: NsInum(level), ..process(&[200 + level, 1], INIT) };
        host.add(5.0, Body::NamespaceInit { ns: inner, process: init.clone() });
        host.add(5.0, fork(init, process(&[INIT, 1], CREATOR)));
    }
    let finding = host.only_finding(6.0);
    assert_eq!((finding.id, finding.ns.map(|ns| ns.level)), (Diagnosis::NearDepthLimit, Some(29)));
}

#[test]
fn oom_killed_member_is_found_while_its_init_is_alive() {
    let mut host = TestHost::new();
    let member = process(&[INIT + 1, 2], INIT);
    host.add(5.0, fork(member.clone(), process(&[INIT, 1], CREATOR)));
    host.add(6.0, oom_killed(member.clone())).add(6.0, reap(member));
    assert_eq!(host.ids(6.1), [Diagnosis::MemberOomKilled]);
    host.add(7.0, init_exit_event(Exit::Code { code: 0 }, Cause::Exited));
    assert_eq!(host.ids(7.1), [], "then its runtime restarts it");
}

#[test]
fn container_in_the_hosts_namespace_is_found_after_exec_and_not_during_setup() {
    let mut host = TestHost::new();
    let (runtime, id) = (Some(Runtime::Docker), Some("web".into()));
    let container = Some(Arc::new(Container { runtime, id, ..Container::default() }));
    let called = |pid: u32, comm: &str, ppid: u32| {
        let container = container.clone();
        Process { comm: comm.into(), container, ..process(&[pid], ppid) }
    };
    let exec =
        |process| Body::ProcessExec { process, filename: "x".into(), args: None, args_truncated: false };
    let (runc, main) = (called(200, "runc:[0:PARENT]", CREATOR), called(201, "runc:[2:INIT]", 200));
    host.add(5.0, fork(runc.clone(), process(&[CREATOR], 1))).add(5.1, fork(main, runc.clone()));
    host.add(5.2, exit(runc.clone())).add(5.2, reap(runc));
    host.add(5.3, exec(called(201, "sleep", CREATOR)));
    let finding = host.only_finding(10.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::NoCascade, Severity::Info), "it has not ended");
    assert_eq!(finding.process.map(|main| main.pid), Some(HostPid(201)));
    let child = |pid| called(pid, "worker", 201);
    for pid in 300..320 {
        host.add(11.0, fork(child(pid), called(201, "sleep", CREATOR)));
    }
    host.add(12.0, exit(called(201, "sleep", CREATOR))).add(12.0, reap(called(201, "sleep", CREATOR)));
    let finding = host.only_finding(14.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::NoCascade, Severity::Warning));
    let text = crate::output::findings::summary(&finding);
    assert!(text.ends_with("has ended, and 20 processes of its container live on"), "{text}");
}

#[test]
fn unsharing_process_is_found_although_no_snapshot_shows_its_namespace() {
    let mut host = TestHost::new();
    let inner = Namespace { born_boot_ns: Some(seconds(5.0)), ..ns(NsInum(7), 1) };
    let creator = process(&[CREATOR], 1);
    host.add(5.0, Body::NamespaceCreate { ns: inner, via: Some("unshare".into()), creator });
    host.follow_namespaces(8.0).add(8.0, Body::StreamResync { added: 0, removed: 0, changed: 0 });
    for (inum, level) in [(INITIAL_NS, 0), (NS, 1)] {
        let ns = SnapshotNamespace::bare(inum, level);
        host.add(8.0, Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 });
    }
    for process in [process(&[1], 0), process(&[CREATOR], 1), process(&[INIT, 1], CREATOR)] {
        host.add(8.0, seen_in_a_snapshot(process));
    }
    host.world.settle();
    assert_eq!(host.ids(9.0), [Diagnosis::ChildrenElsewhere]);
}

#[test]
fn unsharing_process_is_found_until_it_forks() {
    let mut host = TestHost::new();
    let (inner, unsharer) =
        (Namespace { born_boot_ns: Some(seconds(5.0)), ..ns(NsInum(7), 1) }, process(&[CREATOR], 1));
    host.add(
        5.0,
        Body::NamespaceCreate { ns: inner.clone(), via: Some("unshare".into()), creator: unsharer.clone() },
    );
    assert_eq!(host.ids(5.5), []);
    let finding = host.only_finding(6.5);
    assert_eq!((finding.id, finding.severity), (Diagnosis::ChildrenElsewhere, Severity::Info));
    let init = Process { ns: NsInum(7), start_boot_ns: seconds(7.0), ..process(&[80, 1], CREATOR) };
    host.add(7.0, Body::NamespaceInit { ns: inner, process: init.clone() });
    host.add(7.0, fork(init, unsharer));
    assert_eq!(host.ids(9.0), []);
}
