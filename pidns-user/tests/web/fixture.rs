//! Runs a server in a thread, and provides its data.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pidns_user::web::{Format, Handle, Landing, Limits, Link, Options, Server, Site, SiteError, WebError};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// The agent behind the server. The test sets how it answers.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    pub(crate) scrapes: AtomicUsize,
    /// The length of an answer with metrics, in bytes.
    pub(crate) length: AtomicUsize,
    /// While this is true, scrapes wait.
    held: Mutex<bool>,
    released: Condvar,
    pub(crate) ailment: Mutex<Option<String>>,
    pub(crate) panics: Mutex<bool>,
}

impl Agent {
    pub(crate) fn hold(&self) {
        *locked(&self.held) = true;
    }

    pub(crate) fn release(&self) {
        *locked(&self.held) = false;
        self.released.notify_all();
    }

    fn state(&self) -> Result<(), String> {
        locked(&self.ailment).clone().map_or(Ok(()), Err)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of the metrics.
pub(crate) const LINE: &str = "pidns_namespace_creations_total{method=\"clone\"} 7\n";

impl Site for Agent {
    fn metrics(&self, format: Format) -> Result<Vec<u8>, SiteError> {
        assert_eq!(format, Format::Text);
        self.scrapes.fetch_add(1, Ordering::SeqCst);
        let held = locked(&self.held);
        drop(self.released.wait_while(held, |held| *held).unwrap_or_else(PoisonError::into_inner));
        if *locked(&self.panics) {
            panic!("on purpose");
        }
        self.state().map_err(SiteError::Failed)?;
        let length = self.length.load(Ordering::SeqCst).max(LINE.len());
        let mut text = LINE.repeat(length.div_ceil(LINE.len())).into_bytes();
        text.truncate(length);
        Ok(text)
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({"hooks": ["fork"]})
    }

    fn health(&self) -> Result<(), String> {
        self.state()
    }

    fn readiness(&self) -> Result<(), String> {
        self.state().map_err(|reason| format!("not yet: {reason}"))
    }
}

/// A running server. Stopped on drop.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) agent: Arc<Agent>,
    pub(crate) handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), WebError>>>,
}

pub(crate) fn options(config_file: Option<PathBuf>, limits: Limits) -> Options {
    Options {
        listen: vec![([127, 0, 0, 1], 0).into()],
        telemetry_path: "/metrics".to_owned(),
        config_file,
        landing: Landing {
            title: "pidns-trace".to_owned(),
            version: "0.1.0".to_owned(),
            paragraphs: vec!["PID namespaces of this host.".to_owned()],
            links: vec![Link { address: "https://example.org/".to_owned(), text: "Manual".to_owned() }],
        },
        limits,
    }
}

impl Running {
    pub(crate) fn plain() -> Self {
        Self::start(None, Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::start(None, limits)
    }

    pub(crate) fn configured(folder: &Folder) -> Self {
        Self::start(Some(folder.path("web.yml")), Limits::default())
    }

    pub(crate) fn start(config_file: Option<PathBuf>, limits: Limits) -> Self {
        let server = Server::bind(options(config_file, limits)).expect("start the server");
        let (address, handle) = (server.addresses()[0], server.handle());
        let agent = Arc::new(Agent::default());
        let (stop, stopped) = oneshot::channel();
        let site = Arc::clone(&agent);
        let run = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("create a runtime");
            runtime.block_on(server.run(site, async {
                let _dropped = stopped.await;
            }))
        };
        let thread = Some(thread::spawn(run));
        Self { address, agent, handle, stop: Some(stop), thread }
    }

    /// Stops the server. Returns the time that this took.
    pub(crate) fn stop(&mut self) -> Duration {
        let begin = Instant::now();
        self.stop = None;
        let Some(thread) = self.thread.take() else { return Duration::ZERO };
        thread.join().expect("the server does not panic").expect("the server returned an error");
        begin.elapsed()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.agent.release();
        self.stop();
    }
}

/// A directory with the files of a configuration.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn with(config: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("create a temporary directory"));
        folder.write("web.yml", config);
        folder
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("write the file");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Waits until the condition is true, for at most five seconds.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(5), "{what} did not happen within five seconds");
        thread::sleep(Duration::from_millis(10));
    }
}
