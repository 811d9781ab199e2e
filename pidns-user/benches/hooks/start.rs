//! Measures the time from the start of pidns-trace to the first event.

use std::{fmt, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{
    report::{Table, best, median, worst},
    storm::Load,
    tracer::time_to_line,
};

const STARTS: usize = 10;

#[derive(Serialize)]
pub(crate) struct Start {
    to_stream_start_ms: Vec<f64>,
    /// Time to the first event while PID namespaces are created without a pause.
    to_first_namespace_ms: Vec<f64>,
}

pub(crate) fn measure() -> Result<Start> {
    eprintln!("start, {STARTS} times");
    let to_stream_start_ms = repeat(|| time_to_line("all", |_| true))?;
    let namespaces = Load::Namespaces.start()?;
    let to_first_namespace_ms =
        repeat(|| time_to_line("namespace.*", |line| line.contains(r#""event":"namespace."#)))?;
    drop(namespaces);
    Ok(Start { to_stream_start_ms, to_first_namespace_ms })
}

fn repeat(once: impl Fn() -> Result<Duration>) -> Result<Vec<f64>> {
    (0..STARTS).map(|_| Ok(once()?.as_secs_f64() * 1e3)).collect()
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Time from spawning pidns-trace -o json to a line on its standard output, {STARTS} times"
        )?;
        let mut table = Table::new(&["", "best", "median", "worst"]);
        for (what, times) in [
            ("stream.start", &self.to_stream_start_ms),
            (
                "first namespace.* event, namespaces being created without a pause",
                &self.to_first_namespace_ms,
            ),
        ] {
            let all = || times.iter().copied();
            table.row(
                [what.to_owned()]
                    .into_iter()
                    .chain([best(all()), median(all()), worst(all())].map(|time| format!("{time:.1} ms"))),
            );
        }
        write!(f, "{table}")
    }
}
