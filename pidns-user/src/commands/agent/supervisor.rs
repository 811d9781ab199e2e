//! Reports the agent's state to systemd (sd_notify(3)), if systemd has started it.

use std::{convert::Infallible, future, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tracing::warn;

use super::site::AgentSite;
use crate::web::Site as _;

/// How often to check whether the agent is ready.
const INTERVAL: Duration = Duration::from_millis(100);

/// Reports when the agent is ready, and answers the watchdog while the agent is healthy.
pub(super) struct Supervisor {
    site: Arc<AgentSite>,
    /// The watchdog's timeout; `None` if systemd does not watch.
    watchdog: Option<Duration>,
}

impl Supervisor {
    pub(super) fn new(site: Arc<AgentSite>) -> Self {
        Self { site, watchdog: sd_notify::watchdog_enabled() }
    }

    /// Never returns. Must not run in a thread under Landlock, which cannot reach systemd's socket.
    pub(super) async fn run(self) -> Infallible {
        while self.site.readiness().is_err() {
            tokio::time::sleep(INTERVAL).await;
        }
        notify(NotifyState::Ready);
        let Some(watchdog) = self.watchdog else { return future::pending().await };
        loop {
            // Notify twice per timeout (sd_watchdog_enabled(3)).
            tokio::time::sleep(watchdog / 2).await;
            if self.site.health().is_ok() {
                notify(NotifyState::Watchdog);
            }
        }
    }
}

/// Reports that the agent is about to end.
pub(super) fn stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd cannot be notified");
    }
}
