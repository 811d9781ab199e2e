//! Threads for blocking work. They are started with the server and stay, because a scrape must work even if no PID is
//! left on the host for a new thread. That is when the metrics matter most.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Threads and their queue of jobs. The threads end when this is dropped and the jobs are done.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Mutex<Sender<Job>>,
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(name: &str, count: usize) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..count {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(name.to_owned()).spawn(move || work(&waiting))?;
        }
        Ok(Self { jobs: Mutex::new(jobs) })
    }

    /// Runs a job in one of the threads. Returns `None` if it panicked. If the future is dropped first, the job never
    /// starts.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (result, done) = oneshot::channel();
        let job = Box::new(move || {
            if !result.is_closed() {
                // The client may be gone.
                let _ = result.send(job());
            }
        });
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job).ok()?;
        done.await.ok()
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The panic hook has printed the panic. The thread must stay for the next job.
        let _panicked = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_leaves_the_thread_for_the_next_one() {
        let workers = Workers::start("test", 1).unwrap();
        assert_eq!(
            workers
                .run(|| if true {
                    panic!("on purpose")
                })
                .await,
            None
        );
        assert_eq!(workers.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn a_job_without_a_waiting_client_never_starts() {
        let workers = Workers::start("test", 1).unwrap();
        let (begin, wait) = mpsc::channel::<()>();
        let (began, seen) = mpsc::channel();
        let first = workers.run(move || wait.recv().is_ok());
        let mut first = Box::pin(first);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), &mut first).await.is_err());
        let second = workers.run(move || began.send(()));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), second).await.is_err());
        begin.send(()).unwrap();
        assert_eq!(first.await, Some(true));
        assert_eq!(workers.run(|| ()).await, Some(()));
        seen.try_recv().unwrap_err();
    }
}
