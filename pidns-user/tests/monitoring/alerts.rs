//! Each alert fires in its situation, with its labels, and in no other.

use std::collections::BTreeSet;

use pidns_monitoring::{Range, Series};

use crate::director::Situation;
use crate::play::Play;
use crate::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    ordinary_life_is_seen_and_makes_no_alert_even_pending,
    an_agent_that_is_killed_is_down_on_its_node_alone,
    events_lost_over_and_over_fire_on_the_node_that_loses_them,
    a_tracepoint_that_a_later_run_of_the_agent_lacks_is_a_degraded_hook,
    unreaped_zombies_fire_for_their_namespace,
    a_teardown_that_waits_for_a_zombie_outside_fires,
    a_cgroup_with_hardly_any_pids_left_fires_for_its_namespace,
    a_cgroup_without_any_pid_left_is_critical_for_each_namespace_in_it,
    namespaces_that_open_files_hold_are_a_leak,
    namespaces_refused_at_32_levels_fire,
    an_init_that_memory_ran_out_for_fires,
    inits_that_are_killed_again_and_again_fire,
    forks_into_dead_namespaces_fire,
    no_alert_fires_without_its_cause,
];

/// Seconds that an alert may go on to fire when its cause is gone: the longest range, scrapes and evaluations.
const AFTERWARDS: f64 = 30.0;

/// A state of alerts, second by second.
fn over(play: &Play, query: &str, start: f64, end: f64) -> Vec<Series> {
    let range = Range { start, end, step: 1.0 };
    play.prometheus.query_range(query, &range).unwrap_or_else(|error| panic!("{error}"))
}

fn ordinary_life_is_seen_and_makes_no_alert_even_pending(play: &Play) {
    let (start, end) = play.quiet;
    let alerts: Vec<_> = over(play, "ALERTS", start, end).into_iter().map(|one| one.labels).collect();
    assert!(alerts.is_empty(), "nothing else may be going on on this machine; there were {alerts:#?}");
    let seen = |query: &str, least: f64| {
        let range = format!("[{:.0}s]", end - start);
        let series = play.prometheus.query(&query.replace("[]", &range), Some(end)).expect("an answer");
        assert_eq!(series.len(), 3, "{query}: {series:?}");
        for one in &series {
            assert!(one.last().is_some_and(|value| value >= least), "{query}: {one:?}");
        }
    };
    seen("sum by (instance) (increase(pidns_namespace_creations_total[]))", 50.0);
    seen("sum by (instance) (increase(pidns_namespace_destructions_total[]))", 50.0);
    // More than 20 in 10 seconds; but these inits ignored a signal before.
    seen("sum by (instance) (increase(pidns_init_exits_total{reason=\"signal\"}[]))", 50.0);
    seen(
        "sum by (instance) (increase(pidns_init_signals_total{fate=\"ignored\", from=\"ancestor\"}[]))",
        30.0,
    );
    seen(
        "sum by (instance) (increase(pidns_namespace_creation_failures_total{reason=\"permission\"}[]))",
        3.0,
    );
    seen("sum by (instance) (increase(pidns_joins_total{result=\"ok\"}[]))", 1.0);
}

/// Expects that this alert fired wherever it should, with its labels, no sooner than its cause was there.
fn fired(play: &Play, alert: &str, severity: &str) {
    let all: Vec<&Situation> =
        play.situations.iter().filter(|one| one.alert == alert && one.severity == severity).collect();
    assert!(!all.is_empty(), "{alert} ({severity}) was not played");
    for situation in all {
        let until = situation.until + AFTERWARDS;
        let series = over(play, &situation.query("firing"), play.quiet.0, until);
        let mine: Vec<&Series> = series.iter().filter(|one| situation.is_of(one)).collect();
        let fired_on: BTreeSet<&str> = mine.iter().map(|one| one.label("instance")).collect();
        let wanted: BTreeSet<&str> = situation.instances.iter().map(String::as_str).collect();
        assert_eq!(
            fired_on,
            wanted,
            "{alert} ({severity}) {:?}; there is {:#?}",
            situation.labels,
            series.iter().map(|one| &one.labels).collect::<Vec<_>>()
        );
        for one in mine {
            let first = one.points.first().expect("a series has points").0;
            assert!(first > situation.since, "{alert} fired {first}, its cause began {}", situation.since);
            assert_eq!(one.label("job"), "pidns-trace");
        }
    }
}

fn an_agent_that_is_killed_is_down_on_its_node_alone(play: &Play) {
    fired(play, "PidnsTraceDown", "warning");
}

fn events_lost_over_and_over_fire_on_the_node_that_loses_them(play: &Play) {
    fired(play, "PidnsTraceEventsLost", "warning");
}

/// Of the two parts of that alert the one about tracepoints that every kernel has. The one about hooks that ran before is
/// about functions, which not every kernel takes: dashboards/tests/ has a case of it.
fn a_tracepoint_that_a_later_run_of_the_agent_lacks_is_a_degraded_hook(play: &Play) {
    fired(play, "PidnsTraceHookDegraded", "warning");
}

fn unreaped_zombies_fire_for_their_namespace(play: &Play) {
    fired(play, "PidnsZombiesNotReaped", "warning");
}

fn a_teardown_that_waits_for_a_zombie_outside_fires(play: &Play) {
    fired(play, "PidnsTeardownBlocked", "warning");
}

/// Not what will be exhausted at the speed of the last hour: that is a case of dashboards/tests/.
fn a_cgroup_with_hardly_any_pids_left_fires_for_its_namespace(play: &Play) {
    fired(play, "PidnsPidExhaustionSoon", "warning");
}

/// Limits of the machine (pid_max, threads-max) are not exhausted here, for the sake of the machine: dashboards/tests/ does.
fn a_cgroup_without_any_pid_left_is_critical_for_each_namespace_in_it(play: &Play) {
    fired(play, "PidnsPidExhaustionSoon", "critical");
}

fn namespaces_that_open_files_hold_are_a_leak(play: &Play) {
    fired(play, "PidnsNamespaceLeaked", "info");
}

fn namespaces_refused_at_32_levels_fire(play: &Play) {
    fired(play, "PidnsCreationRefused", "warning");
}

fn an_init_that_memory_ran_out_for_fires(play: &Play) {
    fired(play, "PidnsInitKilled", "warning");
}

fn inits_that_are_killed_again_and_again_fire(play: &Play) {
    fired(play, "PidnsInitKilled", "info");
}

fn forks_into_dead_namespaces_fire(play: &Play) {
    fired(play, "PidnsForkIntoDeadNamespace", "warning");
}

fn no_alert_fires_without_its_cause(play: &Play) {
    let end = play.situations.iter().map(|one| one.until).fold(0.0, f64::max) + AFTERWARDS;
    for series in over(play, "ALERTS{alertstate=\"firing\"}", play.quiet.0, end) {
        let causes: Vec<&Situation> =
            play.situations.iter().filter(|one| one.names(&series) && one.is_of(&series)).collect();
        for (time, _) in &series.points {
            let is_explained = |one: &&Situation| (one.since..one.until + AFTERWARDS).contains(time);
            assert!(causes.iter().any(is_explained), "at {time}: {:?}", series.labels);
        }
    }
}
