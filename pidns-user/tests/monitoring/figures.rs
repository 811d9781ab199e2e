//! `figures [MINUTES]`: measures and prints the cost of a machine for the servers of docs/many-machines.md.
//!
//! One agent sees 50 namespaces in which processes come and go. Three pairs of Prometheus and VictoriaMetrics scrape it
//! under several values of the label `instance`, like several machines. So the samples have real values and real names.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pidns_monitoring::{Client, PrometheusAgent, VictoriaMetrics};

use crate::activity::Loop;
use crate::agent::Node;
use crate::{examples, many_machines, network};

const NAMESPACES: usize = 50;

/// The script of each init. Two of its children stay, the others come and go.
const LIFE: &str = "sleep 3600 & sleep 3600 & while :; do sleep $(( $$ % 7 + 1 + $(date +%s) % 3 )); done";

/// A Prometheus and a VictoriaMetrics.
struct Chain {
    name: &'static str,
    machines: usize,
    drops: bool,
    sender: PrometheusAgent,
    victoria: VictoriaMetrics,
}

impl Chain {
    fn start(
        folder: &Path,
        node: &Node,
        name: &'static str,
        machines: usize,
        interval: &str,
        drops: bool,
    ) -> Self {
        let file = folder.join(format!("{name}.yml"));
        let target = |number| (node.instance(), format!("node-{number}.example:10978"));
        many_machines::write_targets(&file, &(1..=machines).map(target).collect::<Vec<_>>());
        let folder = folder.join(name);
        let options = examples::options("victoria-metrics.default");
        let victoria = VictoriaMetrics::start(&folder, &options).expect("VictoriaMetrics");
        let mut configuration = examples::prometheus(&file, &victoria.write_url(), interval);
        if !drops {
            configuration = examples::without_drops(&configuration);
        }
        let options = examples::options("prometheus.default");
        let sender = PrometheusAgent::start(&folder, &configuration, &options).expect("Prometheus");
        Self { name, machines, drops, sender, victoria }
    }

    fn print(&self) {
        let of = |client: &Client, name: &str, labels: &[&str]| {
            client.own_metric(name, labels).unwrap_or_else(|error| panic!("{error}"))
        };
        let remote = ["url=\"http"];
        let sent = of(&self.sender, "prometheus_remote_storage_samples_total", &remote);
        let bytes = of(&self.sender, "prometheus_remote_storage_bytes_total", &remote);
        self.victoria.force_flush_and_merge().expect("VictoriaMetrics merges");
        // Merging goes on after the answer.
        thread::sleep(Duration::from_secs(10));
        let rows = of(&self.victoria, "vm_rows", &["type=\"storage/"]);
        let data = of(&self.victoria, "vm_data_size_bytes", &["type=\"storage/"]);
        let index = of(&self.victoria, "vm_data_size_bytes", &["type=\"indexdb"]);
        let series = of(&self.victoria, "vm_new_timeseries_created_total", &[]);
        let machines = self.machines as f64;
        println!("{}: {} machines, drops: {}", self.name, self.machines, self.drops);
        let per_series = rows / series;
        println!("  series a machine: {:.1}; samples a series: {per_series:.1}", series / machines);
        println!("  sent: {sent} samples, {bytes} bytes: {:.2} bytes a sample", bytes / sent);
        println!("  stored: {rows} samples, {data} bytes: {:.3} bytes a sample", data / rows);
        println!("  index: {index} bytes: {:.1} bytes a series", index / series);
        let resident = |client: &Client| of(client, "process_resident_memory_bytes", &[]) / 1048576.0;
        let cpu = |client: &Client| of(client, "process_cpu_seconds_total", &[]);
        println!(
            "  Prometheus: {} series, {:.1} MiB, {:.1} s of CPU; VictoriaMetrics: {:.1} MiB, {:.1} s of CPU",
            of(&self.sender, "prometheus_agent_active_series", &[]),
            resident(&self.sender),
            cpu(&self.sender),
            resident(&self.victoria),
            cpu(&self.victoria)
        );
    }
}

/// Namespaces that end when this is dropped.
struct Crowd(Vec<Child>);

impl Crowd {
    fn start() -> Self {
        let start = |_| {
            let mut command = Command::new("unshare");
            // If `unshare --kill-child` is killed, the init is killed too, and the kernel kills the other members.
            command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", LIFE]);
            command.stdin(Stdio::null()).spawn().expect("start unshare")
        };
        Self((0..NAMESPACES).map(start).collect())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // A child that has ended by itself must be reaped too.
            let _ended_already = child.kill();
            let _status = child.wait();
        }
    }
}

pub(crate) fn main(args: &[String]) {
    let minutes = args.first().map_or(5, |text| text.parse().expect("a number of minutes"));
    network::move_to_own();
    let folder = many_machines::own_folder("many-machines-figures");
    let crowd = Crowd::start();
    let mut node = Node::start(31, &folder, &[]);
    node.wait_until_ready();
    let ordinary = Loop::ordinary();
    let text = node.scrape();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    let of_namespaces =
        text.lines().filter(|line| !line.starts_with('#') && line.contains("{pidns=")).count();
    println!("/metrics: {series} series, {of_namespaces} of single namespaces, {} bytes", text.len());
    let chains = [
        Chain::start(&folder, &node, "dropped-15s", 20, "15s", true),
        Chain::start(&folder, &node, "whole-15s", 20, "15s", false),
        Chain::start(&folder, &node, "dropped-1s", 2, "1s", true),
    ];
    thread::sleep(Duration::from_secs(minutes * 60));
    drop(ordinary);
    chains.iter().for_each(Chain::print);
    drop((chains, node, crowd));
}
