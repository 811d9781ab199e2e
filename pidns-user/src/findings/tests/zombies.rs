//! What a PID 1 leaves unreaped.

use super::*;

#[test]
fn an_init_that_leaves_an_orphan_is_found_and_one_that_reaps_it_is_not() {
    let mut story = Story::new();
    orphan(&mut story, 1, 10.0);
    assert_eq!(story.ids(10.5), [], "it may still reap");
    let finding = story.the(11.5);
    assert_eq!(finding.id, Diagnosis::ZombiesNotReaped);
    assert_eq!(finding.process.as_ref().map(|reaper| reaper.pid), Some(HostPid(INIT)));
    let Fact::Zombies { count: 1, orphans: 1, ref forked_by, .. } = finding.evidence[0].fact else {
        panic!("{finding:#?}")
    };
    assert_eq!(forked_by[0].comm, "sh".into());
    story.add(12.0, reap(process(&[INIT + 3, 3], INIT)));
    assert_eq!(story.ids(20.0), []);
}

#[test]
fn a_zombie_is_one_only_where_proc_has_it() {
    let mut story = Story::new();
    orphan(&mut story, 1, 10.0);
    assert_eq!(story.ids(11.5), [Diagnosis::ZombiesNotReaped], "a recording has nothing else");
    story.can_read = true;
    assert_eq!(story.ids(11.5), [], "it was not read yet");
    let key = process(&[INIT + 3, 3], INIT).key();
    let doing = |state| {
        let ppid = HostPid(INIT);
        Doing { state, ppid, tracer: None, threads: 1, wchan: None, frozen: false }
    };
    story.readings.doing.insert(key, Ok(doing('Z')));
    assert_eq!(story.ids(11.5), [Diagnosis::ZombiesNotReaped]);
    story.readings.doing.insert(key, Ok(doing('S')));
    assert_eq!(story.ids(11.5), [], "another process has its PID");
    story.readings.doing.insert(key, Ok(doing('Z')));
    story.readings.gone.insert(key);
    assert_eq!(story.ids(11.5), [], "the event of its reaping is to come");
}

#[test]
fn an_init_that_reaps_slowly_has_more_time() {
    let mut story = Story::new();
    orphan(&mut story, 1, 10.0);
    orphan(&mut story, 2, 10.1);
    story.add(10.5, reap(process(&[INIT + 5, 5], INIT)));
    assert_eq!(story.ids(13.0), [], "it reaped another one meanwhile");
    assert_eq!(story.ids(21.0), [Diagnosis::ZombiesNotReaped]);
}

#[test]
fn few_zombies_of_own_children_are_no_finding() {
    let mut story = Story::new();
    for number in 2..6 {
        let child = process(&[INIT + number, number], INIT);
        story.add(10.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(10.0, exit(child));
    }
    assert_eq!(story.ids(60.0), [], "four");
    let child = process(&[INIT + 9, 9], INIT);
    story.add(61.0, fork(child.clone(), process(&[INIT, 1], CREATOR))).add(61.0, exit(child));
    assert_eq!(story.ids(62.0), [], "the fifth is young");
    assert_eq!(story.ids(72.0), [Diagnosis::ZombiesNotReaped]);
}
