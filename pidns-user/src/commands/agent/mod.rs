//! `pidns-trace agent`: a daemon that serves metrics. The kernel side counts what processes do. Events about namespaces
//! and inits go through the pipeline. A scrape reads both.

mod log;
mod site;
mod supervisor;

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use pidns_ebpf::abi::namespace_counters::MORE_NAMESPACES;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};
use tracing::{error, info, warn};

use self::{site::AgentSite, supervisor::Supervisor};
use super::{background::Background, failure::Failure, live, readings};
use crate::{
    cli::{AgentArgs, AgentLogLevel},
    filter::Filter,
    findings::FindingsWatch,
    kernel::{
        capabilities::{self, Uses},
        error::LoadError,
        hooks::HookForm,
        load::{self, Loaded, Settings},
        sandbox::{self, Protection},
    },
    metrics::{self, AgentFacts, Ledger},
    model::World,
    pipeline::{Consumer, Follow, Pipeline, Report, Resync, follow::KernelFilter},
    source::{live::Live, observer::Observer, snapshots},
    web::{Handle, Landing, Limits, Link, Options, Server, Site},
};

/// How long to wait for the stream to end. If a snapshot takes longer, the agent exits without waiting for it.
const LAST_MOMENTS: Duration = Duration::from_millis(800);

/// How many gone processes and namespaces the model remembers: few, because no metric is about them.
const REMEMBERED: usize = 64;

/// Serves until SIGTERM or SIGINT.
pub fn run(args: &AgentArgs) -> Result<ExitCode, Failure> {
    log::start(args.log_format, if args.quiet { AgentLogLevel::Error } else { args.log_level });
    // Create the server before loading the kernel side, so that a bad option is reported at once.
    let server = Server::bind(options(args))?;
    load::check_privileges()?;
    // This snapshot loads the iterator, while the process still has one thread and its privileges.
    let mut observer = Observer::before_a_stream();
    let observed = observer.snapshot(false, &mut || {})?;
    observed.notices.iter().for_each(log::notice);
    live::check_iterator(&observer)?;
    if let Some(why) = observer.without_iterator() {
        // Kernels before 6.18 have no namespace ids: there the start of the init identifies a namespace, and /proc
        // rounds starts.
        return Err(LoadError::Iterator(why.to_string()).into());
    }

    let follow = Follow::Namespaces { refresh: args.snapshot_interval };
    let filter = Filter::everything()?;
    let (mut loaded, reader, waker) = load::load(&settings(args, follow, &filter))?;
    let (ledger, facts) = counters(&mut loaded, args.bpf_stats)?;
    capabilities::drop_all_but(Uses::BpfAndProc)
        .map_err(|error| Failure::Io { what: "drop the capabilities that are no longer needed", error })?;
    // Threads started from here on inherit only the remaining capabilities.
    let containers = live::containers(args.runtime_api, false);
    let mut findings =
        FindingsWatch::live(args.thresholds.into(), readings::reader).alongside_others().with_slow_interval();
    findings.start_reading();
    let open = findings.counts();
    let (metrics, mut consumer, watch) = metrics::metrics(ledger, facts, open, args.namespace_limit)
        .map_err(|error| Failure::Io { what: "set up the metrics", error: io::Error::other(error) })?;
    let observer = observer.watched_by(Box::new(watch));
    let start = live::start(&loaded, &filter);
    log::hooks(&loaded);
    let source = Live::new(loaded, reader, None, start, follow.has_reaps(&filter));
    let site = Arc::new(AgentSite::new(metrics));
    site.note_protection("no_new_privs", Protection::On("all threads".to_owned()));
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, mut pulse) = (Arc::clone(&stop), site.pulse());
    let work = move || {
        let resync = Resync::new(snapshots::start(observer), None, follow.refresh());
        let pipeline = Pipeline::new(source, follow, containers)
            .with_snapshots(resync)
            .with_model(World::remembering(REMEMBERED));
        let consumers: &mut [&mut dyn Consumer] =
            &mut [&mut consumer, &mut findings, &mut log::Log, &mut pulse];
        pipeline.run(consumers, &stopped).0
    };
    let end = || {
        stop.store(true, Ordering::Release);
        waker.wake().map_err(|error| Failure::Io { what: "wake the stream's thread", error })
    };
    let protection = ProtectedFiles { config: args.web_config.clone() };
    serve(server, site, protection, work, end)
}

fn options(args: &AgentArgs) -> Options {
    let text = "Metrics of the PID namespaces of this machine: their number, the events of their inits and processes, \
                and findings.";
    Options {
        listen: args.listen.clone(),
        telemetry_path: args.telemetry_path.clone(),
        config_file: args.web_config.clone(),
        landing: Landing {
            title: "pidns-trace".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            paragraphs: vec![text.to_owned()],
            links: Vec::<Link>::new(),
        },
        limits: Limits::default(),
    }
}

fn settings(args: &AgentArgs, follow: Follow, filter: &Filter) -> Settings {
    let KernelFilter { event_mask, level_mask, namespaces, pids } = follow.kernel_filter(filter);
    Settings {
        ring_bytes: args.ring_size,
        event_mask,
        level_mask,
        namespaces,
        pids,
        args: false,
        hooks: args.hooks,
        without_syscall_hooks: (!args.syscall_hooks).then_some("--syscall-hooks was not given"),
        counting: Some(MORE_NAMESPACES),
        log_level: 0,
    }
}

/// The parts of the kernel side that a scrape reads.
fn counters(loaded: &mut Loaded, counts_runs: bool) -> Result<(Ledger, AgentFacts), Failure> {
    let (Some(table), Some(mut gauges)) = (loaded.namespace_counters.take(), loaded.gauges.take()) else {
        let error = io::Error::other("the kernel side has no counters");
        return Err(Failure::Io { what: "read the counters", error });
    };
    if counts_runs {
        gauges.count_runs().map_err(|error| Failure::Io {
            what: "have the kernel count the runs of BPF programs (--bpf-stats, which needs CAP_SYS_ADMIN)",
            error,
        })?;
    }
    let hooks = loaded.hooks.iter().map(|(hook, form)| (hook.name.to_owned(), form.to_string())).collect();
    let off = loaded.hooks.iter().filter(|(_, form)| matches!(form, HookForm::Off(_)));
    let unseen = off.map(|(hook, _)| (hook.name.to_owned(), hook.shows.to_owned())).collect();
    Ok((Ledger::new(Box::new(table)), AgentFacts { hooks, unseen, gauges }))
}

/// Runs `work` in its own thread and serves meanwhile. `end` requests `work` to return.
fn serve(
    server: Server,
    site: Arc<AgentSite>,
    protection: ProtectedFiles,
    work: impl FnOnce() -> Report + Send + 'static,
    end: impl Fn() -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let io = |what| move |error| Failure::Io { what, error };
    let background = Background::get().map_err(io("start the runtime"))?;
    let _context = background.handle().enter();
    let (done, mut finished) = oneshot::channel();
    let worker = thread::Builder::new()
        .name("stream".to_owned())
        .spawn(move || {
            let report = work();
            let _ = done.send(());
            report
        })
        .map_err(io("start the stream's thread"))?;
    // The stream's thread already has its capabilities. It starts the snapshot thread, which inherits them.
    site.note_protection("seccomp", sandbox::restrict_system_calls());
    let files = background.handle().spawn(async move { protection.apply() });
    let files = background.handle().block_on(files).map_err(|error| io("limit a thread")(error.into()))?;
    site.note_protection("landlock", files);
    let mut terminate = signal(SignalKind::terminate()).map_err(io("listen for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("listen for signals"))?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(io("listen for signals"))?;
    for address in server.addresses() {
        info!(%address, "serving");
    }
    let handle = server.handle();
    let (stop_server, server_stops) = oneshot::channel::<()>();
    let pages: Arc<dyn Site> = Arc::clone(&site) as _;
    let serving = background.handle().spawn(server.run(pages, async {
        let _ = server_stops.await;
    }));
    let supervisor = Supervisor::new(Arc::clone(&site));

    let is_over = background.handle().block_on(async {
        let mut supervising = pin!(supervisor.run());
        loop {
            tokio::select! {
                never = &mut supervising => match never {},
                _ = &mut finished => break true,
                _ = terminate.recv() => break false,
                _ = interrupt.recv() => break false,
                _ = hang_up.recv() => reload(&handle),
            }
        }
    });
    supervisor::stopping();
    info!("stopping");
    end()?;
    let _ = stop_server.send(());
    let has_ended = background.handle().block_on(async {
        let has_ended = is_over || timeout(LAST_MOMENTS, finished).await.is_ok();
        let _ = serving.await;
        has_ended
    });
    if !has_ended {
        warn!("the stream takes too long to end: the agent exits without waiting for it");
        return Ok(ExitCode::SUCCESS);
    }
    let mut report = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match report.error.take() {
        Some(error) => Err(Failure::of_pipeline(error, None)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The files that the HTTP server's thread may read.
struct ProtectedFiles {
    config: Option<PathBuf>,
}

impl ProtectedFiles {
    /// Restricts the calling thread and the threads that it starts. They serve clients and collect metrics, but take no
    /// snapshots.
    fn apply(&self) -> Protection {
        // A scrape reads the limits on PIDs, and aya reads the number of CPUs once in each thread.
        let mut readable = ["/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu"].map(Path::new).to_vec();
        // The configuration may name TLS keys in any directory.
        if self.config.is_some() {
            readable = vec![Path::new("/")];
        }
        readable.retain(|path| path.exists());
        sandbox::restrict_network_thread(&readable).unwrap_or_else(|error| Protection::Off(error.to_string()))
    }
}

fn reload(handle: &Handle) {
    match handle.reload() {
        Ok(()) => info!("the web configuration was read again"),
        Err(error) => error!(%error, "the web configuration stays as it was"),
    }
}
