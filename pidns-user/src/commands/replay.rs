//! `pidns-trace replay`: a recording printed as the live stream would have been.

use std::{path::Path, process::ExitCode};

use rustix::stdio::stdout;

use super::{ending::Ending, notices::Notices, recorded, trace};
use crate::{
    cli::ReplayArgs,
    commands::failure::Failure,
    filter::Filter,
    output::{
        printer::{Pace, Printer, Seq},
        sink::Sink,
    },
    pipeline::{ContainerSource, Follow, NamesAhead, Pipeline},
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
    // A pipe can have nothing to say for ever, and then the end must come all the same.
    let source = Replay::new(Reading::start(recording), duration.map_or(Until::End, Until::Elapsed));
    let pipeline = Pipeline::new(source, Follow::Everything, ContainerSource::Recorded(names));
    let (report, source, _) = pipeline.run(&mut [&mut printer], &stop);
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
    let unknown = source.events().unknown();
    if unknown > 0 {
        let left_out = Count(unknown, "event", "events");
        Notices::new(*quiet)
            .notify(format_args!("{}: left out {left_out} that only a later version knows", file.display()));
    }
    Ok(ExitCode::SUCCESS)
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
