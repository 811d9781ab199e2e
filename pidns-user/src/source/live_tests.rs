use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _},
    os::fd::AsFd,
};

use pidns_ebpf::abi::decode;
use serde_json::Value;

use super::*;
use crate::{filter::FilterArgs, kernel::stats::KindTotals, output::Json};

fn run_to(output: impl AsFd + Send + 'static, events: &str, count: Option<u64>) -> Run {
    let args = FilterArgs { events: vec![events.to_owned()], ..FilterArgs::default() };
    let filter = Filter::new(&args).unwrap();
    let teller = Teller::new(filter, Box::new(Json), Sink::new(output), None, None, 1_000);
    Run::new(teller, count, 0)
}

fn start() -> Body {
    Body::StreamLost { stage: "stands in for the start".into(), count: 0 }
}

/// A run, and the file that it writes to.
fn run(events: &str, count: Option<u64>) -> (Run, File) {
    let file = tempfile::tempfile().unwrap();
    (run_to(file.try_clone().unwrap(), events, count), file)
}

fn lines(mut file: File) -> Vec<Value> {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
}

/// The reaping of process 20, which is 2 in its namespace.
fn reap(run: &mut Run, boot_ns: u64) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>();
    let record = [
        &boot_ns.to_ne_bytes()[..],
        &72u32.to_ne_bytes(),
        &[Kind::ProcessReap as u8, 0, 2, 0],
        &5u64.to_ne_bytes(),
        &words(&[20, 1, 0, 4026532000]),
        b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        &7u64.to_ne_bytes(),
        &words(&[20, 2]),
    ]
    .concat();
    let (header, record) = decode(&record).unwrap();
    run.record(header, record);
}

fn conclude(run: &mut Run, totals: Totals) {
    run.conclude(totals, MissedRuns::default(), 0, Duration::from_secs(1));
}

#[test]
fn events_are_numbered_and_their_times_never_go_back() {
    let (mut run, file) = run("all", None);
    run.teller.wall_offset_ns = 1_700_000_000_000_000_000;
    run.begin(start());
    for boot_ns in [3_000, 2_000, 4_000] {
        reap(&mut run, boot_ns);
    }
    conclude(&mut run, Totals::default());
    let lines = lines(file);
    let reap = "process.reap";
    assert_eq!(names(&lines), ["stream.lost", reap, reap, reap, "stream.end"]);
    let seqs: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    let times: Vec<_> = lines[..4].iter().map(|line| line["boot_ns"].as_u64().unwrap()).collect();
    assert_eq!(times, [1_000, 3_000, 3_000, 4_000], "the start's is that of the first hook");
    assert_eq!(lines[3]["time"], "2023-11-14T22:13:20.000004000Z");
}

#[test]
fn a_count_ends_the_run_and_what_follows_is_not_shown() {
    let (mut run, file) = run("process.reap", Some(2));
    run.begin(start());
    for boot_ns in [2_000, 3_000, 4_000, 5_000] {
        assert_eq!(run.teller.over, boot_ns > 3_000, "before the record of {boot_ns}");
        reap(&mut run, boot_ns);
    }
    conclude(&mut run, Totals::default());
    let lines = lines(file);
    assert_eq!(names(&lines)[1..], ["process.reap", "process.reap", "stream.end"]);
    assert_eq!(lines[3]["events"]["process.reap"], 2);
}

#[test]
fn what_was_not_asked_for_is_neither_shown_nor_counted() {
    let (mut run, file) = run("process.exit", Some(1));
    run.begin(start());
    reap(&mut run, 2_000);
    assert!(!run.teller.over, "it does not count");
    conclude(&mut run, Totals::default());
    assert_eq!(names(&lines(file))[1..], ["stream.end"]);
}

#[test]
fn a_loss_is_told_once_and_added_up_at_the_end() {
    let (mut run, file) = run("all", None);
    run.begin(start());
    for total in [5, 5, 7] {
        run.account("ring", total);
    }
    let kinds = BTreeMap::from([(Kind::ProcessReap as u8, KindTotals { submitted: 30, lost: 9 })]);
    let untracked = vec![("process.reap", 4), ("process.exit.threads", 1)];
    let totals = Totals { kinds, threads_created: 6, untracked, ..Totals::default() };
    let mut missed = MissedRuns::default();
    missed.add(None, 3);
    run.conclude(totals, missed, 0, Duration::from_secs(1));
    let lines = lines(file);
    let lost: Vec<_> = lines[1..lines.len() - 1]
        .iter()
        .map(|line| (line["stage"].as_str().unwrap(), line["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(lost, [("ring", 5), ("ring", 2), ("ring", 2), ("table", 4), ("hook", 3)]);
    let end = lines.last().unwrap();
    assert_eq!(end["lost"], serde_json::json!({ "ring": 9, "table": 4, "hook": 3 }));
    assert_eq!(
        end["kernel"],
        serde_json::json!({ "process.reap": { "submitted": 30, "lost": 9 } }),
        "kinds that had none are left out"
    );
    assert_eq!(end["threads"]["created"], 6);
    assert_eq!(end["events"]["stream.lost"], 6, "with the line that stands in for the start");
    assert_eq!(end["duration_ns"], 1_000_000_000);
    assert_eq!(run.lost.values().sum::<u64>(), 16, "what --strict goes by");
}

#[test]
fn of_a_full_disk_all_that_comes_after_it_is_counted_too() {
    let mut run = run_to(OpenOptions::new().write(true).open("/dev/full").unwrap(), "all", None);
    run.begin(start());
    assert!(run.teller.over, "the start could not be written");
    reap(&mut run, 2_000);
    reap(&mut run, 3_000);
    conclude(&mut run, Totals::default());
    let Some(Failure::Output { error, unwritten }) = run.teller.failure else { panic!("no failure") };
    assert_eq!((error.raw_os_error(), unwritten), (Some(libc::ENOSPC), 3));
}

#[test]
fn a_reader_that_goes_ends_the_run_without_a_failure() {
    let (reader, writer) = io::pipe().unwrap();
    let mut run = run_to(writer, "all", None);
    run.begin(start());
    assert!(!run.teller.over);
    drop(reader);
    reap(&mut run, 2_000);
    run.teller.flush();
    assert!(run.teller.over && run.teller.closed);
    reap(&mut run, 3_000);
    conclude(&mut run, Totals::default());
    assert!(run.teller.failure.is_none());
    assert_eq!(run.teller.events["process.reap"], 1);
}
