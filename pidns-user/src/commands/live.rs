//! What `trace` and `record` share: the kernel side is loaded, and streams until something ends it.

use std::{
    collections::BTreeMap,
    fs, io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rustix::{io::ioctl_fionread, stdio::stdout};
use tokio::sync::oneshot;

use super::notices::Notices;
use crate::{
    cli::{Kernel, Stop},
    commands::failure::{Failure, code},
    commands::interrupts::Interrupts,
    container::ContainerTracker,
    event::Body,
    filter::Filter,
    kernel::log::KernelLog,
    kernel::{
        capabilities::{self, Uses},
        clock,
        hooks::{Form, Hook},
        load::{self, Loaded, Settings},
        namespace,
        ring::{Reader, Waker},
    },
    output::View,
    output::sink::Sink,
    pipeline::resync::{Existing, Holders, Look},
    source::live::{Report, Session},
    source::observer::{self, Observer, Without},
    text::Count,
};

/// What is streamed, and where to.
pub(super) struct Live<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) filter: Filter,
    pub(super) stop: &'a Stop,
    pub(super) view: Box<dyn View + Send>,
    /// Opens what it is written to, when it is known that there is something to write.
    pub(super) open: Box<dyn FnOnce() -> Result<Sink, Failure> + 'a>,
    /// What exists, where that is followed.
    pub(super) existing: Option<Existing>,
}

impl Live<'_> {
    /// Streams to the end, tells what there is to tell about it, and says how it went.
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let Self { kernel, filter, stop: Stop { duration, count }, view, open, existing } = self;
        // To follow what exists takes everything: it is filtered here then.
        let everything = existing.as_ref().map(|_| Filter::everything()).transpose()?;
        let wanted = everything.as_ref().unwrap_or(&filter);
        let (mut loaded, reader, waker) = load::load(&Settings {
            ring_bytes: kernel.ring_size,
            event_mask: wanted.event_mask(),
            level_mask: wanted.level_mask,
            namespaces: wanted.filter.namespaces.clone(),
            pids: wanted.filter.pids.clone(),
            args: kernel.args,
            hooks: kernel.hooks,
            syscall_hooks: !kernel.no_syscall_hooks,
            log_level: kernel.bpf_log.map_or(0, |level| level as u8),
        })?;
        // With all privileges still: a file may be wanted in a folder that is another user's.
        let sink = open()?;
        capabilities::drop_all_but(Uses::BpfAndProc).map_err(|error| Failure::Io {
            what: "drop the capabilities that are not needed any more",
            error,
        })?;
        // What it starts of threads have what this one has left: each thread has its own capabilities.
        let containers = containers(kernel)?;
        let log = match kernel.bpf_log {
            Some(_) => Some(KernelLog::new(&mut loaded).map_err(|error| Failure::Io {
                what: "read the kernel side's log",
                error: io::Error::other(error),
            })?),
            None => None,
        };
        let notices = Notices::new(kernel.quiet);
        filter.warnings.iter().for_each(|warning| notices.notify(warning));
        say_what_stays_unseen(&loaded, notices);
        let stop = Arc::new(AtomicBool::new(false));
        let session = Session {
            start: start(&loaded, &filter),
            filter,
            view,
            sink,
            count: *count,
            existing,
            containers,
            stop: Arc::clone(&stop),
        };
        let report = stream(session, loaded, reader, &waker, &stop, *duration, log)?;
        summarize(&report).iter().for_each(|line| notices.notify(line));
        let lost = report.lost.values().sum::<u64>();
        Ok(if kernel.strict && lost > 0 { ExitCode::from(code::LOST) } else { ExitCode::SUCCESS })
    }
}

/// What follows all that exists. It is looked at at once: what cannot be done is to be told before anything is written.
pub(super) fn existing(kernel: &Kernel) -> Result<Existing, Failure> {
    let observer = Observer::before_a_stream(false, Notices::new(kernel.quiet));
    existing_with(observer, kernel.verify_interval)
}

fn existing_with(mut observer: Observer, verify_interval: Option<Duration>) -> Result<Existing, Failure> {
    observer.snapshot(false)?;
    match observer.without() {
        // /proc tells of the same processes.
        None | Some(Without::Refused(_)) => {}
        Some(Without::Elsewhere | Without::Unprivileged) => {
            return Err(Failure::Usage(
                "what exists is told by the kernel's task iterator, which takes the host's own PID namespace: a \
                 recording, --snapshot and --verify-interval begin with it"
                    .to_owned(),
            ));
        }
    }
    let look: Look = Box::new(move |holders| observer.snapshot(holders == Holders::Sought));
    Ok(Existing::new(look, verify_interval))
}

/// What names the containers; none where the events' numbers of processes are not those of this /proc.
fn containers(kernel: &Kernel) -> Result<Option<ContainerTracker>, Failure> {
    if namespace::is_initial() != Some(true) {
        return Ok(None);
    }
    observer::names(kernel.runtime_api).map(|names| Some(ContainerTracker::new(names)))
}

fn start(loaded: &Loaded, filter: &Filter) -> Body {
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
        filter: filter.filter.clone(),
    }
}

fn say_what_stays_unseen(loaded: &Loaded, notices: Notices) {
    let (functions, others): (Vec<_>, Vec<_>) = loaded.hooks.iter().partition(|(hook, _)| hook.is_function());
    if functions.iter().all(|(_, form)| matches!(form, Form::Off(_))) {
        notices.notify(
            "no function hooks, tracepoints alone: no namespace.destroy, and some facts are less exact \
             (`pidns-trace check` tells which, and why)",
        );
    }
    for (hook, form) in others {
        if let Some(words) = unseen(hook, form) {
            notices.notify(words);
        }
    }
    if namespace::is_initial() == Some(false) {
        notices.notify(namespace::ELSEWHERE);
    }
}

fn unseen(hook: &Hook, form: &Form) -> Option<String> {
    match form {
        Form::On(_) | Form::Unneeded => None,
        Form::Off(why) => {
            Some(format!("hook {} is off ({why}). Not seen without it: {}", hook.name, hook.shows))
        }
    }
}

/// The stream runs in a thread of its own; this one waits for what ends it.
fn stream(
    session: Session,
    loaded: Loaded,
    reader: Reader,
    waker: &Waker,
    stop: &AtomicBool,
    duration: Option<Duration>,
    mut log: Option<KernelLog>,
) -> Result<Report, Failure> {
    let io = |what| move |error| Failure::Io { what, error };
    let progress = session.sink.progress();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("start the runtime"))?;
    runtime.block_on(async {
        let mut interrupts = Interrupts::new().map_err(io("listen for signals"))?;
        let (done, mut finished) = oneshot::channel();
        let worker = std::thread::Builder::new()
            .name("stream".to_owned())
            .spawn(move || {
                let result = session.run(loaded, reader, || {
                    if let Some(log) = &mut log {
                        log.flush();
                    }
                });
                let _ = done.send(());
                result
            })
            .map_err(io("start the stream's thread"))?;
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let running = tokio::select! {
            _ = &mut finished => false,
            () = interrupts.next() => true,
            () = over => true,
        };
        if running {
            stop.store(true, Ordering::Release);
            waker.wake().map_err(io("wake the stream's thread"))?;
            tokio::select! {
                _ = &mut finished => {}
                // It is stuck writing to a reader that does not read. One that reads shows by what is left in the pipe,
                // long before it has made room for a write.
                () = interrupts.cut_off(|| Some((progress.of_flush()?, ioctl_fionread(stdout()).ok()))) => {
                    std::process::exit(130)
                }
            }
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What happened, and what was lost, line by line.
fn summarize(report: &Report) -> Vec<String> {
    let Report { events, lost, duration } = report;
    let shown = || events.iter().filter(|(name, _)| !name.starts_with("stream."));
    let by_name: Vec<String> = shown().map(|(name, count)| format!("{name} {count}")).collect();
    let colon = if by_name.is_empty() { "" } else { ": " };
    let total = Count(shown().map(|(_, count)| count).sum(), "event", "events");
    let first = format!("{total} in {:.1} s{colon}{}", duration.as_secs_f64(), by_name.join(", "));
    let remedy = |stage: &str| match stage {
        "ring" => "the ring buffer was full: try a larger --ring-size, or fewer events with -e",
        "table" => "a table of the kernel side was full: watch fewer processes, with -n or -p",
        "hook" => "the kernel left a hook out while it was running already",
        _ => "records could not be decoded: please report this",
    };
    let lost = lost
        .iter()
        .map(|(stage, &count)| format!("LOST {} ({})", Count(count, "event", "events"), remedy(stage)));
    [first].into_iter().chain(lost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        btf::{Prototype, Value},
        hooks::Need,
        load::LoadError,
    };

    #[test]
    fn a_summary_counts_in_good_grammar() {
        let mut report = Report { duration: Duration::from_millis(1250), ..Report::default() };
        report.events.insert("stream.start", 1);
        assert_eq!(summarize(&report), ["0 events in 1.2 s"]);
        report.events.insert("process.exit", 1);
        report.lost.insert("ring", 1);
        let lines = summarize(&report);
        assert_eq!(lines[0], "1 event in 1.2 s: process.exit 1");
        assert!(lines[1].starts_with("LOST 1 event (the ring buffer was full"), "{lines:?}");
        report.events.insert("process.fork", 2);
        assert_eq!(summarize(&report)[0], "3 events in 1.2 s: process.exit 1, process.fork 2");
    }

    #[test]
    fn where_the_kernel_refuses_its_iterator_proc_will_do() {
        let refused =
            Observer::refused(|| Err(Without::Refused(LoadError::Iterator("no such thing".to_owned()))));
        assert!(existing_with(refused, Some(Duration::from_secs(1))).is_ok());
        let elsewhere = existing_with(Observer::refused(|| Err(Without::Elsewhere)), None).err();
        let elsewhere = elsewhere.expect("a refusal");
        assert!(
            elsewhere.code() == code::USAGE && elsewhere.to_string().contains("host's own PID namespace")
        );
    }

    #[test]
    fn a_hook_that_is_off_is_told_with_what_stays_unseen() {
        let shows = "refusals, and more";
        let prototype = Prototype { arguments: Vec::new(), returns: Value::Nothing };
        let hook = Hook { name: "sys_exit", programs: &[], shows, need: Need::Fallback(&[]), prototype };
        assert_eq!(unseen(&hook, &Form::On(hook.programs)), None);
        assert_eq!(unseen(&hook, &Form::Unneeded), None);
        assert_eq!(
            unseen(&hook, &Form::Off("--no-syscall-hooks".to_owned())).as_deref(),
            Some("hook sys_exit is off (--no-syscall-hooks). Not seen without it: refusals, and more")
        );
    }
}
