//! A webhook server that records Alertmanager's notifications.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::process::POLL;

/// How long one read or write on the connection may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Upper bound for one request, header and body, in bytes.
const LARGEST: u64 = 16 << 20;

/// An alert in one of Alertmanager's notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Resolved (true) or firing (false).
    pub is_resolved: bool,
    /// `alertname`, `severity`, and the labels of the alert's series.
    pub labels: BTreeMap<String, String>,
    /// `summary`, `description`, `runbook_url`.
    pub annotations: BTreeMap<String, String>,
}

/// A server on a free port of the loopback interface. Stopped on drop.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Notification>>>,
    ends: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Webhook {
    /// Starts the server.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // Non-blocking, so the thread can check `ends` between connections.
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let server = thread::spawn({
            let (received, ends) = (Arc::clone(&received), Arc::clone(&ends));
            move || {
                while !ends.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => {
                            // A body that is not Alertmanager's was answered with 400. A broken connection or header
                            // gets no answer. Both are dropped.
                            if let Ok(alerts) = serve(&stream) {
                                received.lock().unwrap_or_else(PoisonError::into_inner).extend(alerts);
                            }
                        }
                        Err(_) => thread::sleep(POLL),
                    }
                }
            }
        });
        Ok(Self { address, received, ends, server: Some(server) })
    }

    /// The address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All notifications so far, oldest first.
    pub fn received(&self) -> Vec<Notification> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // The thread may have panicked: then it has ended too.
        let _ = self.server.take().map(JoinHandle::join);
    }
}

/// Reads one request and answers it.
fn serve(stream: &TcpStream) -> io::Result<Vec<Notification>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = BufReader::new(stream).take(LARGEST);
    let mut length = 0;
    let mut line = String::new();
    while request.read_line(&mut line)? > 0 && !line.trim().is_empty() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut body = Vec::new();
    request.take(length).read_to_end(&mut body)?;
    let alerts = read(&body).ok_or_else(|| io::Error::other("not an Alertmanager message"));
    let status = if alerts.is_ok() { "200 OK" } else { "400 Bad Request" };
    let mut answer = stream;
    write!(answer, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    alerts
}

/// Reads the alerts of a message in version 4 of Alertmanager's format.
fn read(body: &[u8]) -> Option<Vec<Notification>> {
    let message: Value = serde_json::from_slice(body).ok()?;
    let strings = |object: &Value| {
        let string = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        object.as_object()?.iter().map(string).collect::<Option<BTreeMap<_, _>>>()
    };
    let one = |alert: &Value| {
        let is_resolved = match alert["status"].as_str()? {
            "firing" => false,
            "resolved" => true,
            _ => return None,
        };
        let [labels, annotations] = [&alert["labels"], &alert["annotations"]].map(strings);
        Some(Notification { is_resolved, labels: labels?, annotations: annotations? })
    };
    message["alerts"].as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_recorded_and_other_bodies_get_400() {
        let webhook = Webhook::start().expect("a free port");
        let post = |body: &str| {
            let mut stream = TcpStream::connect(webhook.address()).expect("connect to the webhook");
            let length = body.len();
            write!(stream, "POST / HTTP/1.1\r\nHost: x\r\ncontent-length: {length}\r\n\r\n{body}")
                .expect("send the request");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("read the answer");
            answer
        };
        let refused = post("{}");
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
        let taken = post(
            r#"{"alerts": [{"status": "resolved", "labels": {"alertname": "A"}, "annotations": {"summary": "s"}}]}"#,
        );
        assert!(taken.starts_with("HTTP/1.1 200"), "{taken}");
        let strings = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let expected = Notification {
            is_resolved: true,
            labels: strings("alertname", "A"),
            annotations: strings("summary", "s"),
        };
        assert_eq!(webhook.received(), [expected]);
    }
}
