//! Limits that are nearly or wholly reached.

use super::*;

#[test]
fn a_limit_that_is_nearly_reached_is_found_where_it_is_set() {
    let mut story = Story::new();
    let mut chain = |limits: Vec<ReachedLimit>| {
        story.readings.limits.insert(NS, LimitChain { at: seconds(10.0), tasks: 0, limits, unread: 0 });
        story.found(10.0).iter().map(|finding| (finding.id, finding.severity)).collect::<Vec<_>>()
    };
    assert_eq!(chain(vec![limit("pids_cgroup", 79, 100)]), []);
    assert_eq!(
        chain(vec![limit("pid_max", 90, 100), limit("pids_cgroup", 1, 100)]),
        [],
        "that is the machine's"
    );
    let warning = (Diagnosis::PidExhaustion, Severity::Warning);
    assert_eq!(chain(vec![limit("pids_cgroup", 1, 500), limit("pids_cgroup", 80, 100)]), [warning]);
    let critical = (Diagnosis::PidExhaustion, Severity::Critical);
    assert_eq!(chain(vec![limit("pids_cgroup", 100, 100)]), [critical]);
}

#[test]
fn a_reached_limit_is_reported_once_while_short_processes_come_and_go() {
    let mut story = Story::new();
    let limits = vec![limit("pids_cgroup", 10, 10)];
    story.readings.limits =
        BTreeMap::from([(NS, LimitChain { at: seconds(2.0), limits, unread: 0, tasks: 0 })]);
    let (child, init) = (process(&[INIT + 1, 2], INIT), process(&[INIT, 1], CREATOR));
    story.add(3.0, fork(child.clone(), init)).add(3.0, exit(child.clone())).add(3.1, reap(child.clone()));
    let mut ledger = Ledger::default();
    let mut update = |story: &Story, at| ledger.update(story.found(at)).len();
    assert_eq!(update(&story, 4.0), 1);
    let child = process(&[INIT + 2, 3], INIT);
    story.add(5.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(5.1, exit(child));
    assert_eq!(update(&story, 5.2), 0, "it will be reaped");
    assert_eq!(update(&story, 6.5), 1, "one that stays takes a part of it");
    assert!(story.the(6.5).evidence.iter().any(|it| matches!(it.fact, Fact::Zombies { count: 1, .. })));
}

#[test]
fn a_refused_fork_names_its_limit() {
    let mut story = Story::new();
    story.add(10.0, refused(process(&[INIT, 1], CREATOR), "pids_cgroup", Some(limit("pids_cgroup", 8, 8))));
    story.add(10.0, refused(process(&[INIT, 1], CREATOR), "permission", None));
    let finding = story.the(10.1);
    assert_eq!((finding.id, finding.severity), (Diagnosis::PidExhaustion, Severity::Critical));
    assert!(
        finding
            .evidence
            .iter()
            .any(|it| matches!(&it.fact, Fact::Limit { limit, .. } if limit.value == Some(8)))
    );
}

#[test]
fn threads_that_fill_a_limit_are_found_with_their_process() {
    let mut story = Story::new();
    story.readings.limits.insert(
        NS,
        LimitChain { at: seconds(10.0), tasks: 0, limits: vec![limit("pids_cgroup", 60, 100)], unread: 0 },
    );
    let init = process(&[INIT, 1], CREATOR);
    let doing = |threads| Doing {
        state: 'S',
        ppid: HostPid(CREATOR),
        tracer: None,
        threads,
        wchan: None,
        frozen: false,
    };
    story.readings.doing = BTreeMap::from([(init.key(), Ok(doing(20)))]);
    assert_eq!(story.ids(10.0), []);
    story.readings.doing = BTreeMap::from([(init.key(), Ok(doing(50)))]);
    let finding = story.the(10.0);
    assert_eq!(
        (finding.id, finding.process.map(|it| it.pid)),
        (Diagnosis::ThreadGrowth, Some(HostPid(INIT)))
    );
}

#[test]
fn a_refused_namespace_is_found_where_a_limit_refused_it() {
    let failed = |reason: &'static str| Body::NamespaceCreateFailed {
        via: "unshare".into(),
        creator: process(&[70], 1),
        errno: "ENOSPC".to_owned(),
        reason: reason.into(),
        limit: None,
        set_tid: Vec::new(),
        taken: None,
        holder: None,
        capability: None,
        user_ns: None,
    };
    let mut story = Story::new();
    story.add(10.0, failed("permission"));
    assert_eq!(story.ids(10.1), []);
    story.add(10.0, failed("count_limit"));
    assert_eq!(story.ids(10.1), [Diagnosis::CreationRefused]);
    let mut story = Story::new();
    story.add(10.0, failed("pids_cgroup"));
    assert_eq!(story.ids(10.1), [Diagnosis::PidExhaustion], "a clone that may make no process");
}
