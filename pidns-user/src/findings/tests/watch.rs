//! Tests of the ledger, of findings in recordings, and of readings.

use super::*;

#[test]
fn ledger_reports_each_change_once() {
    let mut host = TestHost::new();
    let mut ledger = Ledger::default();
    orphan(&mut host, 1, 10.0);
    let mut update = |host: &TestHost, at| -> Vec<FindingState> {
        ledger.update(host.found(at)).into_iter().map(|(state, _)| state).collect()
    };
    assert_eq!(update(&host, 11.5), [FindingState::Opened]);
    assert_eq!(update(&host, 12.5), [], "only its age has changed");
    orphan(&mut host, 2, 20.0);
    assert_eq!(update(&host, 21.5), [FindingState::Updated], "twice as many");
    orphan(&mut host, 3, 30.0);
    assert_eq!(update(&host, 31.5), [], "half as many more");
    let open: Vec<_> = ledger.open().map(|finding| &finding.evidence).collect();
    let counts = |evidence: &&Vec<Evidence>| evidence.iter().find_map(|it| it.fact.count());
    assert_eq!(open.iter().map(counts).collect::<Vec<_>>(), [Some(3)], "an open finding is as it is now");
    let mut update = |host: &TestHost, at| -> Vec<FindingState> {
        ledger.update(host.found(at)).into_iter().map(|(state, _)| state).collect()
    };
    for number in [3, 5, 7] {
        host.add(32.0, reap(process(&[INIT + number, number], INIT)));
    }
    assert_eq!(update(&host, 33.0), [FindingState::Closed]);
}

#[test]
fn recorded_findings_are_repeated() {
    let finding = {
        let mut host = TestHost::new();
        orphan(&mut host, 1, 10.0);
        host.only_finding(11.5)
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
    assert_eq!(watch.open().count(), 0, "this stream was recorded without findings");
}

/// A reader that reports everything as unreadable and records the requests.
struct RecordedRequests(Arc<Mutex<Vec<ReadRequest>>>);

impl Reader for RecordedRequests {
    fn ask(&mut self, request: ReadRequest) {
        self.0.lock().expect("no thread but this").push(request);
    }

    fn take(&mut self) -> Option<Readings> {
        // The limit is more than half used, so the threads of processes are requested as long as that is so.
        let last = self.0.lock().expect("no thread but this").last().cloned()?;
        let activity = |key| (key, Err("not read".to_owned()));
        let limits = vec![limit("pids_cgroup", 60, 100)];
        Some(Readings {
            activity: last.activity.into_iter().map(activity).collect(),
            limits: last.limits.into_keys().map(|inum| (inum, chain(1.0, limits.clone()))).collect(),
            ..Readings::default()
        })
    }
}

/// A reader that returns a full limit for each namespace in question, once.
struct FullLimit(Vec<NsInum>);

impl Reader for FullLimit {
    fn ask(&mut self, request: ReadRequest) {
        self.0 = request.limits.into_keys().collect();
    }

    fn take(&mut self) -> Option<Readings> {
        let request = std::mem::take(&mut self.0);
        let limits = request.into_iter().map(|inum| (inum, chain(1.0, vec![limit("pids_cgroup", 100, 100)])));
        let limits: BTreeMap<_, _> = limits.collect();
        (!limits.is_empty()).then(|| Readings { limits, ..Readings::default() })
    }
}

#[test]
fn limits_of_an_earlier_namespace_are_not_those_of_a_later_one_with_its_number() {
    let mut host = TestHost::new();
    let mut watch = FindingsWatch::live(Thresholds::default(), || unreachable!("it is given one"));
    watch.read_with(Box::new(FullLimit(Vec::new())));
    watch.own_events(Some(&host.world), seconds(10.0));
    let end = |host: &mut TestHost| {
        host.add(10.1, init_exit_event(Exit::Code { code: 0 }, Cause::Exited));
        host.add(10.1, exit(process(&[INIT, 1], CREATOR))).add(10.1, reap(process(&[INIT, 1], CREATOR)));
        host.add(10.1, Body::NamespaceDestroy { ns: ns(NS, 1), lived_ns: None });
    };
    let ids = |watch: &FindingsWatch| watch.open().map(|finding| finding.id).collect::<Vec<_>>();
    watch.own_events(Some(&host.world), seconds(10.0));
    assert_eq!(ids(&watch), [Diagnosis::PidExhaustion]);
    end(&mut host);
    reuse::begin_another(&mut host, 10.2);
    watch.detect(&host.world, seconds(10.3), super::super::watch::Reads::All);
    assert_eq!(ids(&watch), []);
}

#[test]
fn arriving_data_does_not_cause_new_requests_for_it() {
    let host = TestHost::new();
    let mut watch = FindingsWatch::live(Thresholds::default(), || unreachable!("it is given one"));
    let requests = Arc::new(Mutex::new(Vec::new()));
    watch.read_with(Box::new(RecordedRequests(Arc::clone(&requests))));
    for _ in 0..10 {
        watch.own_events(Some(&host.world), seconds(10.0));
    }
    let requests = requests.lock().expect("no thread but this");
    let activity = requests.iter().filter(|request| !request.activity.is_empty()).count();
    let limits = requests.iter().filter(|request| !request.limits.is_empty()).count();
    assert_eq!((limits, activity), (1, 1), "in ten ticks of one moment: {requests:#?}");
}

#[test]
fn thresholds_can_be_longer_than_any_time() {
    let mut host = TestHost::new();
    let long = Duration::MAX;
    host.thresholds = Thresholds {
        zombie_age: long,
        teardown: long,
        incident: long,
        leaked: long,
        joined: long,
        creator: long,
        elsewhere: long,
        ..Thresholds::default()
    };
    orphan(&mut host, 1, 10.0);
    assert_eq!(host.ids(1e9), []);
    for end in [init_exit_event(Exit::Code { code: 0 }, Cause::Exited), exit(process(&[INIT, 1], CREATOR))] {
        host.add(11.0, end);
    }
    assert_eq!(host.ids(1e9), [], "its teardown may take that long");
    host.add(12.0, reap(process(&[INIT + 3, 3], INIT)));
    host.add(12.0, Body::NamespaceTeardown { ns: ns(NS, 1), killed: 0, nested: Vec::new(), duration_ns: 1 });
    assert_eq!(host.ids(1e9), [], "its parent may be about to reap it");
    host.thresholds.leaked = Duration::from_secs(1);
    assert_eq!(host.ids(1e9), [Diagnosis::NamespaceLeaked]);
    let mut host = TestHost::new();
    host.thresholds.depth_left = u32::MAX;
    assert_eq!(host.ids(10.0), [Diagnosis::NearDepthLimit]);
}
