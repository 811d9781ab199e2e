//! Zombies that PID 1 does not reap.

use super::*;

#[test]
fn orphan_is_a_finding_until_its_init_reaps_it() {
    let mut host = TestHost::new();
    orphan(&mut host, 1, 10.0);
    assert_eq!(host.ids(10.5), [], "it may still reap");
    let finding = host.only_finding(11.5);
    assert_eq!(finding.id, Diagnosis::ZombiesNotReaped);
    assert_eq!(finding.process.as_ref().map(|reaper| reaper.pid), Some(HostPid(INIT)));
    let Fact::Zombies { count: 1, orphans: 1, ref forked_by, .. } = finding.evidence[0].fact else {
        panic!("{finding:#?}")
    };
    assert_eq!(forked_by[0].comm, "sh".into());
    host.add(12.0, reap(process(&[INIT + 3, 3], INIT)));
    assert_eq!(host.ids(20.0), []);
}

#[test]
fn advice_is_for_a_pid_1_that_does_not_reap() {
    let mut host = TestHost::new();
    orphan(&mut host, 1, 10.0);
    let text = |finding: Finding| {
        let mut text = Vec::new();
        crate::output::findings::text(&[finding], seconds(11.5), Default::default(), &mut text)
            .expect("write to memory");
        String::from_utf8(text).expect("UTF-8")
    };
    let mut finding = host.only_finding(11.5);
    assert!(text(finding.clone()).contains("\n  advice: run an init that reaps as PID 1: docker run --init"));
    finding.process = Some(process(&[INIT + 9, 9], INIT));
    assert!(!text(finding).contains("advice"), "another program must wait for its own children");
}

#[test]
fn zombie_must_be_confirmed_by_proc() {
    let mut host = TestHost::new();
    orphan(&mut host, 1, 10.0);
    assert_eq!(host.ids(11.5), [Diagnosis::ZombiesNotReaped], "a recording has nothing else");
    host.has_reader = true;
    assert_eq!(host.ids(11.5), [], "it was not read yet");
    let key = process(&[INIT + 3, 3], INIT).key();
    let activity = |state| {
        let ppid = HostPid(INIT);
        ProcessActivity { state, ppid, tracer: None, threads: 1, wchan: None, frozen: false }
    };
    host.readings.activity.insert(key, Ok(activity('Z')));
    assert_eq!(host.ids(11.5), [Diagnosis::ZombiesNotReaped]);
    host.readings.activity.insert(key, Ok(activity('S')));
    assert_eq!(host.ids(11.5), [], "another process has its PID");
    host.readings.activity.insert(key, Ok(activity('Z')));
    host.readings.gone.insert(key);
    assert_eq!(host.ids(11.5), [], "the event of its reaping is to come");
}

#[test]
fn slowly_reaping_init_has_more_time() {
    let mut host = TestHost::new();
    orphan(&mut host, 1, 10.0);
    orphan(&mut host, 2, 10.1);
    host.add(10.5, reap(process(&[INIT + 5, 5], INIT)));
    assert_eq!(host.ids(13.0), [], "it reaped another one meanwhile");
    assert_eq!(host.ids(21.0), [Diagnosis::ZombiesNotReaped]);
}

#[test]
fn few_zombies_of_own_children_are_no_finding() {
    let mut host = TestHost::new();
    for number in 2..6 {
        let child = process(&[INIT + number, number], INIT);
        host.add(10.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(10.0, exit(child));
    }
    assert_eq!(host.ids(60.0), [], "four");
    let child = process(&[INIT + 9, 9], INIT);
    host.add(61.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(61.0, exit(child));
    assert_eq!(host.ids(62.0), [], "the fifth is young");
    assert_eq!(host.ids(72.0), [Diagnosis::ZombiesNotReaped]);
}
