//! What stays, or is out of place: namespaces, processes, mounts of proc.

use super::*;

#[test]
fn a_held_namespace_names_its_holders() {
    let mut story = Story::new();
    story
        .add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    story.add(10.0, Body::NamespaceTeardown { ns: ns(NS, 1), killed: 0, nested: Vec::new(), duration_ns: 1 });
    story.add(10.0, reap(process(&[INIT, 1], CREATOR)));
    assert_eq!(story.ids(15.0), [], "it is not known what holds it");
    let holder = Holder::Fd { pid: HostPid(70), comm: None, tid: None, fd: 4 };
    let holders = Holders { at: seconds(10.0), holders: vec![holder.clone()], left_out: 0, unread: 0 };
    story.readings.holders.insert(NS, holders);
    assert_eq!(story.ids(10.5), [], "a short while");
    let finding = story.the(11.5);
    assert_eq!(
        (finding.id, &finding.evidence[0].fact),
        (Diagnosis::NamespaceLeaked, &Fact::Holder { holder })
    );
    story.add(12.0, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
    assert_eq!(story.ids(13.0), []);
}

#[test]
fn a_namespace_that_is_held_after_its_end_is_found_where_no_hook_sees_its_destruction() {
    let mut story = Story::new();
    story.add(0.0, stream_start(BTreeMap::new(), &["process.reap"]));
    story.add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited));
    story.add(10.0, exit(process(&[INIT, 1], CREATOR))).add(10.0, reap(process(&[INIT, 1], CREATOR)));
    assert!(story.world.namespace(NS).is_none(), "its processes are gone");
    let holder = Holder::Fd { pid: HostPid(70), comm: None, tid: None, fd: 4 };
    let holders = Holders { at: seconds(11.0), holders: vec![holder], left_out: 0, unread: 0 };
    story.readings.holders.insert(NS, holders);
    assert_eq!(story.ids(11.5), [Diagnosis::NamespaceLeaked]);
    story.readings.holders.insert(NS, Holders { at: seconds(12.0), ..Holders::default() });
    assert_eq!(story.ids(12.5), []);
}

#[test]
fn a_process_that_lost_its_session_is_left_over_and_one_that_its_shim_keeps_is_not() {
    let mut story = Story::new();
    let runtime = process(&[60], CREATOR);
    let joined = process(&[INIT + 1, 2], 60);
    story.add(5.0, fork(runtime.clone(), process(&[CREATOR], 1)));
    story.add(5.0, fork(joined.clone(), runtime.clone()));
    assert_eq!(story.ids(8.0), [], "its session is there");
    story.add(10.0, exit(runtime.clone())).add(10.0, reap(runtime));
    let with_parent = |story: &mut Story, pid: u32| {
        let doing =
            Doing { state: 'S', ppid: HostPid(pid), tracer: None, threads: 1, wchan: None, frozen: false };
        story.readings.doing = BTreeMap::from([(joined.key(), Ok(doing))]);
    };
    with_parent(&mut story, CREATOR);
    assert_eq!(story.ids(12.0), [], "the process that keeps PID 1 has it");
    with_parent(&mut story, 1);
    let finding = story.the(12.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::JoinedLeftover, Severity::Warning));
    with_parent(&mut story, CREATOR);
    let old = story.the(4_000.0);
    assert_eq!((old.id, old.severity), (Diagnosis::JoinedLeftover, Severity::Info), "after an hour");
}

#[test]
fn a_helper_that_outlives_its_namespace_is_found() {
    let mut story = Story::new();
    let shim = Process { comm: "containerd-shim".into(), ..process(&[CREATOR], 1) };
    story.add(
        3.0,
        Body::ProcessExec { process: shim, filename: "x".into(), args: None, args_truncated: false },
    );
    story
        .add(10.0, init_exit(Exit::Code { code: 0 }, Cause::Exited))
        .add(10.0, exit(process(&[INIT, 1], CREATOR)));
    story.add(10.0, reap(process(&[INIT, 1], CREATOR)));
    story.add(10.0, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
    assert_eq!(story.ids(15.0), []);
    assert_eq!(story.the(21.0).id, Diagnosis::CreatorLeftover);
    story.add(22.0, exit(process(&[CREATOR], 1)));
    assert_eq!(story.ids(23.0), []);
}

#[test]
fn a_proc_of_another_namespace_is_read_where_it_is_asked_about() {
    let mut story = Story::new();
    let shown = Some(ProcShows { ns: INITIAL_NS, path: "/proc".into() });
    story.readings.proc = BTreeMap::from([(process(&[INIT, 1], CREATOR).key(), shown)]);
    assert_eq!(story.ids(10.0), []);
    story.asked.insert(NS);
    assert_eq!(story.ids(10.0), [Diagnosis::ProcMismatch]);
}

#[test]
fn the_innermost_namespace_speaks_for_a_deep_nest() {
    let mut story = Story::new();
    for level in 26..=29 {
        let parent = if level == 26 { NS } else { NsInum(level - 1) };
        let inner = Namespace { parent: Some(parent), ..ns(NsInum(level), level) };
        let init = Process { ns: NsInum(level), ..process(&[200 + level, 1], INIT) };
        story.add(5.0, Body::NamespaceInit { ns: inner, process: init.clone() });
        story.add(5.0, fork(init, process(&[INIT, 1], CREATOR)));
    }
    let finding = story.the(6.0);
    assert_eq!((finding.id, finding.ns.map(|ns| ns.level)), (Diagnosis::NearDepthLimit, Some(29)));
}

#[test]
fn a_member_that_memory_ran_out_for_is_found_while_its_init_lives() {
    let mut story = Story::new();
    let member = process(&[INIT + 1, 2], INIT);
    story.add(5.0, fork(member.clone(), process(&[INIT, 1], CREATOR)));
    let Body::ProcessExit { process, exit, ran_ns, threads, cascade, orphaned, .. } = exit(member.clone())
    else {
        unreachable!("it is an exit")
    };
    let cause = Some(Cause::Oom { victim: member.clone() });
    story.add(6.0, Body::ProcessExit { process, exit, ran_ns, threads, cause, cascade, orphaned });
    story.add(6.0, reap(member));
    assert_eq!(story.ids(6.1), [Diagnosis::MemberOomKilled]);
    story.add(7.0, init_exit(Exit::Code { code: 0 }, Cause::Exited));
    assert_eq!(story.ids(7.1), [], "then its runtime restarts it");
}

#[test]
fn a_container_of_the_hosts_namespace_is_named_after_exec_and_not_during_setup() {
    let mut story = Story::new();
    let (runtime, id) = (Some(Runtime::Docker), Some("web".into()));
    let container = Some(Arc::new(Container { runtime, id, ..Container::default() }));
    let called = |pid: u32, comm: &str, ppid: u32| {
        let container = container.clone();
        Process { comm: comm.into(), container, ..process(&[pid], ppid) }
    };
    let exec =
        |process| Body::ProcessExec { process, filename: "x".into(), args: None, args_truncated: false };
    let (runc, main) = (called(200, "runc:[0:PARENT]", CREATOR), called(201, "runc:[2:INIT]", 200));
    story.add(5.0, fork(runc.clone(), process(&[CREATOR], 1))).add(5.1, fork(main, runc.clone()));
    story.add(5.2, exit(runc.clone())).add(5.2, reap(runc));
    story.add(5.3, exec(called(201, "sleep", CREATOR)));
    let finding = story.the(10.0);
    assert_eq!((finding.id, finding.severity), (Diagnosis::NoCascade, Severity::Info), "it has not ended");
    assert_eq!(finding.process.map(|main| main.pid), Some(HostPid(201)));
}

#[test]
fn a_process_that_unshared_and_forked_none_is_found_and_one_that_forked_is_not() {
    let mut story = Story::new();
    let (inner, unsharer) =
        (Namespace { born_boot_ns: Some(seconds(5.0)), ..ns(NsInum(7), 1) }, process(&[CREATOR], 1));
    story.add(
        5.0,
        Body::NamespaceCreate { ns: inner.clone(), via: Some("unshare".into()), creator: unsharer.clone() },
    );
    assert_eq!(story.ids(5.5), []);
    let finding = story.the(6.5);
    assert_eq!((finding.id, finding.severity), (Diagnosis::ChildrenElsewhere, Severity::Info));
    let init = Process { ns: NsInum(7), start_boot_ns: seconds(7.0), ..process(&[80, 1], CREATOR) };
    story.add(7.0, Body::NamespaceInit { ns: inner, process: init.clone() });
    story.add(7.0, fork(init, unsharer));
    assert_eq!(story.ids(9.0), []);
}
