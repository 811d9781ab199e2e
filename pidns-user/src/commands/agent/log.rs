//! The agent's log: lines on stderr, for people or programs.

use std::io::{self, IsTerminal as _};

use tracing::{Level, info, warn};

use crate::{
    cli::{AgentLogLevel, LogFormat},
    commands::{live, notices},
    event::{
        Body,
        finding::{Finding, FindingState},
    },
    kernel::{hooks::HookForm, load::Loaded},
    output::findings,
    pipeline::{Consumer, Update, Wants},
    source::observer::Notice,
};

/// Starts to log.
pub(super) fn start(format: LogFormat, level: AgentLogLevel) {
    let level = match level {
        AgentLogLevel::Error => Level::ERROR,
        AgentLogLevel::Warn => Level::WARN,
        AgentLogLevel::Info => Level::INFO,
        AgentLogLevel::Debug => Level::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}

/// Logs the notices of a snapshot.
pub(super) fn notice(notice: &Notice) {
    notices::messages(notice).into_iter().for_each(|message| warn!("{message}"));
}

/// Logs which hooks are attached, and which information is missing without the others.
pub(super) fn hooks(loaded: &Loaded) {
    for (hook, form) in &loaded.hooks {
        match form {
            HookForm::On(_) => info!(hook = hook.name, %form, "attached"),
            // Many kernels have no function hooks; tracepoints replace most of them.
            HookForm::Off(why) if hook.is_function() => info!(hook = hook.name, why, "not attached"),
            HookForm::Off(_) => live::unseen(hook, form).into_iter().for_each(|message| warn!("{message}")),
            HookForm::Unneeded => {}
        }
    }
}

/// Logs findings and the notices of a run.
pub(super) struct Log;

impl Consumer for Log {
    fn update(&mut self, update: &Update<'_>) -> Wants {
        if let Body::Finding { state, finding } = &update.event.body {
            let what = findings::summary(finding);
            let Finding { id, severity, ns, .. } = &**finding;
            let ns = ns.as_ref().map(|ns| ns.inum.0);
            match state {
                FindingState::Opened | FindingState::Updated => warn!(%id, %severity, ns, "found: {what}"),
                FindingState::Closed => info!(%id, %severity, ns, "over: {what}"),
            }
        }
        Wants::Along
    }

    fn notice(&mut self, notice: &Notice) {
        self::notice(notice);
    }
}
