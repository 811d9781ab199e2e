//! Each alert must fire in its situation, with its labels, and in no other situation.

use std::collections::BTreeSet;

use pidns_monitoring::{Range, Series};

use crate::alert_tracker::Situation;
use crate::scenario::Scenario;
use crate::{Test, tests};

pub(crate) const TESTS: &[Test] = tests![
    ordinary_activity_is_counted_and_no_alert_becomes_pending,
    a_killed_agent_is_down_only_on_its_node,
    repeated_losses_fire_on_the_node_that_loses_events,
    a_tracepoint_missing_in_a_later_run_is_a_degraded_hook,
    unreaped_zombies_fire_for_their_namespace,
    a_teardown_that_waits_for_an_outside_zombie_fires,
    a_cgroup_with_few_free_pids_fires_for_its_namespace,
    a_cgroup_without_free_pids_is_critical_for_each_of_its_namespaces,
    namespaces_held_by_open_files_are_a_leak,
    namespaces_refused_at_32_levels_fire,
    an_oom_killed_init_fires,
    repeatedly_killed_inits_fire,
    forks_into_dead_namespaces_fire,
    no_alert_fires_without_its_cause,
];

/// Seconds that an alert may still fire after its cause is gone: the longest range, scrapes and evaluations.
const AFTERWARDS: f64 = 30.0;

/// The alerts in a state, with one value for each second.
fn over(scenario: &Scenario, query: &str, start: f64, end: f64) -> Vec<Series> {
    let range = Range { start, end, step: 1.0 };
    scenario.prometheus.query_range(query, &range).unwrap_or_else(|error| panic!("{error}"))
}

fn ordinary_activity_is_counted_and_no_alert_becomes_pending(scenario: &Scenario) {
    let (start, end) = scenario.quiet;
    let alerts: Vec<_> = over(scenario, "ALERTS", start, end).into_iter().map(|one| one.labels).collect();
    assert!(alerts.is_empty(), "the machine must be idle otherwise; there were {alerts:#?}");
    let seen = |query: &str, least: f64| {
        let range = format!("[{:.0}s]", end - start);
        let series =
            scenario.prometheus.query(&query.replace("[]", &range), Some(end)).expect("query the counters");
        assert_eq!(series.len(), 3, "{query}: {series:?}");
        for one in &series {
            assert!(one.last().is_some_and(|value| value >= least), "{query}: {one:?}");
        }
    };
    seen("sum by (instance) (increase(pidns_namespace_creations_total[]))", 50.0);
    seen("sum by (instance) (increase(pidns_namespace_destructions_total[]))", 50.0);
    // There are more than 20 in 10 seconds, but these inits ignored a signal before.
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

/// Checks that this alert fired everywhere it should, with its labels, and not before its cause.
fn fired(scenario: &Scenario, alert: &str, severity: &str) {
    let all: Vec<&Situation> =
        scenario.situations.iter().filter(|one| one.alert == alert && one.severity == severity).collect();
    assert!(!all.is_empty(), "no situation caused {alert} ({severity})");
    for situation in all {
        let until = situation.until + AFTERWARDS;
        let series = over(scenario, &situation.query("firing"), scenario.quiet.0, until);
        let mine: Vec<&Series> = series.iter().filter(|one| situation.is_of(one)).collect();
        let fired_on: BTreeSet<&str> = mine.iter().map(|one| one.label("instance")).collect();
        let wanted: BTreeSet<&str> = situation.instances.iter().map(String::as_str).collect();
        assert_eq!(
            fired_on,
            wanted,
            "{alert} ({severity}) {:?}; found {:#?}",
            situation.labels,
            series.iter().map(|one| &one.labels).collect::<Vec<_>>()
        );
        for one in mine {
            let first = one.points.first().expect("a series has points").0;
            assert!(
                first > situation.since,
                "{alert} fired at {first}, but its cause began at {}",
                situation.since
            );
            assert_eq!(one.label("job"), "pidns-trace");
        }
    }
}

fn a_killed_agent_is_down_only_on_its_node(scenario: &Scenario) {
    fired(scenario, "PidnsTraceDown", "warning");
}

fn repeated_losses_fire_on_the_node_that_loses_events(scenario: &Scenario) {
    fired(scenario, "PidnsTraceEventsLost", "warning");
}

/// This tests the part of the alert about tracepoints that every kernel has. The part about hooks that ran before
/// concerns function hooks, which some kernels refuse. dashboards/tests/ has a case of it.
fn a_tracepoint_missing_in_a_later_run_is_a_degraded_hook(scenario: &Scenario) {
    fired(scenario, "PidnsTraceHookDegraded", "warning");
}

fn unreaped_zombies_fire_for_their_namespace(scenario: &Scenario) {
    fired(scenario, "PidnsZombiesNotReaped", "warning");
}

fn a_teardown_that_waits_for_an_outside_zombie_fires(scenario: &Scenario) {
    fired(scenario, "PidnsTeardownBlocked", "warning");
}

/// This does not test the growth of the last hour, of which dashboards/tests/ has a case.
fn a_cgroup_with_few_free_pids_fires_for_its_namespace(scenario: &Scenario) {
    fired(scenario, "PidnsPidExhaustionSoon", "warning");
}

/// The limits of the machine (pid_max, threads-max) are not exhausted here, to protect the machine. dashboards/tests/
/// has a case of them.
fn a_cgroup_without_free_pids_is_critical_for_each_of_its_namespaces(scenario: &Scenario) {
    fired(scenario, "PidnsPidExhaustionSoon", "critical");
}

fn namespaces_held_by_open_files_are_a_leak(scenario: &Scenario) {
    fired(scenario, "PidnsNamespaceLeaked", "info");
}

fn namespaces_refused_at_32_levels_fire(scenario: &Scenario) {
    fired(scenario, "PidnsCreationRefused", "warning");
}

fn an_oom_killed_init_fires(scenario: &Scenario) {
    fired(scenario, "PidnsInitKilled", "warning");
}

fn repeatedly_killed_inits_fire(scenario: &Scenario) {
    fired(scenario, "PidnsInitKilled", "info");
}

fn forks_into_dead_namespaces_fire(scenario: &Scenario) {
    fired(scenario, "PidnsForkIntoDeadNamespace", "warning");
}

fn no_alert_fires_without_its_cause(scenario: &Scenario) {
    let end = scenario.situations.iter().map(|one| one.until).fold(0.0, f64::max) + AFTERWARDS;
    for series in over(scenario, "ALERTS{alertstate=\"firing\"}", scenario.quiet.0, end) {
        let causes: Vec<&Situation> =
            scenario.situations.iter().filter(|one| one.names(&series) && one.is_of(&series)).collect();
        for (time, _) in &series.points {
            let is_explained = |one: &&Situation| (one.since..one.until + AFTERWARDS).contains(time);
            assert!(causes.iter().any(is_explained), "at {time}: {:?}", series.labels);
        }
    }
}
