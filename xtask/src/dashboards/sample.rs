//! Invents data: every metric of docs/metrics.md, on two machines, over some time. The tests of the dashboards'
//! queries and the pictures use it.

mod shapes;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use pidns_monitoring::{Prometheus, Setup};

use super::{
    catalogue::{Catalogue, Metric, Type},
    files,
};
use crate::shell;
use shapes::{Labels, SampleTime};

/// Seconds between two samples.
pub(crate) const STEP: u32 = 30;

const JOB: &str = "pidns-trace";
const MACHINES: [&str; 2] = ["node-1:10978", "node-2:10978"];

/// Starts a Prometheus with invented data for the last `seconds`. It evaluates the recording rules.
pub(crate) fn prometheus(folder: &Path, seconds: u32) -> Result<Prometheus> {
    let data = folder.join("data");
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    fs::create_dir_all(&data).with_context(|| format!("cannot create the directory {}", data.display()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let text = folder.join("sample.om");
    fs::write(&text, open_metrics(&Catalogue::read()?, now, seconds)?)
        .with_context(|| format!("cannot write {}", text.display()))?;
    let mut promtool = shell::command("promtool");
    promtool.args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"]).args([&text, &data]);
    let output = promtool.output().context("cannot start promtool: `cargo xtask setup` installs it")?;
    anyhow::ensure!(
        output.status.success(),
        "`{}` failed:\n{}{}",
        shell::describe(&promtool),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let rules: Vec<PathBuf> = vec![files::folder().join("rules.yml")];
    Ok(Prometheus::start(&Setup { rules, ..Setup::in_folder(folder) })?)
}

/// The data in the OpenMetrics format, up to `end`.
fn open_metrics(catalogue: &Catalogue, end: u64, seconds: u32) -> Result<String> {
    let mut out = String::new();
    for (name, metric) in &catalogue.0 {
        // Skip the series that rules make.
        if name.contains(':') {
            continue;
        }
        for (machine, instance) in (0u32..).zip(MACHINES) {
            for labels in shapes::series(name, metric) {
                write_series(&mut out, (name, metric), &labels, (machine, instance), (end, seconds));
            }
        }
    }
    out.push_str("# EOF\n");
    Ok(out)
}

fn write_series(
    out: &mut String,
    (name, metric): (&str, &Metric),
    labels: &Labels,
    (machine, instance): (u32, &str),
    (end, seconds): (u64, u32),
) {
    let mut rest = format!("job=\"{JOB}\",instance=\"{instance}\"");
    for (label, value) in labels {
        let _ = write!(rest, ",{label}=\"{value}\"");
    }
    let moments = (0..=seconds / STEP).map(|at| {
        let since = at * STEP;
        let unix = end - u64::from(seconds) + u64::from(since);
        SampleTime { unix, since, seconds, machine }
    });
    if metric.kind == Type::Histogram {
        for bound in shapes::bounds(name) {
            for moment in moments.clone() {
                let value = shapes::below(name, &bound, moment);
                let _ = writeln!(out, "{name}_bucket{{{rest},le=\"{bound}\"}} {value} {}", moment.unix);
            }
        }
        for moment in moments {
            let value = shapes::below(name, "+Inf", moment);
            let _ = writeln!(out, "{name}_count{{{rest}}} {value} {}", moment.unix);
        }
        return;
    }
    for moment in moments {
        let value = shapes::value(name, metric.kind, labels, moment);
        let _ = writeln!(out, "{name}{{{rest}}} {value} {}", moment.unix);
    }
}
