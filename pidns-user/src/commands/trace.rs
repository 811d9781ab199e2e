//! `pidns-trace [trace]`: prints the live stream.

use std::process::ExitCode;

use jiff::tz::TimeZone;
use rustix::stdio::stdout;

use super::{
    host_observer::HostObserver,
    live::{self, Stream, StreamOutput},
    notices::Notices,
    readings, terminal,
};
use crate::{
    cli::{Kernel, Output, TraceArgs, ViewArgs},
    commands::failure::Failure,
    filter::{Filter, FilterArgs},
    findings::FindingsWatch,
    kernel::load,
    model::Forest,
    output::sink::Sink,
    output::{Json, Table, View, table::Field},
    pipeline::Follow,
    target::{self, ParsedTarget, TargetError, find, find_namespace},
};

/// Runs the live stream to its end.
pub fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let TraceArgs { filters, stop, view: how, kernel, findings, thresholds } = args;
    let view = view(how)?;
    let mut args = filters.args(kernel.no_syscall_hooks);
    args.findings = *findings;
    let mut warnings = find_containers(&mut args, kernel)?;
    let filter = Filter::new(&args, find_namespace)?;
    warnings.splice(0..0, target::warnings(&filter.filter.namespaces, &filter.filter.pids));
    let has_findings = filter.has("finding");
    let is_followed = filters.snapshot || kernel.verify_interval.is_some() || has_findings;
    let (follow, observer) = if is_followed {
        load::check_privileges()?;
        (Follow::Everything, Some(live::observer(kernel)?))
    } else {
        (Follow::Nothing, None)
    };
    let findings =
        has_findings.then(|| FindingsWatch::live((*thresholds).into(), readings::reader).alongside_others());
    let open = Box::new(|| Ok(Sink::new(stdout())));
    let output = Some(StreamOutput { view, file: None, open });
    let with_host_containers = has_findings;
    let shows_containers = !filter.filter.containers.is_empty()
        || how.output == Output::Json
        || how.fields.as_ref().is_none_or(|fields| fields.has(Field::Container));
    let stream = Stream {
        kernel,
        filter,
        warnings,
        follow,
        observer,
        stop,
        with_host_containers,
        shows_containers,
        findings,
        output,
        progress: None,
    };
    stream.run().map(|ended| ended.code)
}

/// Finds the containers that a stream's filter names. Replaces each name in `--ns` with the inode number of its
/// namespace. Returns a warning for each name in `--container` that no container has now: such a container may start
/// later.
fn find_containers(args: &mut FilterArgs, kernel: &Kernel) -> Result<Vec<String>, Failure> {
    let is_name = |target: &String| matches!(ParsedTarget::of(target), Ok(ParsedTarget::Name(_)));
    if args.containers.is_empty() && !args.namespaces.iter().any(is_name) {
        return Ok(Vec::new());
    }
    let mut observer =
        HostObserver::before_a_stream(kernel.runtime_api, Notices::new(kernel.quiet)).without_holders();
    let mut snapshot = observer.snapshot(false)?;
    observer.name_containers(&mut snapshot)?;
    let forest = Forest::new(&snapshot);
    for target in args.namespaces.iter_mut().filter(|target| is_name(target)) {
        *target = match find::namespace(target, &snapshot, &forest) {
            // A usage error, like a PID without a process: the stream would show nothing.
            Err(TargetError::NoMatch(text)) => return Err(Failure::Usage(format!("--ns: {text}"))),
            found => found?.to_string(),
        };
    }
    let all = || snapshot.containers().chain(snapshot.sharing_containers());
    let is_there = |name: &str| all().any(|(_, container)| container.is_within(name));
    let unknown = args.containers.iter().filter(|name| !name.is_empty() && !is_there(name));
    let warn = |name: &String| {
        let there = find::existing_containers(&snapshot);
        format!(
            "--container {name}: no container has this name now ({there}); containers that start later are shown"
        )
    };
    Ok(unknown.map(warn).collect())
}

/// The view for these options.
pub(super) fn view(args: &ViewArgs) -> Result<Box<dyn View + Send>, Failure> {
    Ok(match args.output {
        Output::Json if args.fields.is_some() => {
            return Err(Failure::Usage(
                "--fields chooses columns of the table; an event in JSON has all its fields".to_owned(),
            ));
        }
        Output::Json => Box::new(Json),
        Output::Table => Box::new(Table::new(
            TimeZone::system(),
            &args.fields.clone().unwrap_or_default(),
            !args.no_headers,
            terminal::screen(&args.screen),
        )),
    })
}
