//! The process's asynchronous runtime, for signals and the agent's HTTP server. It has its own thread.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::{self, JoinHandle},
};

use tokio::{runtime::Handle, sync::oneshot};

static RUNNING: Mutex<Weak<Background>> = Mutex::new(Weak::new());

/// The runtime. Its thread ends with the last user. It must not outlive them, because a thread keeps the capabilities
/// that the process had at its start, and loading BPF programs needs a process with a single thread.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// The running runtime, or a new one.
    pub(crate) fn get() -> io::Result<Arc<Self>> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(background) = running.upgrade() {
            return Ok(background);
        }
        let background = Arc::new(Self::start()?);
        *running = Arc::downgrade(&background);
        Ok(background)
    }

    fn start() -> io::Result<Self> {
        // tokio panics if too few descriptors are left (`OsExtraData`, src/signal/unix.rs), so try before.
        let room = [UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?];
        drop(room);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // Also ends when the sender is dropped.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name("background".to_owned()).spawn(run)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Starts tasks.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_users_share_one_runtime() {
        let first = Background::get().unwrap();
        assert!(Arc::ptr_eq(&first, &Background::get().unwrap()));
        assert_eq!(first.handle().block_on(async { 7 }), 7);
    }
}
