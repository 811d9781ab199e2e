//! The daemons themselves, asked through their sockets: only where the user wants it, and only what their
//! files do not tell.
//!
//! A thread of its own asks, in the process's runtime, so that whoever asks need not be asynchronous and
//! waits no longer than it wants to.

use std::{
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker, errors::Error, models::ContainerInspectResponse};
use tokio::runtime::Handle;

use super::{
    super::Roots,
    annotations::{self, Whose, name},
    daemons::DaemonRecord,
};
use crate::event::container::{Container, Runtime};
use crate::event::identity::HostPid;

/// How long an answer may take. A daemon answers within milliseconds; one that does not is not asked again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that may wait for the thread: more means that it hangs.
const MOST_QUESTIONS: usize = 16;
/// A server's word for what it does not know.
const NOT_FOUND: u16 = 404;

/// A question, and where its answer goes.
struct Question {
    socket: PathBuf,
    id: String,
    /// Whether the kubelet made the cgroup around it.
    in_pod: bool,
    answer: SyncSender<Result<Option<DaemonRecord>, String>>,
}

/// Docker's and Podman's sockets. What they answer is believed as their files are: if it names the process.
///
/// The sockets of rootless daemons are not asked: they are their users', who could answer without end.
///
/// Its thread has ended when it is dropped: a question that is still open takes no longer than an answer may.
#[derive(Debug)]
pub struct Api {
    sockets: [Socket; 2],
    /// None while it is dropped.
    questions: Option<SyncSender<Question>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Socket {
    runtime: Runtime,
    path: PathBuf,
    /// It did not answer in time.
    is_dead: AtomicBool,
}

impl Api {
    /// Asks nothing yet. `runtime` is one that another thread runs. Fails where no thread can be started.
    pub fn new(roots: &Roots, runtime: Handle) -> std::io::Result<Self> {
        let (questions, received) = sync_channel(MOST_QUESTIONS);
        let thread = thread::Builder::new()
            .name("runtime-api".to_owned())
            .spawn(move || answer_all(&received, &runtime))?;
        let socket = |runtime, path: &Path| Socket {
            runtime: engine(runtime, path),
            path: path.to_owned(),
            is_dead: AtomicBool::new(false),
        };
        let sockets =
            [socket(Runtime::Docker, &roots.docker_socket), socket(Runtime::Podman, &roots.podman_socket)];
        Ok(Self { sockets, questions: Some(questions), thread: Some(thread) })
    }

    /// What the daemons know of the container of this id, if that is one of `runtime` (or of any), and which
    /// knows it.
    pub(super) fn ask(
        &self,
        runtime: Option<Runtime>,
        id: &str,
        in_pod: bool,
        doubts: &mut Vec<String>,
    ) -> Option<(Runtime, DaemonRecord)> {
        let asked = self.sockets.iter().filter(|socket| runtime.is_none_or(|named| named == socket.runtime));
        for socket in asked {
            if socket.is_dead.load(Ordering::Relaxed) || !socket.path.exists() {
                continue;
            }
            match self.ask_one(socket, id, in_pod) {
                Ok(Some(said)) => return Some((socket.runtime, said)),
                Ok(None) => {}
                Err(error) => doubts.push(format!("{}: {error}", socket.path.display())),
            }
        }
        None
    }

    fn ask_one(&self, socket: &Socket, id: &str, in_pod: bool) -> Result<Option<DaemonRecord>, String> {
        let (answer, answered) = sync_channel(1);
        let question = Question { socket: socket.path.clone(), id: id.to_owned(), in_pod, answer };
        self.questions
            .as_ref()
            .and_then(|questions| questions.try_send(question).ok())
            .ok_or_else(|| "too many questions wait for an answer".to_owned())?;
        answered.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            socket.is_dead.store(true, Ordering::Relaxed);
            Err(format!("no answer within {} s: it is not asked again", PATIENCE.as_secs()))
        })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        // The thread ends when nobody is left to ask.
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Whose socket this is: Podman's package for those who are used to Docker makes Docker's a link to its own.
fn engine(runtime: Runtime, socket: &Path) -> Runtime {
    let is_podman = socket.canonicalize().is_ok_and(|real| real.ends_with("podman.sock"));
    if is_podman { Runtime::Podman } else { runtime }
}

fn answer_all(questions: &Receiver<Question>, runtime: &Handle) {
    while let Ok(Question { socket, id, in_pod, answer }) = questions.recv() {
        let said = runtime.block_on(async {
            // Whoever asked waits no longer either.
            match tokio::time::timeout(PATIENCE, inspect(&socket, &id, in_pod)).await {
                Ok(said) => said.map_err(|error| error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            }
        });
        let _nobody_waits_any_more = answer.send(said);
    }
}

/// Asks for one container; none where the daemon has no such.
async fn inspect(socket: &Path, id: &str, in_pod: bool) -> Result<Option<DaemonRecord>, Error> {
    let path = socket.to_string_lossy();
    // An older daemon refuses the words of a newer client.
    let docker = Docker::connect_with_unix(&path, PATIENCE.as_secs(), API_DEFAULT_VERSION)?
        .negotiate_version()
        .await?;
    match docker.inspect_container(id, None).await {
        Ok(container) => Ok(Some(said(container, in_pod))),
        Err(Error::DockerResponseServerError { status_code: NOT_FOUND, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn said(inspected: ContainerInspectResponse, in_pod: bool) -> DaemonRecord {
    let pid = inspected.state.and_then(|state| state.pid).and_then(|pid| u32::try_from(pid).ok());
    let config = inspected.config.unwrap_or_default();
    let mut names = Container::default();
    // Podman, which answers as Docker does, has as many words of its own.
    let whose = Whose { runtime: Some(Runtime::Docker), in_pod };
    annotations::fill(&mut names, &config.labels.unwrap_or_default(), whose);
    let own = inspected.name.unwrap_or_default();
    names.name = names.name.or_else(|| name(own.strip_prefix('/').unwrap_or(&own)));
    names.image = names.image.or_else(|| name(&config.image.unwrap_or_default()));
    DaemonRecord { pid: pid.and_then(HostPid::known), names }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn its_thread_has_ended_when_it_is_dropped() {
        let base = tempfile::tempdir().unwrap();
        let socket = base.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = thread::spawn(move || {
            let connection = listener.accept();
            thread::sleep(Duration::from_millis(300));
            drop(connection);
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let background = thread::spawn(move || drop(runtime.block_on(stopped)));
        let api = Api::new(&Roots::below(base.path()), handle).unwrap();
        let (answer, answered) = sync_channel(1);
        let question = Question { socket, id: "web".to_owned(), in_pod: false, answer };
        api.questions.as_ref().unwrap().try_send(question).unwrap();
        drop(api);
        assert!(answered.try_recv().is_ok_and(|said| said.is_err()), "the daemon has hung up by now");
        daemon.join().unwrap();
        drop(stop);
        background.join().unwrap();
    }
}
