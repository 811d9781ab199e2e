//! The ledger, recordings and readings.

use super::*;

#[test]
fn a_ledger_reports_each_change_once() {
    let mut story = Story::new();
    let mut ledger = Ledger::default();
    orphan(&mut story, 1, 10.0);
    let mut update = |story: &Story, at| -> Vec<FindingState> {
        ledger.update(story.found(at)).into_iter().map(|(state, _)| state).collect()
    };
    assert_eq!(update(&story, 11.5), [FindingState::Opened]);
    assert_eq!(update(&story, 12.5), [], "only its age is another");
    orphan(&mut story, 2, 20.0);
    assert_eq!(update(&story, 21.5), [FindingState::Updated], "twice as many");
    orphan(&mut story, 3, 30.0);
    assert_eq!(update(&story, 31.5), [], "half as many more");
    for number in [3, 5, 7] {
        story.add(32.0, reap(process(&[INIT + number, number], INIT)));
    }
    assert_eq!(update(&story, 33.0), [FindingState::Closed]);
}

#[test]
fn a_recording_with_findings_is_believed() {
    let finding = {
        let mut story = Story::new();
        orphan(&mut story, 1, 10.0);
        story.the(11.5)
    };
    let mut watch = FindingsWatch::recorded(Thresholds::default());
    let world = World::default();
    let hear = |watch: &mut FindingsWatch, body| {
        let event = Event { seq: 1, time: Timestamp::UNIX_EPOCH, boot_ns: seconds(12.0), exact: true, body };
        watch.update(&Update { event: &event, container: None, changes: &[], world: Some(&world) });
    };
    let start = |events: Vec<crate::event::Token>| Body::StreamStart {
        version: "0".into(),
        host: None,
        kernel: None,
        boot_time: String::new(),
        hooked_boot_ns: None,
        hooks: BTreeMap::new(),
        filter: StreamFilter { events, ..StreamFilter::default() },
    };
    let finding_event = |state| Body::Finding { state, finding: Box::new(finding.clone()) };
    hear(&mut watch, start(vec!["finding".into()]));
    hear(&mut watch, finding_event(FindingState::Opened));
    watch.detect_at(&world, seconds(60.0));
    assert_eq!(watch.open().collect::<Vec<_>>(), [&finding]);
    hear(&mut watch, finding_event(FindingState::Closed));
    assert_eq!(watch.open().count(), 0);
    hear(&mut watch, start(Vec::new()));
    hear(&mut watch, finding_event(FindingState::Opened));
    assert_eq!(watch.open().count(), 0, "nothing was detected when it was recorded");
}

/// Reads nothing, and notes what it is asked.
struct Asked(Arc<Mutex<Vec<Wanted>>>);

impl Reader for Asked {
    fn ask(&mut self, wanted: Wanted) {
        self.0.lock().expect("no thread but this").push(wanted);
    }

    fn take(&mut self) -> Option<Readings> {
        // A thread has as many threads as are half of a limit, which is read anew while that is so.
        let last = self.0.lock().expect("no thread but this").last().cloned()?;
        let doing = |key| (key, Err("not read".to_owned()));
        let limits = vec![limit("pids_cgroup", 60, 100)];
        let chain =
            |inum| (inum, LimitChain { at: seconds(1.0), limits: limits.clone(), unread: 0, tasks: 0 });
        Some(Readings {
            doing: last.doing.into_iter().map(doing).collect(),
            limits: last.limits.into_keys().map(chain).collect(),
            ..Readings::default()
        })
    }
}

#[test]
fn a_reading_is_not_requested_again_because_of_its_own_arrival() {
    let story = Story::new();
    let mut watch = FindingsWatch::live(Thresholds::default(), || unreachable!("it is given one"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    watch.read_with(Box::new(Asked(Arc::clone(&asked))));
    for _ in 0..10 {
        watch.own_events(Some(&story.world), seconds(10.0));
    }
    let asked = asked.lock().expect("no thread but this");
    let doing = asked.iter().filter(|wanted| !wanted.doing.is_empty()).count();
    let limits = asked.iter().filter(|wanted| !wanted.limits.is_empty()).count();
    assert_eq!((limits, doing), (1, 1), "in ten ticks of one moment: {asked:#?}");
}

#[test]
fn thresholds_can_be_longer_than_any_time() {
    let mut story = Story::new();
    story.thresholds.zombie_age = Duration::MAX / 20;
    orphan(&mut story, 1, 10.0);
    assert_eq!(story.ids(1e9), []);
}
