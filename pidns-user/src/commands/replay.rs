//! `pidns-trace replay`: a recording printed as the live stream would have been.

use std::{cmp::Reverse, collections::BTreeMap, path::Path, process::ExitCode};

use rustix::stdio::stdout;

use super::{ending::Ending, notices::Notices, recorded, trace};
use crate::{
    cli::{FilterOptions, ReplayArgs},
    commands::failure::Failure,
    filter::Filter,
    model::World,
    output::{
        printer::{Pace, Printer, Seq},
        sink::Sink,
    },
    pipeline::{Consumer, ContainerSource, Follow, NamesAhead, Pipeline, Update, Wants},
    source::{
        recording::{Recording, RecordingFile},
        replay::{Reading, Replay, Until},
    },
    target::number_of_namespace,
    text::Count,
};

/// Prints what the filters let through, up to the end or the damage.
pub fn run(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let ReplayArgs { file, speed, duration, count, quiet, filters, view } = args;
    let mut asked = filters.args(false);
    // What was found to be wrong is worth a line, where nothing else is asked for.
    asked.findings = asked.events.is_empty();
    let filter = Filter::of_recording(&asked, number_of_namespace)?;
    let (opened, recording) = recorded::open(file)?;
    let (names, recording) = match filter.filter.containers.is_empty() {
        true => (NamesAhead::default(), recording),
        false => names_ahead(file, &opened, recording, *quiet)?,
    };
    let sink = Sink::new(stdout());
    let ending = Ending::listen(sink.progress())?;
    let stop = ending.flag();
    let pace = speed.map(|speed| {
        let ending = ending.clone();
        Pace::new(speed, move |time| ending.comes_within(time))
    });
    let mut printer =
        Printer::new(filter, trace::view(view)?, sink, Seq::Recorded).stop_after(*count).at_pace(pace);
    // A pipe can be silent for ever, and then the end must come all the same.
    let source = Replay::new(Reading::start(recording), duration.map_or(Until::End, Until::Elapsed));
    let pipeline = Pipeline::new(source, Follow::Everything, ContainerSource::Recorded(names));
    let mut kinds = Kinds::default();
    let (report, source, _) = pipeline.run(&mut [&mut printer, &mut kinds], &stop);
    drop(ending);
    // What stands before the damage went first.
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
            .notify(format_args!("{}: left out {left_out} that only a later version knows", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// How many events of each kind there are.
#[derive(Debug, Default)]
struct Kinds(BTreeMap<&'static str, u64>);

impl Kinds {
    /// What to ask for, where nothing of it was shown.
    fn hint(&self, filters: &FilterOptions) -> Option<String> {
        /// Kinds that are named.
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
                format!("nothing happened in it, only what existed is there: {has}; --snapshot shows it, as do tree and ps with --from")
            }
            () if events.is_empty() => format!("none of its {has} is shown by default; -e all shows them"),
            () => format!("none of its {has} is what -e asks for; -e all shows them"),
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

/// Where containers are asked for: those that the recording names, so that their first events are found too, which are without
/// names. That takes reading it to its end or the damage, and then again: the recording that is returned is at its beginning.
fn names_ahead(
    file: &Path,
    opened: &RecordingFile,
    recording: Recording,
    quiet: bool,
) -> Result<(NamesAhead, Recording), Failure> {
    let mut names = NamesAhead::default();
    if !opened.can_be_read_again() {
        Notices::new(quiet).notify(format_args!(
            "{}: it can be read only once, so that the first events of a container, which are without its name, are left out",
            file.display()
        ));
        return Ok((names, recording));
    }
    for event in recording.map_while(Result::ok) {
        names.learn(&event);
    }
    let again = opened.read().map_err(|error| Failure::File { file: file.to_owned(), error })?;
    Ok((names.rewound(), again))
}
