//! `pidns-trace findings`: shows problems with the facts that prove them.

use std::process::ExitCode;

use rustix::stdio::stdout;

use super::{
    failure::code,
    finding_filter::{FindingFilter, about},
    host_observer::HostObserver,
    live::{self, Stream, StreamOutput},
    notices::Notices,
    readings, recorded, terminal, trace, view,
};
use crate::{
    cli::{FindingsArgs, Memory, Output, SnapshotOutput, Stop, ViewArgs},
    commands::failure::Failure,
    event::{finding::Finding, identity::BootNs},
    filter::{Filter, FilterArgs},
    findings::FindingsWatch,
    kernel::{clock, load},
    model::Forest,
    output::{JsonForm, View, findings, sink::Sink},
    pipeline::Follow,
    target::find_namespace,
};

/// Watches for a while or reads a recording, and prints the findings.
pub fn run(args: &FindingsArgs) -> Result<ExitCode, Failure> {
    if args.past.from.is_some() {
        return of_recording(args);
    }
    let view = args.watch.then(|| view(args)).transpose()?;
    load::check_privileges()?;
    let requested = args.target.as_deref().map(|target| requested(target, args)).transpose()?;
    let kernel = args.kernel();
    let observer = Some(live::observer(&kernel)?);
    let mut watch = FindingsWatch::live(args.thresholds.into(), readings::reader);
    if let Some(requested) = &requested {
        watch = watch.for_targets(requested.namespaces.clone());
    }
    // If the container shares its namespace, filter by its name.
    let is_shared = requested.as_ref().is_some_and(|requested| !requested.containers.is_empty());
    let namespaces = requested.iter().filter(|_| !is_shared).flat_map(|requested| &requested.namespaces);
    let filter_args = FilterArgs {
        events: vec!["finding".to_owned()],
        namespaces: namespaces.map(ToString::to_string).collect(),
        containers: args.target.iter().filter(|_| is_shared).cloned().collect(),
        ..FilterArgs::default()
    };
    let output =
        view.map(|view| StreamOutput { view, file: None, open: Box::new(|| Ok(Sink::new(stdout()))) });
    if args.watch {
        watch = watch.alongside_others();
    }
    let stop = Stop { duration: (!args.watch).then_some(args.watch_for), count: None };
    let stream = Stream {
        kernel: &kernel,
        filter: Filter::new(&filter_args, find_namespace)?,
        warnings: Vec::new(),
        follow: Follow::Everything,
        observer,
        stop: &stop,
        with_host_containers: true,
        shows_containers: true,
        findings: Some(watch),
        output,
        progress: None,
    };
    let ended = stream.run()?;
    let (Some(mut watch), Some(world)) = (ended.findings, ended.world) else { return Ok(ExitCode::SUCCESS) };
    if args.watch {
        return Ok(exit_code(args, about(watch.open(), requested.as_ref(), &world).iter()));
    }
    // Includes what happened since the last detection.
    watch.detect_at(&world, clock::boottime_ns());
    let found = about(watch.open(), requested.as_ref(), &world);
    print(args, &found, clock::boottime_ns())
}

/// The lines of `--watch`, as in the live stream.
fn view(args: &FindingsArgs) -> Result<Box<dyn View + Send>, Failure> {
    let FindingsArgs { output, no_headers, fields, screen, .. } = args;
    let output = match output {
        SnapshotOutput::Json => Output::Json,
        SnapshotOutput::Table => Output::Table,
    };
    trace::view(&ViewArgs { output, no_headers: *no_headers, fields: fields.clone(), screen: *screen })
}

/// The objects on this host that a TARGET names.
fn requested(target: &str, args: &FindingsArgs) -> Result<FindingFilter, Failure> {
    let mut observer = HostObserver::before_a_stream(args.past.runtime_api, Notices::new(true));
    let mut snapshot = observer.snapshot(false)?;
    observer.name_containers_for(Some(target), &mut snapshot)?;
    let forest = Forest::new(&snapshot);
    FindingFilter::of(target, &snapshot, &forest)
}

fn of_recording(args: &FindingsArgs) -> Result<ExitCode, Failure> {
    let mut watch = FindingsWatch::recorded(args.thresholds.into());
    let Some(recorded) = recorded::read_with(&args.past, Memory::default(), &mut [&mut watch])? else {
        return Ok(ExitCode::SUCCESS);
    };
    let now = recorded.snapshot.boot_ns;
    watch.detect_at(&recorded.world, now);
    let forest = Forest::new(&recorded.snapshot).with_gone(&recorded.gone);
    let requested = |target| FindingFilter::of_recording(target, &recorded.snapshot, &forest, &recorded.gone);
    let requested = args.target.as_deref().map(requested);
    let requested = requested.transpose()?;
    let found = about(watch.open(), requested.as_ref(), &recorded.world);
    recorded::with_damage(print(args, &found, now), recorded.damage)
}

fn print(args: &FindingsArgs, found: &[Finding], now: BootNs) -> Result<ExitCode, Failure> {
    view::print(|to| match args.output {
        SnapshotOutput::Table => findings::text(found, now, terminal::screen(&args.screen), to),
        SnapshotOutput::Json => findings::json(found, now, JsonForm::Indented, to),
    })?;
    Ok(exit_code(args, found.iter()))
}

fn exit_code<'a>(args: &FindingsArgs, mut found: impl Iterator<Item = &'a Finding>) -> ExitCode {
    match found.any(|finding| finding.severity >= args.fail_on) {
        true => ExitCode::from(code::NO_MATCH),
        false => ExitCode::SUCCESS,
    }
}
