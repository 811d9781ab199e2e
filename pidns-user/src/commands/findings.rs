//! `pidns-trace findings`: what is wrong, with the facts that prove it.

use std::process::ExitCode;

use jiff::tz::TimeZone;
use rustix::stdio::stdout;

use super::{
    asked::{Asked, about},
    failure::code,
    host_observer::HostObserver,
    live::{self, Stream, StreamOutput},
    notices::Notices,
    readings, recorded, terminal, view,
};
use crate::{
    cli::{FindingsArgs, Memory, SnapshotOutput, Stop},
    commands::failure::Failure,
    event::{finding::Finding, identity::BootNs},
    filter::{Filter, FilterArgs},
    findings::FindingsWatch,
    kernel::{clock, load},
    model::Forest,
    output::{Json, JsonForm, Table, View, fields::Fields, findings, sink::Sink},
    pipeline::Follow,
    target::find_namespace,
};

/// Watches for a while, or reads a recording, and prints what is wrong.
pub fn run(args: &FindingsArgs) -> Result<ExitCode, Failure> {
    if args.past.from.is_some() {
        return of_recording(args);
    }
    load::check_privileges()?;
    let asked = args.target.as_deref().map(|target| asked(target, args)).transpose()?;
    let kernel = args.kernel();
    let observer = Some(live::observer(&kernel)?);
    let mut watch = FindingsWatch::live(args.thresholds.into(), readings::reader);
    if let Some(asked) = &asked {
        watch = watch.asking_about(asked.namespaces.clone());
    }
    // A container in a namespace that others share is asked for by its name.
    let is_shared = asked.as_ref().is_some_and(|asked| !asked.containers.is_empty());
    let namespaces = asked.iter().filter(|_| !is_shared).flat_map(|asked| &asked.namespaces);
    let filter_args = FilterArgs {
        events: vec!["finding".to_owned()],
        namespaces: namespaces.map(ToString::to_string).collect(),
        containers: args.target.iter().filter(|_| is_shared).cloned().collect(),
        ..FilterArgs::default()
    };
    let output = args.watch.then(|| StreamOutput {
        view: view(args),
        file: None,
        open: Box::new(|| Ok(Sink::new(stdout()))),
    });
    if args.watch {
        watch = watch.beside_others();
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
        return Ok(exit_code(args, about(watch.open(), asked.as_ref(), &world).iter()));
    }
    // What happened since the last detection.
    watch.detect_at(&world, clock::boottime_ns());
    let found = about(watch.open(), asked.as_ref(), &world);
    print(args, &found, clock::boottime_ns())
}

fn view(args: &FindingsArgs) -> Box<dyn View + Send> {
    match args.output {
        SnapshotOutput::Json => Box::new(Json),
        SnapshotOutput::Table => {
            Box::new(Table::new(TimeZone::system(), &Fields::default(), true, terminal::screen(&args.screen)))
        }
    }
}

/// What a TARGET stands for on this machine.
fn asked(target: &str, args: &FindingsArgs) -> Result<Asked, Failure> {
    let mut observer = HostObserver::before_a_stream(args.past.runtime_api, Notices::new(true));
    let mut snapshot = observer.snapshot(false)?;
    observer.name_containers_for(Some(target), &mut snapshot)?;
    let forest = Forest::new(&snapshot);
    Asked::of(target, &snapshot, &forest)
}

fn of_recording(args: &FindingsArgs) -> Result<ExitCode, Failure> {
    let mut watch = FindingsWatch::recorded(args.thresholds.into());
    let Some(recorded) = recorded::read_with(&args.past, Memory::default(), &mut [&mut watch])? else {
        return Ok(ExitCode::SUCCESS);
    };
    let now = recorded.snapshot.boot_ns;
    watch.detect_at(&recorded.world, now);
    let forest = Forest::new(&recorded.snapshot).with_gone(&recorded.gone);
    let asked = |target| Asked::of_recording(target, &recorded.snapshot, &forest, &recorded.gone);
    let asked = args.target.as_deref().map(asked);
    let asked = asked.transpose()?;
    let found = about(watch.open(), asked.as_ref(), &recorded.world);
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
