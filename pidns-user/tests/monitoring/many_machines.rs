//! Tests the example of docs/many-machines.md: agents on three nodes, a Prometheus in agent mode that scrapes them, a
//! VictoriaMetrics to which it sends the samples, and a vmalert that evaluates the rules there.
//!
//! These tests do not use the agents and servers of the other tests. Each runs in its own thread and network namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pidns_monitoring::{
    Alertmanager, Client, Dashboard, Error, PrometheusAgent, Range, Rules, Series, Variables,
    VictoriaMetrics, Vmalert, Webhook,
};

use crate::actor_handle::{Actor, patience};
use crate::agent::Node;
use crate::alert_tracker::now;
use crate::cgroups::{self, ScratchCgroup};
use crate::{activity, examples, network, rules};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("victoria_metrics_knows_each_machine_without_the_dropped_series", || {
        on_own_thread(victoria_metrics_knows_each_machine_without_the_dropped_series);
    }),
    ("prometheus_in_agent_mode_refuses_rules", || on_own_thread(prometheus_in_agent_mode_refuses_rules)),
];

/// Time limit for a value to pass through all servers, in seconds.
const IN_TIME: u64 = 30;

/// Zombies of one namespace. More than the alert needs.
const ZOMBIES: usize = 25;

/// A query for all series that the example drops.
const DROPPED: &str = "last_over_time({__name__=~\"pidns_namespace_(threads|forks_total|\
                       created_timestamp_seconds)|scrape_s.+\"}[10m]) or \
                       last_over_time(pidns_namespace_processes{state!=\"zombie\"}[10m])";

/// Runs a test in its own thread, because servers end with the thread that started them, and the test moves the thread
/// to another network namespace.
pub(crate) fn on_own_thread(body: fn()) {
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Creates an empty folder for files, data and logs. It is kept after the test, for debugging.
pub(crate) fn own_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It may not exist yet.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// Writes the file with Prometheus's targets. Each has its label `instance`.
pub(crate) fn write_targets(file: &Path, targets: &[(String, String)]) {
    let entry = |(target, instance): &(String, String)| {
        format!("- targets: [\"{target}\"]\n  labels: {{instance: \"{instance}\"}}\n")
    };
    fs::write(file, targets.iter().map(entry).collect::<String>()).expect("write the file");
}

/// Situations that do not change while the values are compared.
struct Causes {
    careless: Actor,
    crowd: Actor,
    _group: ScratchCgroup,
}

impl Causes {
    fn begin() -> Self {
        let group =
            ScratchCgroup::make(&cgroups::pids_controller().expect("/sys/fs/cgroup has the pids controller"));
        fs::write(format!("{}/pids.max", group.path()), "40").expect("set the limit");
        // With the init, 38 of the 40 PIDs are used.
        let mut crowd = Actor::start("still-crowded", &[group.path(), "37"]);
        let _: bool = crowd.hear("ready");
        Self { careless: Actor::start("zombies", &[&ZOMBIES.to_string()]), crowd, _group: group }
    }

    fn end(mut self) {
        // It reaps its zombies on the first "go", and ends on the second.
        self.careless.go();
        for mut actor in [self.careless, self.crowd] {
            actor.go();
            actor.finish();
        }
    }
}

/// Waits until there are no faults. After the time limit, panics with the faults that are left.
fn wait_until_all(mut faults: impl FnMut() -> Vec<String>) {
    let deadline = Instant::now() + patience(IN_TIME);
    loop {
        let left = faults();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "after {IN_TIME} s there are still faults:\n{}", left.join("\n"));
        thread::sleep(Duration::from_millis(300));
    }
}

fn ask(client: &Client, query: &str) -> Vec<Series> {
    client.query(query, None).unwrap_or_else(|error| panic!("{error}"))
}

/// The results of a query by machine.
fn by_machine(client: &Client, query: &str) -> BTreeMap<String, f64> {
    let value = |series: Series| {
        (series.label("instance").to_owned(), series.last().expect("the series has a value"))
    };
    ask(client, query).into_iter().map(value).collect()
}

/// The number of series of a scrape whose lines begin like this, and the sum of their values.
fn scraped(text: &str, beginning: &str) -> (usize, f64) {
    let value = |line: &str| -> f64 {
        let value = line.rsplit(' ').next().expect("a line has a value");
        value.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
    };
    let values: Vec<f64> = text.lines().filter(|line| line.starts_with(beginning)).map(value).collect();
    (values.len(), values.iter().sum())
}

fn victoria_metrics_knows_each_machine_without_the_dropped_series() {
    network::move_to_own();
    let folder = own_folder("many-machines");
    // The machines differ, so that no value can be taken for that of another: the third has no series of namespaces.
    let args: [&[&str]; 3] = [
        &["--ring-size", "64K"],
        &["--ring-size", "128K"],
        &["--ring-size", "256K", "--metrics.namespace-limit", "0"],
    ];
    let mut nodes: Vec<Node> =
        args.iter().zip(21..).map(|(args, number)| Node::start(number, &folder, args)).collect();
    nodes.iter_mut().for_each(Node::wait_until_ready);
    let causes = Causes::begin();
    let targets: Vec<(String, String)> =
        nodes.iter().map(|node| (node.instance(), node.instance())).collect();
    let file = folder.join("nodes.yml");
    write_targets(&file, &targets);

    let mut options = examples::options("victoria-metrics.default");
    // Half a minute by default, which is half of a test.
    options.push("-search.latencyOffset=1s".to_owned());
    let victoria = VictoriaMetrics::start(&folder.join("victoria"), &options).expect("VictoriaMetrics");
    let configuration = examples::prometheus(&file, &victoria.write_url(), "1s");
    let configuration = examples::sending_at_once(&configuration);
    let options = examples::options("prometheus.default");
    let sender =
        PrometheusAgent::start(&folder.join("prometheus"), &configuration, &options).expect("Prometheus");
    let webhook = Webhook::start().expect("a free port");
    let alertmanager = Alertmanager::start(&folder, webhook.address()).expect("Alertmanager");
    let mut options = examples::vmalert_options();
    for option in &mut options {
        *option = option.replace("-evaluationInterval=1m", "-evaluationInterval=1s");
    }
    options.push("-remoteWrite.flushInterval=1s".to_owned());
    options.push(format!("-notifier.url=http://{}", alertmanager.address()));
    let files = vec![rules::folder().join("rules.yml"), rules::write_shortened(&folder)];
    let rules = Rules { files, options: &options };
    let vmalert = Vmalert::start(&folder, victoria.address(), &rules).expect("vmalert");

    // A rate needs an earlier sample. If a series does not exist at the first query, VictoriaMetrics 1.79 finds it only
    // after ten seconds.
    wait_until_all(|| match ask(&victoria, "pidns_namespace_creations_total{method=\"clone3\"}").len() {
        3 => Vec::new(),
        machines => vec![format!("only {machines} machines have sent samples")],
    });
    activity::run("clone3", &[]);
    wait_until_all(|| {
        nodes.iter_mut().for_each(Node::expect_running);
        differing(&victoria, &nodes)
    });
    the_dropped_series_are_not_there(&victoria, &nodes);
    the_fleet_dashboard_shows_all_machines(&victoria);
    an_alert_names_the_machines(&webhook, &nodes);
    assert_eq!(vmalert.rule_errors().expect("rules"), [""; 0], "rules that vmalert cannot evaluate");
    wait_until_all(|| match ask(&victoria, "cluster:pidns_machines:count == 3").len() {
        1 => Vec::new(),
        _ => vec!["no rule has counted three machines".to_owned()],
    });
    let failed = sender.own_metric("prometheus_remote_storage_samples_failed_total", &[]);
    assert_eq!(failed.expect("Prometheus counts them"), 0.0, "samples that VictoriaMetrics refused");
    causes.end();
}

/// Compares the values in VictoriaMetrics, and of the rules that vmalert evaluated, with those of each agent. Returns
/// the differences.
fn differing(victoria: &Client, nodes: &[Node]) -> Vec<String> {
    let of = |query: &str| by_machine(victoria, query);
    let recorded = [
        ("instance:pidns_namespaces:sum", "pidns_namespaces{"),
        ("pidns_trace_ring_capacity_bytes", "pidns_trace_ring_capacity_bytes "),
        ("count by (instance) (pidns_namespace_info)", "pidns_namespace_info{"),
        ("count by (instance) (pidns_namespace_pids_limit)", "pidns_namespace_pids_limit{"),
    ]
    .map(|(query, beginning)| (query, beginning, of(query)));
    let [zombies, budget, created, oldest] = [
        "instance:pidns_zombies:sum",
        "instance:pidns_namespace_pids:ratio_max",
        "instance:pidns_namespace_creations:rate5m > 0",
        "instance:pidns_zombie_oldest_age_seconds:max",
    ]
    .map(of);
    let mut faults = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let instance = node.instance();
        let text = node.scrape();
        for (query, beginning, found) in &recorded {
            let (count, sum) = scraped(&text, beginning);
            let expected = if query.starts_with("count") { count as f64 } else { sum };
            let is = found.get(&instance).copied().unwrap_or(0.0);
            if is != expected {
                faults.push(format!("{instance}: {query} is {is}, the agent says {expected}"));
            }
        }
        let dead =
            text.lines().filter(|line| line.starts_with("pidns_processes{") && line.contains("\"zombie\""));
        let (_, expected) = scraped(&dead.collect::<Vec<_>>().join("\n"), "");
        let is = zombies.get(&instance).copied().unwrap_or(-1.0);
        if is != expected || expected < ZOMBIES as f64 {
            faults.push(format!("{instance}: {is} zombies, the agent says {expected}"));
        }
        // Both are computed from series of single namespaces, and the third machine has none of these.
        let has_namespaces = at != 2;
        let full = budget.get(&instance).is_some_and(|ratio| (*ratio - 0.95).abs() < 1e-9);
        if full != has_namespaces || (!has_namespaces && budget.contains_key(&instance)) {
            faults.push(format!("{instance}: the PID budget is {:?}", budget.get(&instance)));
        }
        if oldest.contains_key(&instance) != has_namespaces {
            faults.push(format!("{instance}: the oldest zombie is {:?}", oldest.get(&instance)));
        }
        if !created.contains_key(&instance) {
            faults.push(format!("{instance}: no namespace was created"));
        }
    }
    faults
}

fn the_dropped_series_are_not_there(victoria: &Client, nodes: &[Node]) {
    let text = nodes[0].scrape();
    for dropped in [
        "pidns_namespace_threads{",
        "pidns_namespace_forks_total{",
        "pidns_namespace_created_timestamp_seconds{",
    ] {
        assert!(scraped(&text, dropped).0 >= 2, "the agent has {dropped}");
    }
    let (states, _) = scraped(&text, "pidns_namespace_processes{");
    let left = by_machine(victoria, "count by (instance) (pidns_namespace_processes)");
    assert_eq!(left.get(&nodes[0].instance()), Some(&(states as f64 / 5.0)), "one state of five is left");
    let dropped = ask(victoria, DROPPED);
    assert!(dropped.is_empty(), "{} series such as {:?}", dropped.len(), dropped[0].labels);
    let up = by_machine(victoria, "up{job=\"pidns-trace\"}");
    assert_eq!(up.values().copied().collect::<Vec<_>>(), [1.0; 3], "alerts need the series up");
}

fn the_fleet_dashboard_shows_all_machines(victoria: &Client) {
    /// Panels that may have no data. No signal is ignored, nothing is refused, and no process is killed for memory.
    /// Whether there are findings and deaths depends on the time.
    const MAY_BE_EMPTY: [&str; 7] = [
        "Why inits died",
        "How long teardowns take",
        "Ignored signals to inits",
        "Refused forks",
        "Refused namespaces",
        "Killed for memory",
        "Open findings",
    ];
    let dashboard = Dashboard::read(&rules::folder().join("fleet.json")).expect("a dashboard");
    let end = now();
    let range = Range { start: end - 10.0, end, step: 1.0 };
    let mut asked = 0;
    for panel in dashboard.panels.iter().filter(|panel| panel.kind != "row") {
        let title = panel.title.as_str();
        let results = panel.ask(victoria, &Variables::all(1.0), &range);
        let results = results.unwrap_or_else(|error| panic!("{title}: {error}"));
        asked += results.len();
        let number = results[0].first().and_then(Series::last);
        match title {
            "Machines up" => assert_eq!(number, Some(3.0)),
            "Zombies" => assert!(number.is_some_and(|zombies| zombies >= 3.0 * ZOMBIES as f64), "{number:?}"),
            "Machines" => {
                let machines: Vec<usize> = results.iter().map(Vec::len).collect();
                // Oldest zombie and PID budget need series of namespaces.
                assert_eq!(machines, [3, 3, 3, 2, 2, machines[5], 3], "machines in each column");
            }
            _ => {}
        }
        let has_data = results.iter().any(|series| !series.is_empty());
        assert!(has_data || MAY_BE_EMPTY.contains(&title), "{title} has no data");
    }
    assert!(asked >= 20, "{asked} queries are too few to be all");
}

/// Through Prometheus, VictoriaMetrics, vmalert and Alertmanager.
fn an_alert_names_the_machines(webhook: &Webhook, nodes: &[Node]) {
    let expected: Vec<String> = nodes[..2].iter().map(Node::instance).collect();
    wait_until_all(|| {
        let received = webhook.received();
        let arrived = |instance: &&String| {
            received.iter().any(|one| {
                one.labels.get("alertname").is_some_and(|name| name == "PidnsZombiesNotReaped")
                    && one.labels.get("instance") == Some(instance)
                    && one.annotations.get("summary").is_some_and(|text| text.contains("25 zombies"))
            })
        };
        let missing = expected.iter().filter(|instance| !arrived(instance));
        missing.map(|instance| format!("no alert about the zombies of {instance}")).collect()
    });
}

fn prometheus_in_agent_mode_refuses_rules() {
    let folder = own_folder("agent-mode-rules");
    let configuration = examples::prometheus(&folder.join("nodes.yml"), "http://127.0.0.1:1/", "1s");
    let with_rules = format!("rule_files: [rules.yml]\n{configuration}");
    let error = PrometheusAgent::start(&folder, &with_rules, &examples::options("prometheus.default"));
    let error = error.expect_err("agent mode evaluates no rules");
    assert!(matches!(&error, Error::EndedEarly { .. }), "{error}");
    assert!(error.to_string().contains("rule_files is not allowed in agent mode"), "{error}");
}
