//! Settings of a test run, from the environment.

use std::process::Command;

use pidns_user::kernel::hooks::HookSet;

pub(crate) const SECONDS_FOR_A_STORM: u64 = 180;

/// The number of processes in the big storms.
pub(crate) fn lives() -> u64 {
    std::env::var("PIDNS_TEST_LIVES").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000)
}

fn hooks_setting() -> Option<String> {
    std::env::var("PIDNS_TEST_HOOKS").ok()
}

/// The set of hooks to test with.
pub(crate) fn hooks() -> HookSet {
    match hooks_setting().as_deref() {
        Some("function") => HookSet::Function,
        Some("tracepoint") => HookSet::Tracepoint,
        _ => HookSet::Auto,
    }
}

/// Passes the set of hooks to test with to a command that takes `--hooks`.
pub(crate) fn add_hooks(command: &mut Command) {
    if let Some(hooks) = hooks_setting() {
        command.arg("--hooks").arg(hooks);
    }
}
