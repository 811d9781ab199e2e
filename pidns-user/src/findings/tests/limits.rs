//! Tests of findings about limits that are reached or nearly reached.

use super::*;

#[test]
fn nearly_reached_limit_of_a_namespace_is_a_finding() {
    let mut host = TestHost::new();
    let mut found_with = |limits: Vec<ReachedLimit>| {
        host.readings.limits.insert(NS, chain(10.0, limits));
        host.found(10.0).iter().map(|finding| (finding.id, finding.severity)).collect::<Vec<_>>()
    };
    assert_eq!(found_with(vec![limit("pids_cgroup", 79, 100)]), []);
    assert_eq!(
        found_with(vec![limit("pid_max", 90, 100), limit("pids_cgroup", 1, 100)]),
        [],
        "pid_max is a limit of the whole machine"
    );
    let warning = (Diagnosis::PidExhaustion, Severity::Warning);
    assert_eq!(found_with(vec![limit("pids_cgroup", 1, 500), limit("pids_cgroup", 80, 100)]), [warning]);
    let critical = (Diagnosis::PidExhaustion, Severity::Critical);
    assert_eq!(found_with(vec![limit("pids_cgroup", 100, 100)]), [critical]);
}

#[test]
fn reached_limit_is_reported_once_despite_short_processes() {
    let mut host = TestHost::new();
    let limits = vec![limit("pids_cgroup", 10, 10)];
    host.readings.limits = BTreeMap::from([(NS, chain(2.0, limits))]);
    let (child, init) = (process(&[INIT + 1, 2], INIT), process(&[INIT, 1], CREATOR));
    host.add(3.0, fork(child.clone(), init)).add(3.0, exit(child.clone())).add(3.1, reap(child.clone()));
    let mut ledger = Ledger::default();
    let mut update = |host: &TestHost, at| ledger.update(host.found(at)).len();
    assert_eq!(update(&host, 4.0), 1);
    let child = process(&[INIT + 2, 3], INIT);
    host.add(5.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(5.1, exit(child));
    assert_eq!(update(&host, 5.2), 0, "a new zombie will probably be reaped soon");
    assert_eq!(update(&host, 6.5), 1, "a zombie that stays uses up the limit");
    assert!(
        host.only_finding(6.5).evidence.iter().any(|it| matches!(it.fact, Fact::Zombies { count: 1, .. }))
    );
}

#[test]
fn refused_fork_names_its_limit() {
    let mut host = TestHost::new();
    host.add(10.0, refused(process(&[INIT, 1], CREATOR), "pids_cgroup", Some(limit("pids_cgroup", 8, 8))));
    host.add(10.0, refused(process(&[INIT, 1], CREATOR), "permission", None));
    let finding = host.only_finding(10.1);
    assert_eq!((finding.id, finding.severity), (Diagnosis::PidExhaustion, Severity::Critical));
    assert!(
        finding
            .evidence
            .iter()
            .any(|it| matches!(&it.fact, Fact::Limit { limit, .. } if limit.value == Some(8)))
    );
}

#[test]
fn thread_growth_names_the_process_with_the_threads() {
    let mut host = TestHost::new();
    host.readings.limits.insert(NS, chain(10.0, vec![limit("pids_cgroup", 60, 100)]));
    let init = process(&[INIT, 1], CREATOR);
    let activity = |threads| ProcessActivity {
        state: 'S',
        ppid: HostPid(CREATOR),
        tracer: None,
        threads,
        wchan: None,
        frozen: false,
    };
    host.readings.activity = BTreeMap::from([(init.key(), Ok(activity(20)))]);
    assert_eq!(host.ids(10.0), []);
    host.readings.activity = BTreeMap::from([(init.key(), Ok(activity(50)))]);
    let finding = host.only_finding(10.0);
    assert_eq!(
        (finding.id, finding.process.map(|it| it.pid)),
        (Diagnosis::ThreadGrowth, Some(HostPid(INIT)))
    );
}

#[test]
fn threads_of_all_processes_are_read_in_turn() {
    let mut host = TestHost::new();
    for pid in INIT + 1..INIT + 200 {
        let child = process(&[pid, pid], INIT);
        host.add(5.0, fork(child, process(&[INIT, 1], CREATOR)));
    }
    let limits = vec![limit("pids_cgroup", 300, 500)];
    host.readings.limits.insert(NS, chain(10.0, limits));
    let request = |host: &TestHost, at| {
        host.with_input(at, |input| {
            let mut request = ReadRequest::default();
            thread_growth::add_requests(input, &mut request);
            request.activity
        })
    };
    let mut all = BTreeSet::new();
    for at in 10..14 {
        let some = request(&host, f64::from(at));
        assert!(some.len() <= 65, "{}", some.len());
        all.extend(some);
    }
    assert_eq!(all.len(), 200, "in four seconds");
    // The largest one is read each time.
    let large = process(&[INIT + 77, INIT + 77], INIT).key();
    let (tracer, wchan) = (None, None);
    let activity =
        ProcessActivity { state: 'S', ppid: HostPid(INIT), tracer, threads: 90, wchan, frozen: false };
    host.readings.activity.insert(large, Ok(activity));
    assert!((10..14).all(|at| request(&host, f64::from(at)).contains(&large)));
}

#[test]
fn growth_of_a_limit_is_measured_and_the_growing_programs_are_named() {
    let mut host = TestHost::new();
    let used = |host: &mut TestHost, at: f64, current| {
        let limits = BTreeMap::from([(NS, chain(at, vec![limit("pids_cgroup", current, 100)]))]);
        host.readings.merge(Readings { at: seconds(at), limits, ..Readings::default() });
    };
    used(&mut host, 100.0, 60);
    let growth = |host: &TestHost, at| {
        let growths = host.found(at).into_iter().flat_map(|finding| finding.evidence);
        growths
            .filter_map(|evidence| match evidence.fact {
                Fact::Limit { growth_per_minute, seconds_left, .. } => {
                    Some((growth_per_minute, seconds_left))
                }
                _ => None,
            })
            .next()
    };
    assert_eq!(growth(&host, 100.0), None, "60 % and no growth is no finding");
    // 10 more threads, or processes in another namespace of the cgroup: no event of this namespace shows them.
    used(&mut host, 105.0, 65);
    assert_eq!(growth(&host, 105.0), None, "five seconds are too short to know");
    used(&mut host, 120.0, 70);
    assert_eq!(growth(&host, 120.0), Some((Some(30), Some(60))));
    let start_boot_ns = seconds(110.0);
    for (pid, comm) in [(INIT + 1, "worker"), (INIT + 2, "worker"), (INIT + 3, "cron")] {
        let child = Process { comm: comm.into(), start_boot_ns, ..process(&[pid, pid], INIT) };
        host.add(110.0, fork(child, process(&[INIT, 1], CREATOR)));
    }
    let found = host.found(120.0).remove(0);
    let young = found.evidence.into_iter().find_map(|evidence| match evidence.fact {
        Fact::Young { count, names, forked_by } => Some((count, names[0].clone(), forked_by[0].clone())),
        _ => None,
    });
    let name = |comm: &str, count| NameCount { comm: comm.into(), count };
    assert_eq!(young, Some((3, name("worker", 2), name("init", 3))));
    for at in (130..=200).step_by(10) {
        used(&mut host, f64::from(at), 70);
    }
    assert_eq!(growth(&host, 200.0), None, "the same for a minute");
}

fn creation_failed(reason: &'static str, limit: Option<ReachedLimit>) -> Body {
    Body::NamespaceCreateFailed {
        via: "unshare".into(),
        creator: process(&[70], 1),
        errno: "ENOSPC".to_owned(),
        reason: reason.into(),
        limit,
        set_tid: Vec::new(),
        taken: None,
        holder: None,
        capability: None,
        user_ns: None,
    }
}

#[test]
fn refused_creation_names_the_limit_that_was_reached_and_who_uses_it() {
    for (kind, command, other) in [
        ("max_pid_namespaces", "sysctl user.max_pid_namespaces; lsns -t pid", "max_user_namespaces"),
        ("max_user_namespaces", "sysctl user.max_user_namespaces; lsns -t user", "max_pid_namespaces"),
    ] {
        let mut host = TestHost::new();
        let reached = ReachedLimit { user_ns: Some(4026531837), ..limit(kind, 1, 1) };
        host.add(10.0, creation_failed("count_limit", Some(reached)));
        let finding = host.only_finding(10.1);
        assert!(finding.next.iter().any(|next| next == command), "{:?}", finding.next);
        let text = crate::output::findings::summary(&finding);
        assert!(text.contains(kind) && !text.contains(other), "{text}");
        let used = finding.evidence.iter().find_map(|evidence| match &evidence.fact {
            Fact::Namespaces { count, without_process, names, .. } => {
                Some((*count, *without_process, names[0].comm.clone()))
            }
            _ => None,
        });
        let expected = (kind == "max_pid_namespaces").then(|| (1, 0, "init".into()));
        assert_eq!(used, expected, "{kind}");
    }
}

#[test]
fn refused_creation_is_a_finding_only_if_a_limit_is_the_reason() {
    let failed = |reason| creation_failed(reason, None);
    let mut host = TestHost::new();
    host.add(10.0, failed("permission"));
    assert_eq!(host.ids(10.1), []);
    host.add(10.0, failed("count_limit"));
    assert_eq!(host.ids(10.1), [Diagnosis::CreationRefused]);
    let mut host = TestHost::new();
    host.add(10.0, failed("pids_cgroup"));
    assert_eq!(host.ids(10.1), [Diagnosis::PidExhaustion], "the pids cgroup refused the process");
}

#[test]
fn pids_that_the_kernel_does_not_use_again_do_not_count_as_free() {
    let mut host = TestHost::new();
    let mut found_with = |value, current| {
        let ns = SnapshotNamespace {
            pid_max: Some(PidMax { value, current }),
            born_boot_ns: Some(BootNs(u64::from(INIT))),
            ..SnapshotNamespace::of(&ns(NS, 1))
        };
        host.add(9.0, Body::SnapshotNamespace { ns, holders: Vec::new(), holders_left_out: 0 });
        host.found(10.0).iter().map(|finding| (finding.id, finding.severity)).collect::<Vec<_>>()
    };
    assert_eq!(found_with(1_000, 500), []);
    assert_eq!(found_with(1_000, 560), [(Diagnosis::PidExhaustion, Severity::Warning)]);
    assert_eq!(found_with(1_000, 700), [(Diagnosis::PidExhaustion, Severity::Critical)]);
}
