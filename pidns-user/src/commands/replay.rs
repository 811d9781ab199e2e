//! `pidns-trace replay`: a recording printed as the live stream would have been.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use super::trace;
use crate::{
    cli::ReplayArgs,
    container::Container,
    count::Count,
    event::Body,
    failure::Failure,
    model::World,
    recording::Recording,
    selection::{Asked, Selection, inner_namespace},
};

/// Prints what the filters let through, up to the end or the damage.
pub fn run(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let ReplayArgs { file, speed, filters, view } = args;
    let selection = Selection::of_recording(&Asked::of(filters, false))?;
    let mut recording = Recording::open(file).map_err(|error| Failure::File { file: file.clone(), error })?;
    let mut view = trace::view(view);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let failed = |error: io::Error| match error.kind() {
        // Who has gone has seen enough.
        io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        _ => Err(Failure::Io { what: "write to standard output", error }),
    };
    if let Err(error) = view.begin(&mut out) {
        return failed(error);
    }
    let mut world = World::default();
    let mut before = None;
    for event in recording.by_ref() {
        let event = match event {
            Ok(event) => event,
            Err(damage) => {
                if let Err(error) = out.flush() {
                    return failed(error);
                }
                return Err(Failure::Recording { file: file.clone(), damage });
            }
        };
        if matches!(event.body, Body::StreamStart { .. }) {
            // Of another recording behind the first: what exists is told anew.
            world = World::default();
        }
        let was_in = container(&event.body, &world);
        let was_wanted = selection.shows_unfiltered(&event.body, was_in.as_deref(), &world);
        world.apply(&event);
        let container = container(&event.body, &world).or(was_in);
        if !was_wanted && !selection.shows_unfiltered(&event.body, container.as_deref(), &world) {
            continue;
        }
        if let (Some(speed), Some(before)) = (speed, before.replace(event.boot_ns)) {
            let pause = event.boot_ns.saturating_sub(before) as f64 / 1e9 / speed;
            if let Err(error) = out.flush() {
                return failed(error);
            }
            thread::sleep(Duration::try_from_secs_f64(pause).unwrap_or(Duration::MAX));
        }
        if let Err(error) = view.event(&event, container.as_deref(), &mut out) {
            return failed(error);
        }
    }
    if let Err(error) = out.flush() {
        return failed(error);
    }
    if recording.unknown() > 0 {
        let left_out = Count(recording.unknown(), "event", "events");
        eprintln!("pidns-trace: {}: left out {left_out} that only a later version knows", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The container that an event belongs to, as far as the recording tells by then.
fn container(body: &Body, world: &World) -> Option<Arc<Container>> {
    let told = body.namespace().and_then(|ns| ns.container.clone());
    told.or_else(|| world.namespace(inner_namespace(body)?)?.namespace.container.clone())
}
