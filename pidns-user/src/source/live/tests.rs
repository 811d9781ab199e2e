//! Tests of numbering, order and losses of live events.

use crate::event::identity::HostPid;
use pidns_ebpf::abi::{ProcessKey, ProcessPart, decode};

use super::*;
use crate::kernel::zombies::Unreaped;

fn translation() -> Translation {
    Translation::new(Translator::new(BootNs(0)), Zombies::new(false), BootNs(1_000))
}

/// Reaps process 20, which has PID 2 in its namespace.
fn reap(translation: &mut Translation, boot_ns: u64) -> Vec<Event> {
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<_>>();
    let record = [
        &boot_ns.to_ne_bytes()[..],
        &64u32.to_ne_bytes(),
        &[Kind::ProcessReap as u8, 0, 2, 0],
        &5u64.to_ne_bytes(),
        &numbers(&[20, 1, 0, 4026532000]),
        b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        &numbers(&[20, 2]),
    ]
    .concat();
    let (header, record) = decode(&record).unwrap();
    let mut events = Vec::new();
    translation.record(header, record, &mut |more| events.extend_from_slice(more));
    events
}

#[test]
fn events_are_numbered_and_their_times_never_go_back() {
    let mut translation = translation();
    translation.numbers.wall_offset_ns = 1_700_000_000_000_000_000;
    let body = Body::StreamLost { stage: "ring".into(), count: 0 };
    let mut events = vec![translation.numbers.event(BootNs::default(), true, body)];
    for boot_ns in [3_000, 2_000, 4_000] {
        events.extend(reap(&mut translation, boot_ns));
    }
    let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    let times: Vec<_> = events.iter().map(|event| event.boot_ns).collect();
    assert_eq!(times, [1_000, 3_000, 3_000, 4_000].map(BootNs), "the start has the time of the first hook");
    assert_eq!(events[3].time.to_string(), "2023-11-14T22:13:20.000004Z");
}

#[test]
fn a_swept_end_is_ordered_among_the_records_by_its_time() {
    let mut translation = translation();
    let process = ProcessPart {
        start_boot_ns: 5,
        pid: 21,
        parent_pid: 1,
        uid: 0,
        ns_inum: 7,
        comm: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    };
    let zombie = Unreaped { process, exit_boot_ns: 1_500, pids: [21, 3].into() };
    translation.sweep(BootNs(2_500), Swept::Reaped(zombie));
    assert_eq!(reap(&mut translation, 2_000).len(), 1, "the swept end comes later");
    let events = reap(&mut translation, 3_000);
    let times: Vec<_> = events.iter().map(|event| event.boot_ns).collect();
    assert_eq!(times, [2_500, 3_000].map(BootNs));
    let Body::ProcessReap { process, zombie_ns } = &events[0].body else { panic!("{:?}", events[0]) };
    assert_eq!((process.pid, &process.pids[..], *zombie_ns), (HostPid(21), &[21, 3][..], Some(1_000)));
    assert!(!events[0].exact, "its time is that of the sweep");
    assert_eq!(translation.swept_count["process.reap"], 1);
}

#[test]
fn an_end_that_a_hook_reports_after_the_sweep_is_counted_once() {
    let mut translation = translation();
    let swept = |pid| {
        let part = ProcessPart { start_boot_ns: 5, pid, parent_pid: 1, uid: 0, ns_inum: 7, comm: [b's'; 16] };
        Swept::Reaped(Unreaped { process: part, exit_boot_ns: 1_500, pids: [pid, 3].into() })
    };
    translation.sweep(BootNs(2_500), swept(21));
    translation.sweep(BootNs(2_500), swept(22));
    let header = Header {
        boot_ns: 3_000,
        size: 32,
        kind: Kind::ProcessReap as u8,
        flags: FLAG_INEXACT,
        pids: 0,
        other_pids: 0,
    };
    let mut events = Vec::new();
    let free = Record::ProcessFree(ProcessKey::new(21, 5));
    translation.record(header, free, &mut |more| events.extend_from_slice(more));
    assert_eq!(events.len(), 2, "each end is an event once: {events:?}");
    assert_eq!(translation.swept_count["process.reap"], 1, "no hook has reported the other one");
}

#[test]
fn losses_are_reported_once_and_summed_at_the_end() {
    let mut translation = translation();
    let mut lost = Vec::new();
    let mut each = |events: &mut [Event]| {
        for event in events {
            let Body::StreamLost { stage, count } = &event.body else { panic!("{event:?}") };
            lost.push((stage.to_string(), *count));
        }
    };
    for total in [5, 5, 7] {
        translation.account("ring", total, &mut each);
    }
    let kinds = BTreeMap::from([(Kind::ProcessReap as u8, KindTotals { submitted: 30, lost: 9 })]);
    let untracked = vec![("process.reap", 4), ("process.exit.threads", 1)];
    let totals = Totals { kinds, threads_created: 6, untracked, ..Totals::default() };
    let mut missed = MissedRuns::default();
    missed.add(None, 3);
    translation.final_losses(missed, &totals, 0, &mut each);
    let expected = [("ring", 5), ("ring", 2), ("ring", 2), ("table", 4), ("hook", 3)];
    assert_eq!(lost, expected.map(|(stage, count)| (stage.to_owned(), count)));
    let end = serde_json::to_value(translation.end(&totals, missed, Duration::from_secs(1))).unwrap();
    assert_eq!(end["lost"], serde_json::json!({ "ring": 9, "table": 4, "hook": 3 }));
    let kernel = serde_json::json!({ "process.reap": { "submitted": 30, "lost": 9 } });
    assert_eq!(end["kernel"], kernel, "kinds without records are left out");
    let creations_with_init = KindTotals { submitted: 7, lost: 1 };
    let end = translation.end(&Totals { creations_with_init, ..totals }, missed, Duration::from_secs(1));
    let end = serde_json::to_value(end).unwrap();
    assert_eq!(end["kernel"]["namespace.create"], serde_json::json!({ "submitted": 7, "lost": 1 }));
    assert_eq!(end["threads"]["created"], 6);
    assert_eq!(end["duration_ns"], 1_000_000_000);
}
