//! Queries the daemons through their sockets: only if the user requests it, and only for facts that their files lack.
//!
//! A query is one HTTP request on a Unix socket, and its answer is limited in time and size. (A client library would
//! limit neither, and would add 58 crates.)

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::{
    super::Roots,
    daemons::{self, DaemonRecord},
};
use crate::event::container::Runtime;

/// Time limit for an answer. Daemons answer within milliseconds. One that does not is never queried again.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest accepted answer in bytes, headers included. A container's takes about 10 KiB.
const LARGEST_ANSWER: u64 = 4 << 20;
/// Limit for the text of an error, in bytes.
const LONGEST_REASON: usize = 200;

/// Docker's and Podman's sockets. Their answers are trusted like their files, so only if they name the process.
///
/// Sockets of rootless daemons are not queried: they belong to users, who could answer without end.
#[derive(Debug)]
pub struct Api {
    sockets: [Socket; 2],
}

#[derive(Debug)]
struct Socket {
    runtime: Runtime,
    path: PathBuf,
    /// Whether it failed to answer in time.
    is_dead: AtomicBool,
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("no answer within {} s: it will not be queried again", TIMEOUT.as_secs())]
    Silent,
    #[error("its answer is larger than {} MiB", LARGEST_ANSWER >> 20)]
    Endless,
    #[error("{0}")]
    Io(io::Error),
    #[error("its answer is not HTTP")]
    NoHttp,
    #[error("its answer is {status}: {reason}")]
    Refused { status: u16, reason: String },
    #[error("its answer is damaged: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // A socket with a timeout returns EAGAIN.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

impl Api {
    /// The sockets below these roots. This queries no daemon.
    pub fn new(roots: &Roots) -> Self {
        let socket = |runtime, path: &Path| Socket {
            runtime: engine(runtime, path),
            path: path.to_owned(),
            is_dead: AtomicBool::new(false),
        };
        Self {
            sockets: [
                socket(Runtime::Docker, &roots.docker_socket),
                socket(Runtime::Podman, &roots.podman_socket),
            ],
        }
    }

    /// Returns what a daemon knows about the container with this id, and which daemon. With `runtime`, only that
    /// runtime's daemon is queried.
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
            match inspect(&socket.path, id, in_pod) {
                Ok(Some(record)) => return Some((socket.runtime, record)),
                Ok(None) => {}
                Err(error) => {
                    if matches!(error, AskError::Silent | AskError::Endless) {
                        socket.is_dead.store(true, Ordering::Relaxed);
                    }
                    doubts.push(format!("{}: {error}", socket.path.display()));
                }
            }
        }
        None
    }
}

/// The runtime that owns this socket. Podman's Docker-compatible package makes Docker's socket a link to its own.
fn engine(runtime: Runtime, socket: &Path) -> Runtime {
    let is_podman = socket.canonicalize().is_ok_and(|real| real.ends_with("podman.sock"));
    if is_podman { Runtime::Podman } else { runtime }
}

/// Queries one container; `None` if the daemon does not know it.
fn inspect(socket: &Path, id: &str, in_pod: bool) -> Result<Option<DaemonRecord>, AskError> {
    let answer = get(socket, &format!("/containers/{id}/json"))?;
    let (status, body) = parse(&answer).ok_or(AskError::NoHttp)?;
    match status {
        // Both daemons answer in the form of Docker's file. Podman only has different values for the status.
        200 => Ok(Some(daemons::of_docker(serde_json::from_slice(body)?, in_pod))),
        404 => Ok(None),
        status => {
            let reason = body[..body.len().min(LONGEST_REASON)].trim_ascii();
            Err(AskError::Refused { status, reason: String::from_utf8_lossy(reason).into_owned() })
        }
    }
}

/// Returns the daemon's whole answer to a GET, headers and body. With HTTP 1.0 it ends with the connection, not
/// chunked.
fn get(socket: &Path, path: &str) -> Result<Vec<u8>, AskError> {
    let end = Instant::now() + TIMEOUT;
    let flags = SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(io::Error::from)?;
    // The send timeout also limits connecting, which waits if no process accepts.
    set_socket_timeout(&fd, Timeout::Send, Some(TIMEOUT)).map_err(io::Error::from)?;
    let address = SocketAddrUnix::new(socket).map_err(io::Error::from)?;
    connect(&fd, &address).map_err(io::Error::from)?;
    let mut stream = UnixStream::from(fd);
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(AskError::Silent);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if answer.len() as u64 > LARGEST_ANSWER {
            return Err(AskError::Endless);
        }
    }
}

/// Splits an answer into status and body.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = str::from_utf8(&answer[..end]).ok()?;
    let mut words = head.lines().next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    Some((words.next()?.parse().ok()?, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    #[test]
    fn an_answer_is_split_into_status_and_body() {
        let parsed = |text: &str| parse(text.as_bytes()).map(|(status, body)| (status, body.to_vec()));
        assert_eq!(parsed("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some((200, b"{}".to_vec())));
        assert_eq!(parsed("HTTP/1.1 404 Not Found\r\n\r\n"), Some((404, Vec::new())));
        for text in
            ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 x y\r\n\r\n"]
        {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    /// The error for a daemon that answers like this, and the time it took.
    fn answered_with(answer: impl Fn(&mut UnixStream) + Send + 'static) -> (String, Duration) {
        let base = tempfile::tempdir().unwrap();
        let socket = base.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            answer(&mut connection);
        });
        let began = Instant::now();
        let error = inspect(&socket, "web", false).expect_err("no answer").to_string();
        let took = began.elapsed();
        daemon.join().unwrap();
        (error, took)
    }

    #[test]
    fn an_endless_answer_is_abandoned_at_the_size_limit() {
        let (error, took) = answered_with(|connection| {
            let piece = [b'x'; 64 << 10];
            while connection.write_all(&piece).is_ok() {}
        });
        assert_eq!(error, "its answer is larger than 4 MiB");
        assert!(took < TIMEOUT, "{took:?}");
    }

    #[test]
    fn a_slow_answer_is_abandoned_at_the_time_limit() {
        let (error, took) = answered_with(|connection| {
            while connection.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        assert_eq!(error, "no answer within 2 s: it will not be queried again");
        assert!(took >= TIMEOUT && took < TIMEOUT * 2, "{took:?}");
    }

    #[test]
    fn a_daemon_that_accepts_no_connection_times_out() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("docker.sock");
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&fd, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&fd, 0).unwrap();
        // Takes the only place in the queue.
        let _waits = UnixStream::connect(&path).unwrap();
        let began = Instant::now();
        let error = inspect(&path, "web", false).expect_err("no answer").to_string();
        assert!(error.starts_with("no answer within 2 s"), "{error}");
        assert!(began.elapsed() < TIMEOUT * 2);
    }
}
