//! Tests of the agent: its counts, its remaining privileges, its start and its end.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::loaded_programs;
use serde_json::Value;

use crate::actor_handle::{Actor, patience};
use crate::facts::{Lives, Who};
use crate::pipeline::NAMESPACES;
use crate::program::path as program;
use crate::scrape::{Agent, Samples, get};
use crate::settings::{SECONDS_FOR_A_STORM, lives};
use crate::{Test, probes, sys, test};

pub(crate) const TESTS: &[Test] = &[
    test!(totals_of_a_storm_are_exact_after_namespaces_ended_and_the_agent_was_stopped),
    test!(zombies_of_a_namespace_are_counted_with_the_age_of_the_oldest),
    test!(a_blocker_that_joined_after_the_last_snapshot_is_named),
    test!(ten_thousand_short_namespaces_leave_no_map_entries_and_little_memory),
    test!(the_agent_keeps_only_the_privileges_that_it_needs, needs probes::seccomp),
    test!(a_scrape_during_the_start_is_answered_after_the_first_snapshot),
    test!(sigterm_ends_the_agent_within_a_second_with_clients_connected),
    test!(the_agent_notifies_systemd_when_it_is_ready_alive_and_stopping),
    test!(sighup_reloads_the_web_configuration_and_an_invalid_one_is_ignored),
    test!(a_killed_agent_leaves_no_program_in_the_kernel),
    test!(a_port_in_use_is_reported_before_programs_are_loaded),
];

/// The sum of a counter over all reasons, for namespaces without a container.
fn of_no_container(samples: &Samples, name: &str) -> f64 {
    let labels = format!("{name}{{runtime=\"none\"");
    samples.starting(&labels).map(|(_, value)| value).sum()
}

const CREATIONS: &str = "pidns_namespace_creations_total";

fn exits(samples: &Samples, reason: &str) -> f64 {
    samples.get(&format!("pidns_process_exits_total{{runtime=\"none\",reason=\"{reason}\"}}"))
}

fn totals_of_a_storm_are_exact_after_namespaces_ended_and_the_agent_was_stopped() {
    let agent = Agent::start(&["--snapshot-interval", "500ms", "--bpf-stats"]);
    let before = agent.scrape();
    let mut actor = Actor::start("counted", &[&lives().to_string(), &NAMESPACES.to_string()]);
    thread::sleep(Duration::from_millis(300));
    sys::kill(agent.pid(), libc::SIGSTOP).expect("the agent is there");
    let stopped = Instant::now();
    let _: u64 = actor.hear_within(SECONDS_FOR_A_STORM, "lives");
    thread::sleep(Duration::from_secs(10).saturating_sub(stopped.elapsed()));
    sys::kill(agent.pid(), libc::SIGCONT).expect("the agent is there");
    let mut seen: Vec<Lives> = actor.all_heard("leaving");
    let staying: Vec<Lives> = actor.all_heard("staying");
    assert_eq!((seen.len(), staying.len()), (NAMESPACES / 2, NAMESPACES / 2));

    // The namespaces that stay have series of their own.
    for Lives { who, forks, .. } in &staying {
        let series = format!("pidns_namespace_forks_total{{pidns=\"{}\"}}", who.ns);
        agent.scrape_until(&series, |samples| samples.find(&series) == Some(*forks as f64));
    }
    actor.go();
    actor.finish();
    seen.extend(staying.into_iter().map(|seen| Lives { ended_well: seen.ended_well + 1, ..seen }));
    let sum = |of: fn(&Lives) -> u64| seen.iter().map(of).sum::<u64>() as f64;
    let ended =
        sum(|seen| seen.ended_well + seen.failed + seen.ended_by_signal + seen.killed_with_their_init);
    let grown = |after: &Samples, name| of_no_container(after, name) - of_no_container(&before, name);
    let after =
        agent.scrape_until("the last reaps", |after| grown(after, "pidns_process_reaps_total") >= ended);
    // Other programs may create namespaces on this machine. They are counted too, so the numbers are then lower bounds.
    let created: f64 = after.starting(CREATIONS).map(|(_, value)| value).sum();
    let created = created - before.starting(CREATIONS).map(|(_, value)| value).sum::<f64>();
    let is_alone = created == NAMESPACES as f64;
    if !is_alone {
        eprintln!(
            "{created} namespaces were created, {NAMESPACES} of them by the test: totals are only lower bounds"
        );
    }
    let check = |what: &str, counted: f64, wanted: f64| {
        let is_right = if is_alone { counted == wanted } else { counted >= wanted };
        assert!(is_right, "{what}: counted {counted}, expected {wanted}");
    };
    check("forks", grown(&after, "pidns_process_forks_total"), sum(|seen| seen.forks));
    check("execs", grown(&after, "pidns_process_execs_total"), sum(|seen| seen.execs));
    check("exits", grown(&after, "pidns_process_exits_total"), ended);
    check("reaps", grown(&after, "pidns_process_reaps_total"), ended);
    check("threads created", grown(&after, "pidns_thread_creations_total"), sum(|seen| seen.threads));
    check("threads ended", grown(&after, "pidns_thread_exits_total"), sum(|seen| seen.threads));
    let grown = |reason| exits(&after, reason) - exits(&before, reason);
    check("ended with 0", grown("ok"), sum(|seen| seen.ended_well));
    check("ended with another code", grown("error"), sum(|seen| seen.failed));
    check("ended by a signal", grown("signal"), sum(|seen| seen.ended_by_signal));
    check("killed with their init", grown("cascade"), sum(|seen| seen.killed_with_their_init));
    for Lives { who, .. } in &seen {
        let series = format!("pidns_namespace_forks_total{{pidns=\"{}\"}}", who.ns);
        let created = format!("pidns_namespace_created_timestamp_seconds{{pidns=\"{}\"}}", who.ns);
        agent.scrape_until(&format!("the end of {series}"), |samples| {
            let forks = samples.find(&series);
            assert_ne!(forks, Some(0.0), "{series} fell to 0 instead of ending");
            forks.is_none() || samples.find(&created) != after.find(&created)
        });
    }
    // The documented bound, with the option that adds the most series.
    let independent = after.starting("").filter(|(series, _)| !series.contains("pidns=\"")).count();
    eprintln!("{independent} series that do not depend on the namespaces");
    assert!(independent <= 450, "{independent} series that do not depend on the namespaces");
    let lost: f64 = after.starting("pidns_trace_events_lost_total").map(|(_, value)| value).sum();
    assert_eq!(lost, 0.0, "events lost");
}

fn a_blocker_that_joined_after_the_last_snapshot_is_named() {
    let agent = Agent::start(&["--snapshot-interval", "1h"]);
    let mut actor = Actor::start("hung-teardown", &[]);
    let init: Who = actor.hear("init");
    let parent: Who = actor.hear("parent");
    let _: bool = actor.hear("standing");
    actor.go();
    let _: bool = actor.hear("ready");
    let began = Instant::now();
    let found = loop {
        let is_it = |line: &Value| line["id"] == "teardown-blocked" && line["ns"] == init.ns;
        let log = agent.log_text();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(found) = lines.into_iter().find(is_it) {
            break found;
        }
        // The snapshot that shows it can be late on a busy machine.
        assert!(began.elapsed() < patience(20), "no finding in time:\n{log}");
        thread::sleep(Duration::from_millis(20));
    };
    eprintln!("{:?} after its cause: {}", began.elapsed(), found["message"]);
    let message = found["message"].as_str().expect("a message");
    assert!(message.contains(&format!("its parent outside, {}[{}]", parent.comm, parent.pid)), "{message}");
    actor.go();
    actor.finish();
}

fn zombies_of_a_namespace_are_counted_with_the_age_of_the_oldest() {
    let agent = Agent::start(&["--snapshot-interval", "300ms"]);
    let began = unix_seconds();
    let mut actor = Actor::start("zombies", &["3"]);
    let init: Who = actor.hear("init");
    let pidns = init.ns;
    let zombies = format!("pidns_namespace_processes{{pidns=\"{pidns}\",state=\"zombie\"}}");
    let samples = agent.scrape_until("three zombies", |samples| samples.find(&zombies) == Some(3.0));
    let oldest = format!("pidns_namespace_zombie_oldest_timestamp_seconds{{pidns=\"{pidns}\"}}");
    let since = samples.get(&oldest);
    assert!(since >= began - 1.0 && since <= unix_seconds(), "{since}, {began}");
    let reaps = format!("pidns_namespace_reaps_total{{pidns=\"{pidns}\"}}");
    let reaped = samples.get(&reaps);
    const SNAPSHOTS: &str = "pidns_trace_events_total{event=\"stream.resync\"}";
    let snapshots = samples.get(SNAPSHOTS);
    let again = agent.scrape_until("another snapshot", |samples| samples.get(SNAPSHOTS) >= snapshots + 2.0);
    assert_eq!(again.get(&oldest), since, "the oldest zombie stays the same");
    actor.go();
    agent.scrape_until("the reaping", |samples| samples.find(&reaps) == Some(reaped + 3.0));
    let samples = agent.scrape();
    assert_eq!((samples.find(&zombies), samples.find(&oldest)), (Some(0.0), None));
    actor.go();
    actor.finish();
}

fn unix_seconds() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("the clock is after 1970").as_secs_f64()
}

/// The variable `PIDNS_TEST_CHURN` sets another number of namespaces.
fn ten_thousand_short_namespaces_leave_no_map_entries_and_little_memory() {
    let churn: u64 =
        std::env::var("PIDNS_TEST_CHURN").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let agent = Agent::start(&["--snapshot-interval", "1s", "--metrics.namespace-limit", "50"]);
    let before = agent.scrape();
    let resident = |samples: &Samples| samples.get("process_resident_memory_bytes");
    let mut actor = Actor::start("churn", &[&churn.to_string()]);
    let mut most = 0;
    let deadline = Instant::now() + patience(60 + churn / 200);
    while actor.all_heard::<u64>("done").is_empty() {
        assert!(Instant::now() < deadline, "{churn} namespaces took too long");
        let samples = agent.scrape();
        most = most.max(samples.starting("pidns_namespace_").count());
        actor.listen(Duration::from_millis(200));
    }
    actor.finish();
    let created = "pidns_namespace_creations_total{method=\"clone\"}";
    let gone = |samples: &Samples| samples.get("pidns_namespace_destructions_total");
    // If the kernel skips a hook, the agent misses the event.
    let unseen =
        |samples: &Samples| samples.find("pidns_trace_events_lost_total{stage=\"hook\"}").unwrap_or(0.0);
    let after = agent.scrape_until("the end of all namespaces", |samples| {
        gone(samples) - gone(&before) + unseen(samples) >= churn as f64
    });
    assert!(after.get(created) - before.get(created) + unseen(&after) >= churn as f64);
    assert!(unseen(&after) <= churn as f64 / 50.0, "hooks missed {} of {churn}", unseen(&after));
    assert!(most < 50 * 16 + 60, "{most} series of namespaces, with a limit of 50");
    // These maps evict their oldest entries, but only when they are full.
    const EVICTING: [&str; 5] = ["calls", "children_ns", "ended", "oom_victims", "reboots"];
    let is_evicting = |series: &str| EVICTING.iter().any(|map| series.contains(&format!("\"{map}\"")));
    let entries = after.starting("pidns_trace_map_entries");
    for (series, entries) in entries.filter(|(series, _)| !is_evicting(series)) {
        assert!(entries <= before.get(series) + churn as f64 / 20.0, "{series}: {entries} entries are left");
    }
    let grown = resident(&after) - resident(&before);
    assert!(grown < 12e6, "the agent uses {grown} bytes more memory after {churn} namespaces");
}

fn the_agent_keeps_only_the_privileges_that_it_needs() {
    let agent = Agent::start(&[]);
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent is there");
    let kept: BTreeSet<String> = ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_PERFMON", "CAP_BPF"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    const BITS: [u32; 4] = [2, 19, 38, 39];
    let mask = BITS.iter().fold(0_u64, |mask, bit| mask | 1 << bit);
    let mut count = 0;
    for thread in threads.map(|entry| entry.expect("the agent is there").path()) {
        let status = fs::read_to_string(thread.join("status")).expect("the thread is there");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
        };
        for set in ["CapEff:", "CapPrm:"] {
            let bits = u64::from_str_radix(&field(set), 16).expect("a number");
            assert_eq!(bits & !mask, 0, "{set} of {}", thread.display());
        }
        assert_eq!(field("CapInh:"), "0000000000000000");
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
        count += 1;
    }
    assert!(count > 3, "the agent has only {count} threads");
    let status = agent.status();
    let reported: BTreeSet<String> =
        serde_json::from_value(status["capabilities"].clone()).expect("a list of names");
    assert_eq!(reported, kept);
    for protection in ["no_new_privs", "seccomp"] {
        let holds = status["protections"][protection].as_str().expect("a sentence");
        assert!(holds.starts_with("on ("), "{protection}: {holds}");
    }
    assert!(status["protections"]["landlock"].is_string());
    assert!(status["hooks"].as_object().is_some_and(|hooks| hooks.len() > 10), "{status}");
    let unseen = status["findings_unseen"].as_object().expect("findings, with what the agent lacks for them");
    assert_eq!(unseen.keys().collect::<Vec<_>>(), ["proc-mismatch"]);
}

fn a_scrape_during_the_start_is_answered_after_the_first_snapshot() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let address = port.to_string();
    let _agent = Agent::start_raw(&["--web.listen-address", &address]);
    let deadline = Instant::now() + patience(20);
    let mut answers = BTreeSet::new();
    while !answers.contains(&200) {
        assert!(Instant::now() < deadline, "only the answers {answers:?} in time");
        if let Ok((status, text)) = get(port, "/metrics") {
            assert!(status == 200 || (status == 503 && text.contains("snapshot")), "{status}: {text}");
            if status == 200 {
                let samples = Samples::parse(&text);
                assert!(samples.get("pidns_namespace_max_level") >= 0.0);
                assert!(
                    samples.find("pidns_trace_snapshot_seconds").is_some(),
                    "metrics before the first snapshot"
                );
            }
            answers.insert(status);
        }
    }
}

fn sigterm_ends_the_agent_within_a_second_with_clients_connected() {
    let mut agent = Agent::start(&[]);
    let address = agent.wait_for_address();
    let idle: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(address).expect("connect to the agent")).collect();
    let scraping =
        thread::spawn(move || while get(address, "/metrics").is_ok_and(|(status, _)| status == 200) {});
    thread::sleep(Duration::from_millis(100));
    let sent = Instant::now();
    sys::kill(agent.pid(), libc::SIGTERM).expect("the agent is there");
    let status = agent.wait();
    let took = sent.elapsed();
    assert!(status.success(), "{status}:\n{}", agent.log_text());
    assert!(took < patience(1), "the end took {took:?}");
    drop(idle);
    scraping.join().expect("the scraping thread does not panic");
}

fn the_agent_notifies_systemd_when_it_is_ready_alive_and_stopping() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("notify");
    let socket = UnixDatagram::bind(&place).expect("a socket");
    socket.set_read_timeout(Some(patience(20))).expect("a time limit");
    let mut command = Command::new(program());
    command.env("NOTIFY_SOCKET", &place).env("WATCHDOG_USEC", "400000");
    let mut agent = Agent::start_with(command, &["--web.listen-address", "127.0.0.1:0"]);
    let hear = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).expect("a message in time");
        String::from_utf8_lossy(&message[..length]).trim().to_owned()
    };
    assert_eq!(hear(), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    sys::kill(agent.pid(), libc::SIGTERM).expect("the agent is there");
    let mut last = hear();
    while last == "WATCHDOG=1" {
        last = hear();
    }
    assert_eq!(last, "STOPPING=1");
    assert!(agent.wait().success(), "{}", agent.log_text());
}

fn sighup_reloads_the_web_configuration_and_an_invalid_one_is_ignored() {
    // The hash of "secret", made by `htpasswd -nbB -C 4 x secret`.
    const HASH: &str = "$2b$04$uGTBjyF0DG.7mIJeNsH3jOMNON3uFNgV/lwbw1ErB/YGeqb04z2cO";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("web.yml");
    fs::write(&file, "").expect("a file");
    let mut agent = Agent::start(&["--web.config.file", file.to_str().expect("a path in UTF-8")]);
    let address = agent.wait_for_address();
    let wait_for = |wanted: u16| {
        let deadline = Instant::now() + patience(20);
        while get(address, "/metrics").map_or(0, |(status, _)| status) != wanted {
            assert!(Instant::now() < deadline, "no status {wanted} in time:\n{}", agent.log_text());
            thread::sleep(Duration::from_millis(50));
        }
    };
    fs::write(&file, format!("basic_auth_users:\n  x: {HASH}\n")).expect("a file");
    sys::kill(agent.pid(), libc::SIGHUP).expect("the agent is there");
    wait_for(401);
    fs::write(&file, "basic_auth_users:\n  x: 5\nnonsense: 1\n").expect("a file");
    sys::kill(agent.pid(), libc::SIGHUP).expect("the agent is there");
    let deadline = Instant::now() + patience(20);
    while !agent.log_text().contains("stays as it was") {
        assert!(Instant::now() < deadline, "the error is not logged:\n{}", agent.log_text());
        thread::sleep(Duration::from_millis(20));
    }
    wait_for(401);
    fs::write(&file, "").expect("a file");
    sys::kill(agent.pid(), libc::SIGHUP).expect("the agent is there");
    wait_for(200);
}

/// The ids of the BPF programs that a process holds open.
fn program_ids(pid: sys::Pid) -> BTreeSet<u32> {
    let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process is there");
    let id = |file: fs::DirEntry| {
        let text = fs::read_to_string(file.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().parse().ok()
    };
    files.filter_map(Result::ok).filter_map(id).collect()
}

fn a_killed_agent_leaves_no_program_in_the_kernel() {
    let mut agent = Agent::start(&[]);
    let own = program_ids(agent.pid());
    assert!(own.len() >= 5, "the agent has too few programs: {own:?}");
    sys::kill(agent.pid(), libc::SIGKILL).expect("the agent is there");
    agent.wait();
    let remain = || loaded_programs().flatten().any(|program| own.contains(&program.id()));
    let deadline = Instant::now() + patience(20);
    while remain() {
        assert!(Instant::now() < deadline, "programs of a killed agent stay in the kernel");
        thread::sleep(Duration::from_millis(20));
    }
}

fn a_port_in_use_is_reported_before_programs_are_loaded() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut agent = Agent::start_raw(&["--web.listen-address", &address]);
    assert_eq!(agent.wait().code(), Some(2), "{}", agent.log_text());
    let log = agent.log_text();
    assert!(log.contains(&address) && log.contains("in use"), "{log}");
    assert!(!log.contains("attached"), "{log}");
}
