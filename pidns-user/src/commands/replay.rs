//! `pidns-trace replay`: prints a recording like the live stream.

use std::{cmp::Reverse, collections::BTreeMap, process::ExitCode};

use rustix::stdio::stdout;

use super::{ending::Ending, notices::Notices, recorded, trace};
use crate::{
    cli::{FilterOptions, Output, ReplayArgs},
    commands::failure::Failure,
    filter::Filter,
    model::World,
    output::{
        printer::{Pace, Printer, Seq},
        sink::Sink,
    },
    pipeline::{Consumer, ContainerSource, Follow, NamesAhead, Pipeline, Update, Wants},
    source::replay::{Reading, Replay, Until},
    target::number_of_namespace,
    text::Count,
};

/// Prints the events that pass the filters, up to the end or the damage.
pub fn run(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let ReplayArgs { file, speed, duration, count, quiet, filters, view } = args;
    let mut asked = filters.args(false);
    // Findings are shown by default.
    asked.findings = asked.events.is_empty();
    let filter = Filter::of_recording(&asked, number_of_namespace)?;
    let (opened, recording) = recorded::open(file)?;
    // JSON without a filter for containers shows the events as they are in the file.
    let has_containers = !filter.filter.containers.is_empty();
    let (names, recording) = match has_containers || view.output == Output::Table {
        true => recorded::names_ahead(file, &opened, recording)?,
        false => (NamesAhead::default(), recording),
    };
    if has_containers && !opened.can_be_read_again() {
        Notices::new(*quiet).notify(format_args!(
            "{}: it can be read only once, so the first events of a container are missing: they do not contain its name",
            file.display()
        ));
    }
    let sink = Sink::new(stdout());
    let ending = Ending::listen(sink.progress())?;
    let stop = ending.flag();
    let pace = speed.map(|speed| {
        let ending = ending.clone();
        Pace::new(speed, move |time| ending.comes_within(time))
    });
    let mut printer =
        Printer::new(filter, trace::view(view)?, sink, Seq::Recorded).stop_after(*count).at_pace(pace);
    // Read in another thread: a pipe may never send anything, and Ctrl-C must still work.
    let source = Replay::new(Reading::start(recording), duration.map_or(Until::End, Until::Elapsed));
    let pipeline = Pipeline::new(source, Follow::Everything, ContainerSource::Recorded(names));
    let mut kinds = Kinds::default();
    let (report, source, _) = pipeline.run(&mut [&mut printer, &mut kinds], &stop);
    drop(ending);
    // Events before the damage were printed first.
    if let Some(failure) = report.failures.into_iter().next() {
        return Err(failure.into());
    }
    if printer.has_lost_its_reader() {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(error) = report.error {
        return Err(Failure::of_pipeline(error, Some(file)));
    }
    let shown = printer.printed().keys().any(|name| !name.starts_with("stream."));
    if !shown && let Some(text) = kinds.hint(filters) {
        Notices::new(*quiet).notify(format_args!("{}: {text}", file.display()));
    }
    let unknown = source.events().unknown();
    if unknown > 0 {
        let left_out = Count(unknown, "event", "events");
        Notices::new(*quiet)
            .notify(format_args!("{}: skipped {left_out} that only a later version knows", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts events by kind.
#[derive(Debug, Default)]
struct Kinds(BTreeMap<&'static str, u64>);

impl Kinds {
    /// The options to use if the output is empty.
    fn hint(&self, filters: &FilterOptions) -> Option<String> {
        /// Number of kinds that are listed.
        const NAMED: usize = 3;
        let mut kinds: Vec<(&str, u64)> = self.0.iter().map(|(name, count)| (*name, *count)).collect();
        kinds.sort_by_key(|(_, count)| Reverse(*count));
        let total: u64 = kinds.iter().map(|(_, count)| count).sum();
        let named =
            kinds.iter().take(NAMED).map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>();
        let more = if kinds.len() > NAMED { ", …" } else { "" };
        let has = format!("{} ({}{more})", Count(total, "event", "events"), named.join(", "));
        let FilterOptions { events, namespaces, containers, pids, comms, levels, snapshot: _ } = filters;
        let is_limited = !(namespaces.is_empty()
            && containers.is_empty()
            && pids.is_empty()
            && comms.is_empty()
            && levels.is_empty());
        (total > 0).then(|| match () {
            () if is_limited => format!("none of its {has} passes the filters"),
            () if kinds.iter().all(|(name, _)| name.starts_with("snapshot.")) => {
                format!(
                    "it contains only a snapshot: {has}; use --snapshot, or tree or ps with --from, to see it"
                )
            }
            () if events.is_empty() => format!("none of its {has} is shown by default; -e all shows them"),
            () => format!("none of its {has} matches -e; -e all shows them"),
        })
    }
}

impl Consumer for Kinds {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        let name = update.event.body.name();
        if !name.starts_with("stream.") {
            *self.0.entry(name).or_default() += 1;
        }
        Wants::Along
    }

    fn tick(&mut self, _: Option<&World>) -> Wants {
        Wants::Along
    }
}
