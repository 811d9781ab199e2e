//! The process's asynchronous runtime: signals, and HTTP of the agent. It runs in a thread of its own, while something needs it.

use std::{
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::{self, JoinHandle},
};

use tokio::{runtime::Handle, sync::oneshot};

static RUNNING: Mutex<Weak<Background>> = Mutex::new(Weak::new());

/// The runtime. Its thread has ended when the last one who has it is gone: a thread keeps the capabilities that its process had
/// when it was started, and loading BPF programs wants no other thread.
#[derive(Debug)]
pub(crate) struct Background {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// The one that runs, or a new one.
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
        // Where too few descriptors are left, tokio panics (`OsExtraData`, src/signal/unix.rs): so it is tried before.
        let room = [UnixStream::pair()?, UnixStream::pair()?, UnixStream::pair()?];
        drop(room);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            // Ends when this is dropped, too.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name("background".to_owned()).spawn(run)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// What tasks are started with.
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
    fn there_is_one_runtime_at_a_time() {
        let first = Background::get().unwrap();
        assert!(Arc::ptr_eq(&first, &Background::get().unwrap()));
        assert_eq!(first.handle().block_on(async { 7 }), 7);
    }
}
