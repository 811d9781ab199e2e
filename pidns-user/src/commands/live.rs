//! Shared by `trace`, `record` and `findings`: loads the kernel side and runs its events through the pipeline until a
//! signal, a limit or an error ends it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{
    background::Background,
    failure::{Failure, code},
    host_observer,
    interrupts::{CUT_OFF, Interrupts, Writer},
    notices::Notices,
    progress::Progress,
    threadless, waiting,
};
use crate::{
    cli::{Kernel, Stop},
    container::{ContainerTracker, Roots},
    event::{Body, snapshot::Snapshot},
    filter::Filter,
    findings::FindingsWatch,
    kernel::{
        capabilities::{self, Capabilities, Uses},
        clock,
        hooks::{Hook, HookForm},
        load::{self, Loaded, Settings},
        log::KernelLog,
        namespace,
        ring::Waker,
    },
    model::World,
    output::{
        View,
        printer::{Printer, Seq},
        sink::{Sink, WriteProgress},
    },
    pipeline::{Consumer, ContainerSource, Follow, Pipeline, Report, Resync, follow::KernelFilter},
    source::{
        live::Live,
        observer::{NoIterator, Observed, Observer},
        snapshots,
    },
    text::Count,
};

/// A stream's input, output and options.
pub(super) struct Stream<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) filter: Filter,
    /// Warnings about parts of the filter that may match nothing.
    pub(super) warnings: Vec<String>,
    pub(super) follow: Follow,
    /// Takes the snapshots; `None` if the stream keeps no model.
    pub(super) observer: Option<Observer>,
    pub(super) stop: &'a Stop,
    /// Whether to name containers that share the host's PID namespace.
    pub(super) with_host_containers: bool,
    /// Whether the output shows containers, or the filter selects some.
    pub(super) shows_containers: bool,
    /// Detects findings.
    pub(super) findings: Option<FindingsWatch>,
    /// The printed output; `None` if events are not printed.
    pub(super) output: Option<StreamOutput<'a>>,
    /// Shows progress on the terminal.
    pub(super) progress: Option<Progress>,
}

/// Destination of a printed stream.
pub(super) struct StreamOutput<'a> {
    pub(super) view: Box<dyn View + Send>,
    /// The output file; `None`: standard output.
    pub(super) file: Option<&'a Path>,
    /// Opens the output. Called when the kernel side is loaded, so that a failed start leaves no file.
    pub(super) open: Box<dyn FnOnce() -> Result<Sink, Failure> + 'a>,
}

/// The result of a stream that has ended.
pub(super) struct Ended {
    pub(super) code: ExitCode,
    pub(super) findings: Option<FindingsWatch>,
    pub(super) world: Option<World>,
}

/// The result of the stream's thread.
struct Streamed {
    report: Report,
    /// Printed events by name; `None` if nothing was to be printed.
    printed: Option<BTreeMap<&'static str, u64>>,
    findings: Option<FindingsWatch>,
    world: Option<World>,
}

impl Stream<'_> {
    /// Streams to the end, prints a summary, and returns the exit code with the findings and the model.
    pub(super) fn run(self) -> Result<Ended, Failure> {
        let Self {
            kernel,
            filter,
            warnings,
            follow,
            observer,
            stop: Stop { duration, count },
            with_host_containers,
            shows_containers,
            mut findings,
            output,
            progress: mut counted,
        } = self;
        let KernelFilter { event_mask, level_mask, namespaces, pids } = follow.kernel_filter(&filter);
        let existing = existing(follow);
        let (mut loaded, reader, waker) = load::load(&Settings {
            ring_bytes: kernel.ring_size,
            event_mask,
            level_mask,
            namespaces,
            pids,
            args: kernel.args,
            hooks: kernel.hooks,
            without_syscall_hooks: kernel.no_syscall_hooks.then_some("--no-syscall-hooks"),
            counting: None,
            log_level: kernel.bpf_log.map_or(0, |level| level as u8),
        })?;
        // Open the file before dropping privileges: it may be in a directory of another user.
        let (file, output) = match output {
            Some(StreamOutput { view, file, open }) => (file, Some((view, open()?))),
            None => (None, None),
        };
        capabilities::drop_all_but(Uses::BpfAndProc).map_err(|error| Failure::Io {
            what: "drop the capabilities that are no longer needed",
            error,
        })?;
        // Each thread has its own capabilities: threads started from here on inherit only the remaining ones.
        let with_host = with_host_containers || !filter.filter.containers.is_empty();
        let mut containers = containers(kernel.runtime_api, with_host);
        if let Some(findings) = &mut findings {
            findings.start_reading();
        }
        let notices = Notices::new(kernel.quiet);
        if let ContainerSource::Tracked(tracker) = &mut containers {
            if let Some(existing) = existing {
                tracker.track_all(&existing);
            }
            if shows_containers {
                notify_of_unreadable_files(notices);
            }
        }
        let log = match kernel.bpf_log {
            Some(_) => Some(KernelLog::new(&mut loaded, print_always).map_err(|error| Failure::Io {
                what: "read the kernel side's log",
                error: io::Error::other(error),
            })?),
            None => None,
        };
        warnings.iter().for_each(|warning| notices.notify(warning));
        notify_of_what_stays_unseen(&loaded, notices);
        if output.is_some() && io::stderr().is_terminal() {
            notices.notify(waiting::message(&loaded.hooks, &filter.filter, file.is_some()));
        }
        let progress = output.as_ref().map(|(_, sink)| sink.progress()).unwrap_or_default();
        let start = start(&loaded, &filter);
        let source = Live::new(loaded, reader, log, start, follow.has_reaps(&filter));
        let mut printer =
            output.map(|(view, sink)| Printer::new(filter, view, sink, Seq::Printed).stop_after(*count));
        let verify = kernel.verify_interval;
        let work = move |stop: &AtomicBool| {
            let mut pipeline = Pipeline::new(source, follow, containers);
            if let Some(observer) = observer {
                let resync = Resync::new(snapshots::start(observer), verify, follow.refresh());
                pipeline = pipeline.with_snapshots(resync);
            }
            let mut notices = notices;
            let mut consumers: Vec<&mut dyn Consumer> = Vec::new();
            consumers.extend(printer.as_mut().map(|printer| printer as &mut dyn Consumer));
            consumers.extend(findings.as_mut().map(|findings| findings as &mut dyn Consumer));
            consumers.extend(counted.as_mut().map(|counted| counted as &mut dyn Consumer));
            consumers.push(&mut notices);
            let (report, _, world) = pipeline.run(&mut consumers, stop);
            let printed = printer.map(|printer| printer.printed().clone());
            Streamed { report, printed, findings, world }
        };
        let Streamed { report, printed, findings, world } =
            until_the_end(work, &progress, &waker, *duration, notices)?;
        let lost = report.lost.values().sum::<u64>();
        conclude(report, printed.as_ref(), notices).map_err(|failure| failure.in_file(file))?;
        let code = if kernel.strict && lost > 0 { ExitCode::from(code::LOST) } else { ExitCode::SUCCESS };
        Ok(Ended { code, findings, world })
    }
}

/// Prints the summary, or returns the failure.
fn conclude(
    mut report: Report,
    printed: Option<&BTreeMap<&'static str, u64>>,
    notices: Notices,
) -> Result<(), Failure> {
    if !report.failures.is_empty() {
        return Err(report.failures.remove(0).into());
    }
    if let Some(error) = report.error.take() {
        return Err(Failure::of_pipeline(error, None));
    }
    if report.without_snapshot {
        notices.notify(
            "stopped before the first snapshot was ready: objects that existed at the start are missing",
        );
    }
    if report.without_repair {
        notices.notify(
            "events were lost, and the snapshot to repair the model was not ready at the end: \
             the final state comes from the events only",
        );
    }
    let summary = match printed {
        Some(printed) => summarize(&report, printed),
        None => losses(&report),
    };
    summary.iter().for_each(|line| notices.notify(line));
    Ok(())
}

/// Prints even with `-q`: the user requested the log.
fn print_always(line: &dyn std::fmt::Display) {
    Notices::new(false).notify(line);
}

/// The observer of a stream that keeps a model. Takes a first snapshot, to report a failure before anything is written.
pub(super) fn observer(kernel: &Kernel) -> Result<Observer, Failure> {
    let mut observer = Observer::before_a_stream().with_cgroups();
    let Observed { notices, .. } = observer.snapshot(false, &mut || {})?;
    notices.iter().for_each(|notice| Notices::new(kernel.quiet).notice(notice));
    check_iterator(&observer)?;
    Ok(observer)
}

pub(super) fn check_iterator(observer: &Observer) -> Result<(), Failure> {
    match observer.without_iterator() {
        // /proc shows the same processes.
        None | Some(NoIterator::Refused(_)) => Ok(()),
        Some(NoIterator::Elsewhere | NoIterator::Unprivileged) => Err(Failure::Usage(
            "`record`, `agent`, --snapshot and --verify-interval need the kernel's task iterator, which works in the host's own \
             PID namespace only"
                .to_owned(),
        )),
    }
}

/// A snapshot that shows which containers run. It is needed if /proc does not show the namespaces of other users'
/// processes, which the task iterator shows. `None` if /proc shows everything or the stream takes a snapshot anyway.
fn existing(follow: Follow) -> Option<Snapshot> {
    let is_wanted = follow == Follow::Nothing && !Capabilities::own().is_ok_and(Capabilities::may_trace_all);
    if !is_wanted || namespace::is_initial() != Some(true) {
        return None;
    }
    // On an error, go on: the stream still names containers that start later.
    Observer::before_a_stream()
        .without_holders()
        .snapshot(false, &mut || {})
        .ok()
        .map(|observed| observed.snapshot)
}

/// Explains why containers may be known only by the names in their cgroups.
fn notify_of_unreadable_files(notices: Notices) {
    let roots = Roots::host();
    let unreadable: Vec<String> =
        roots.unreadable().iter().map(|folder| folder.display().to_string()).collect();
    if !unreadable.is_empty() {
        notices.notify(format_args!(
            "containers are known only by their cgroups: {} cannot be read. Reading needs CAP_DAC_READ_SEARCH: run it with sudo",
            unreadable.join(", ")
        ));
    }
}

/// Finds containers; `with_host`: including those in the host's PID namespace. Outside the host's PID namespace it
/// finds none, because the PIDs in events differ from those in this /proc.
pub(super) fn containers(runtime_api: bool, with_host: bool) -> ContainerSource {
    if namespace::is_initial() != Some(true) {
        return ContainerSource::Unknown;
    }
    let tracker = ContainerTracker::new(host_observer::containers(runtime_api));
    let tracker = if with_host { tracker.with_host() } else { tracker };
    ContainerSource::Tracked(Box::new(tracker))
}

pub(super) fn start(loaded: &Loaded, filter: &Filter) -> Body {
    let trimmed = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let boot = Timestamp::from_nanosecond(clock::wall_offset_ns()).unwrap_or(Timestamp::UNIX_EPOCH);
    Body::StreamStart {
        version: env!("CARGO_PKG_VERSION").into(),
        host: trimmed("/proc/sys/kernel/hostname"),
        kernel: trimmed("/proc/sys/kernel/osrelease"),
        boot_time: format!("{boot:.9}"),
        hooks: loaded
            .hooks
            .iter()
            .map(|(hook, form)| (hook.name.to_owned(), form.to_string()))
            .collect::<BTreeMap<_, _>>(),
        hooked_boot_ns: Some(loaded.observed_since_ns),
        filter: filter.filter.clone(),
    }
}

fn notify_of_what_stays_unseen(loaded: &Loaded, notices: Notices) {
    let (functions, others): (Vec<_>, Vec<_>) = loaded.hooks.iter().partition(|(hook, _)| hook.is_function());
    if functions.iter().all(|(_, form)| matches!(form, HookForm::Off(_))) {
        notices.notify(
            "no function hooks, only tracepoints: no namespace.destroy, and some facts are less exact \
             (`pidns-trace check` lists them with the reasons)",
        );
    }
    for (hook, form) in others {
        if let Some(text) = unseen(hook, form) {
            notices.notify(text);
        }
    }
    if namespace::is_initial() == Some(false) {
        notices.notify(namespace::ELSEWHERE);
    }
}

pub(super) fn unseen(hook: &Hook, form: &HookForm) -> Option<String> {
    match form {
        HookForm::On(_) | HookForm::Unneeded => None,
        HookForm::Off(why) => {
            Some(format!("hook {} is off ({why}). Missing without it: {}", hook.name, hook.shows))
        }
    }
}

/// Runs `work` in its own thread and waits here for a signal or the end of `duration`. If no thread can be started,
/// runs `work` in this one. `work` must end when its flag is set.
fn until_the_end(
    work: impl FnOnce(&AtomicBool) -> Streamed + Send + 'static,
    progress: &Arc<WriteProgress>,
    waker: &Waker,
    duration: Option<Duration>,
    notices: Notices,
) -> Result<Streamed, Failure> {
    let io = |what| move |error| Failure::Io { what, error };
    let stop = Arc::new(AtomicBool::new(false));
    let (done, mut finished) = oneshot::channel();
    // Hand over the work when the thread runs: if the thread cannot be started, we still have `work`.
    let (hand_over, handed_over) = mpsc::channel();
    let stopped = Arc::clone(&stop);
    let worker = Background::get().and_then(|background| {
        let interrupts = {
            let _context = background.handle().enter();
            Interrupts::new()?
        };
        let work_handed_over = move || {
            let work: Box<dyn FnOnce(&AtomicBool) -> Streamed + Send> = handed_over.recv().ok()?;
            let streamed = work(&stopped);
            let _ = done.send(());
            Some(streamed)
        };
        let worker = std::thread::Builder::new().name("stream".to_owned()).spawn(work_handed_over)?;
        Ok((background, interrupts, worker))
    });
    let (background, mut interrupts, worker) = match worker {
        Ok(started) => started,
        Err(error) => {
            notices.notify(threadless::message(&error));
            let wake = waker.event_file().map_err(io("listen for signals"))?;
            let stop_requested = Arc::clone(&stop);
            threadless::listen(stop_requested, Arc::clone(progress), Some(wake), duration)
                .map_err(io("listen for signals"))?;
            return Ok(work(&stop));
        }
    };
    let _ = hand_over.send(Box::new(work));
    background.handle().block_on(async {
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let (mut running, mut interrupted) = tokio::select! {
            _ = &mut finished => (false, false),
            () = interrupts.next() => (true, true),
            () = over => (true, false),
        };
        if running {
            stop.store(true, Ordering::Release);
            waker.wake().map_err(io("wake the stream's thread"))?;
        }
        if running && !interrupted {
            // Until the end is requested, a slow reader may take any time.
            (running, interrupted) = tokio::select! {
                _ = &mut finished => (false, false),
                () = interrupts.next() => (true, true),
            };
        }
        if running && interrupted {
            tokio::select! {
                _ = &mut finished => {}
                () = interrupts.next_request() => std::process::exit(CUT_OFF),
                () = Writer::of(&worker).give_up(progress) => {}
            }
        }
        let streamed = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        streamed.ok_or_else(|| io("stream events")(io::Error::other("the stream's thread got no work")))
    })
}

/// The summary: printed events and losses, line by line.
fn summarize(report: &Report, printed: &BTreeMap<&'static str, u64>) -> Vec<String> {
    let Report { duration, .. } = report;
    let shown = || printed.iter().filter(|(name, _)| !name.starts_with("stream."));
    let by_name: Vec<String> = shown().map(|(name, count)| format!("{name} {count}")).collect();
    let colon = if by_name.is_empty() { "" } else { ": " };
    let total = Count(shown().map(|(_, count)| count).sum(), "event", "events");
    let first = format!("{total} in {:.1} s{colon}{}", duration.as_secs_f64(), by_name.join(", "));
    [first].into_iter().chain(losses(report)).collect()
}

/// The losses, line by line.
fn losses(report: &Report) -> Vec<String> {
    let remedy = |stage: &str| match stage {
        "ring" => "the ring buffer was full: try a larger --ring-size, or fewer events with -e",
        "table" => "a kernel map was full: watch fewer processes, with -n or -p",
        "hook" => "the kernel skipped a hook that was already running",
        _ => "records could not be decoded: please report this",
    };
    let lost = report.lost.iter();
    lost.map(|(stage, &count)| format!("LOST {} ({})", Count(count, "event", "events"), remedy(stage)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        btf::{Prototype, Value},
        hooks::Need,
    };

    #[test]
    fn summary_uses_singular_and_plural() {
        let mut report = Report { duration: Duration::from_millis(1250), ..Report::default() };
        let mut printed = BTreeMap::from([("stream.start", 1)]);
        assert_eq!(summarize(&report, &printed), ["0 events in 1.2 s"]);
        printed.insert("process.exit", 1);
        report.lost.insert("ring".to_owned(), 1);
        let lines = summarize(&report, &printed);
        assert_eq!(lines[0], "1 event in 1.2 s: process.exit 1");
        assert!(lines[1].starts_with("LOST 1 event (the ring buffer was full"), "{lines:?}");
        printed.insert("process.fork", 2);
        assert_eq!(summarize(&report, &printed)[0], "3 events in 1.2 s: process.exit 1, process.fork 2");
    }

    #[test]
    fn proc_replaces_an_iterator_that_the_kernel_refuses() {
        let check = |why: fn(bool) -> _| {
            let mut observer = Observer::refusing(why);
            observer.snapshot(false, &mut || {}).unwrap();
            check_iterator(&observer)
        };
        assert!(check(|_| Err(NoIterator::Refused("no such thing".to_owned()))).is_ok());
        let elsewhere = check(|_| Err(NoIterator::Elsewhere)).expect_err("a refusal");
        assert!(
            elsewhere.code() == code::USAGE && elsewhere.to_string().contains("host's own PID namespace")
        );
    }

    #[test]
    fn a_hook_that_is_off_is_reported_with_its_missing_events() {
        let shows = "refusals, and more";
        let prototype = Prototype { arguments: Vec::new(), returns: Value::Nothing };
        let hook = Hook { name: "sys_exit", programs: &[], shows, need: Need::Fallback(&[]), prototype };
        assert_eq!(unseen(&hook, &HookForm::On(hook.programs)), None);
        assert_eq!(unseen(&hook, &HookForm::Unneeded), None);
        assert_eq!(
            unseen(&hook, &HookForm::Off("--no-syscall-hooks".to_owned())).as_deref(),
            Some("hook sys_exit is off (--no-syscall-hooks). Missing without it: refusals, and more")
        );
    }
}
