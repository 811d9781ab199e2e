//! Tests of the counting mode: the kernel side counts by namespace and sends no records of processes.

use std::collections::BTreeSet;

use pidns_ebpf::abi::Kind;
use pidns_ebpf::abi::namespace_counters::{ExitReason, MORE_NAMESPACES, NamespaceId};
use pidns_user::kernel::{
    load::{self, Loaded, Settings},
    namespace_counters::{Counts, Reading},
};
use pidns_user::source::kinds::event_of;
use pidns_user::{filter::Filter, pipeline::Follow, pipeline::follow::KernelFilter};
use std::time::Duration;

use crate::actor_handle::Actor;
use crate::facts::{Ended, Lives, Who};
use crate::pipeline::NAMESPACES;
use crate::settings::{SECONDS_FOR_A_STORM, hooks, lives};
use crate::{Test, again, cgroups, probes, sys, test};

pub(crate) const TESTS: &[Test] = &[
    test!(every_fork_exec_and_exit_of_a_storm_is_counted_in_its_namespace),
    test!(an_out_of_memory_kill_is_counted_as_one, needs probes::memory_cgroup),
    test!(namespaces_without_a_slot_are_counted_separately),
    test!(namespaces_without_room_are_counted_together),
    test!(threads_that_end_at_the_same_time_are_one_exit_of_their_process),
];

/// More namespaces than a CPU has slots.
const MANY: u64 = 600;

fn load() -> Loaded {
    load_with_room_for(MORE_NAMESPACES)
}

/// Loads the kernel side with room for `more` namespaces in the hash map.
fn load_with_room_for(more: u32) -> Loaded {
    let follow = Follow::Namespaces { refresh: Duration::from_secs(1) };
    let filter = Filter::everything().expect("a valid filter");
    let KernelFilter { event_mask, level_mask, namespaces, pids } = follow.kernel_filter(&filter);
    let settings = Settings {
        event_mask,
        level_mask,
        namespaces,
        pids,
        hooks: hooks(),
        counting: Some(more),
        ..Settings::everything()
    };
    load::load(&settings).expect("load the kernel side").0
}

fn read(loaded: &Loaded) -> Reading {
    let totals = loaded.stats.read().expect("the counters can be read");
    if loaded.missed_runs().lost(&totals) > 0 {
        again::mark_left_out_hooks();
    }
    loaded.namespace_counters.as_ref().expect("it counts").read().expect("the counters can be read")
}

/// The counts of all namespaces with this inode number. An earlier namespace may have had it too.
fn of(reading: &Reading, inum: u64) -> Vec<(NamespaceId, Counts)> {
    let those = reading.namespaces.iter().filter(|(id, _)| u64::from(id.inum) == inum);
    those.map(|(id, counts)| (*id, *counts)).collect()
}

fn wanted(seen: &Lives) -> Counts {
    let mut exits = [0; ExitReason::ALL.len()];
    exits[ExitReason::Ok as usize] = seen.ended_well;
    exits[ExitReason::Error as usize] = seen.failed;
    exits[ExitReason::Signal as usize] = seen.ended_by_signal;
    exits[ExitReason::Cascade as usize] = seen.killed_with_their_init;
    Counts {
        forks: seen.forks,
        execs: seen.execs,
        exits,
        threads_created: seen.threads,
        threads_ended: seen.threads,
    }
}

fn every_fork_exec_and_exit_of_a_storm_is_counted_in_its_namespace() {
    let mut loaded = load();
    let mut actor = Actor::start("counted", &[&lives().to_string(), &NAMESPACES.to_string()]);
    let done: u64 = actor.hear_within(SECONDS_FOR_A_STORM, "lives");
    assert_eq!(done, lives());
    let staying: Vec<Lives> = actor.all_heard("staying");
    let leaving: Vec<Lives> = actor.all_heard("leaving");
    assert_eq!((staying.len(), leaving.len()), (NAMESPACES / 2, NAMESPACES / 2));

    let reading = read(&loaded);
    for seen in staying.iter().chain(&leaving) {
        let counts = of(&reading, seen.who.ns);
        assert!(
            counts.iter().any(|(_, counts)| *counts == wanted(seen)),
            "namespace {}: counted {counts:?}, but it saw {seen:?}",
            seen.who.ns
        );
    }
    let host_before = reading.host;
    assert_eq!(reading.shared_slot, Counts::default(), "every namespace is counted separately");

    let table = loaded.namespace_counters.as_mut().expect("it counts");
    for seen in &leaving {
        let (id, counts) = of(&reading, seen.who.ns)
            .into_iter()
            .find(|(_, counts)| *counts == wanted(seen))
            .expect("the counts were there before");
        let mut take = || table.take(&[id].into()).expect("they can be read").remove(&id);
        assert_eq!(take(), Some(counts), "take returns the counts and frees the slot");
        assert_eq!(take(), None, "take returns the counts only once");
    }
    let left: BTreeSet<u32> = read(&loaded).namespaces.keys().map(|id| id.inum).collect();
    assert!(staying.iter().all(|seen| left.contains(&(seen.who.ns as u32))), "others keep their counts");

    actor.go();
    actor.finish();
    let reading = read(&loaded);
    for seen in &mut staying.clone() {
        seen.ended_well += 1;
        let counts = of(&reading, seen.who.ns);
        assert!(
            counts.iter().any(|(_, counts)| *counts == wanted(seen)),
            "{counts:?} after the end of {seen:?}"
        );
    }
    assert!(reading.host.forks >= host_before.forks, "the host is counted separately");
    let totals = loaded.stats.read().expect("the counters can be read");
    let is_of_a_process =
        |kind: &Kind| event_of(*kind).starts_with("process.") && totals.kind(*kind).submitted > 0;
    let of_processes: Vec<_> = Kind::ALL.iter().filter(|kind| is_of_a_process(kind)).collect();
    assert!(of_processes.is_empty(), "records of processes were sent: {of_processes:?}");
}

fn an_out_of_memory_kill_is_counted_as_one() {
    let loaded = load();
    let group = cgroups::memory_cgroups().expect("the probe found it").make(16 << 20);
    let mut actor = Actor::start("memory-runs-out-for-a-member", &[group.path()]);
    let init: Who = actor.hear("init");
    let _: Ended = actor.hear("end");
    let has_one = |reason: ExitReason, ns: u64| {
        of(&read(&loaded), ns).iter().any(|(_, counts)| counts.exits[reason as usize] == 1)
    };
    assert!(has_one(ExitReason::OomKill, init.ns), "{:?}", of(&read(&loaded), init.ns));
    assert!(!has_one(ExitReason::Cascade, init.ns) && !has_one(ExitReason::Signal, init.ns));
    actor.go();
    actor.finish();
    let group = cgroups::memory_cgroups().expect("the probe found it").make(16 << 20);
    let report = Actor::start("memory-runs-out", &[group.path()]).finish();
    let init = report.who("init");
    assert!(has_one(ExitReason::OomKill, init.ns), "the init: {:?}", of(&read(&loaded), init.ns));
}

fn namespaces_without_a_slot_are_counted_separately() {
    let mut loaded = load();
    let mut actor = start_on_one_cpu("counted", &["0", &MANY.to_string()]);
    let _: u64 = actor.hear_within(SECONDS_FOR_A_STORM, "lives");
    let all: Vec<Lives> = [actor.all_heard("staying"), actor.all_heard("leaving")].concat();
    assert_eq!(all.len() as u64, MANY);
    let reading = read(&loaded);
    for seen in &all {
        let counts = of(&reading, seen.who.ns);
        assert!(counts.iter().any(|(_, counts)| *counts == wanted(seen)), "{counts:?}, {seen:?}");
    }
    assert_eq!(reading.shared_slot, Counts::default());
    let table = loaded.namespace_counters.as_mut().expect("it counts");
    let in_hash_map = table.in_hash_map();
    assert!(in_hash_map > 0, "every namespace found a slot, so the test proves nothing");
    actor.go();
    actor.finish();
    let gone = read(&loaded).namespaces.into_keys().collect();
    loaded.namespace_counters.as_mut().expect("it counts").take(&gone).expect("they can be read");
    let left = loaded.namespace_counters.as_ref().expect("it counts").in_hash_map();
    assert!(left <= 16, "{left} of {in_hash_map} entries are left");
}

/// Starts an actor that stays on this thread's CPU, because each CPU has its own table of slots.
fn start_on_one_cpu(situation: &str, args: &[&str]) -> Actor {
    let before = sys::pin_to_own_cpu().expect("a thread may choose its CPU");
    let actor = Actor::start(situation, args);
    sys::set_cpus(&before).expect("a thread may choose its CPUs");
    actor
}

fn namespaces_without_room_are_counted_together() {
    let loaded = load_with_room_for(8);
    let mut actor = start_on_one_cpu("counted", &["0", &MANY.to_string()]);
    let _: u64 = actor.hear_within(SECONDS_FOR_A_STORM, "lives");
    let all: Vec<Lives> = [actor.all_heard("staying"), actor.all_heard("leaving")].concat();
    let reading = read(&loaded);
    assert!(reading.shared_slot.forks > 0, "all {MANY} namespaces had room");
    let mut sum = reading.shared_slot;
    let mut wanted_sum = Counts::default();
    for seen in &all {
        wanted_sum.add(&wanted(seen));
        of(&reading, seen.who.ns).iter().for_each(|(_, counts)| sum.add(counts));
    }
    // Namespaces of other programs may be counted in the shared slot too.
    let is_complete = sum.forks >= wanted_sum.forks && sum.ended() >= wanted_sum.ended();
    assert!(is_complete, "counted {sum:?}, expected at least {wanted_sum:?}");
    actor.go();
    actor.finish();
}

fn threads_that_end_at_the_same_time_are_one_exit_of_their_process() {
    let loaded = load();
    // A guest without KVM is too slow for the full number.
    let processes = (lives() / 1_000).clamp(20, 200).to_string();
    let mut actor = Actor::start("threads-end-at-once", &[&processes, "8"]);
    let seen: Lives = actor.hear_within(SECONDS_FOR_A_STORM, "seen");
    let counts = of(&read(&loaded), seen.who.ns);
    assert!(counts.iter().any(|(_, counts)| *counts == wanted(&seen)), "{counts:?}, {seen:?}");
    actor.go();
    actor.finish();
}
