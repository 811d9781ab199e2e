//! The server: listens, accepts connections, and stops.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use hyper::{body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinSet, yield_now},
    time::{sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    ConfigError, Options, Site, WebError,
    answer::Answers,
    config::Config,
    connections::{Connection, Connections},
    landing,
    live_config::LiveConfig,
    passwords::Passwords,
    paths,
    stream::TrackedStream,
    throttle::LogThrottle,
    workers::Workers,
};

/// Pause after a failed accept, for example when no file descriptor is left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// Time limit for sending [`HTTPS_EXPECTED`].
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Answer to a client that speaks HTTP instead of TLS.
const HTTPS_EXPECTED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 48\r\nConnection: close\r\n\r\nThis port speaks HTTPS: use https:// in the URL.";

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<std::net::TcpListener>,
    addresses: Vec<SocketAddr>,
    options: Options,
    shared: Arc<Shared>,
}

/// The state that the server and its handles share.
#[derive(Debug)]
struct Shared {
    config: LiveConfig,
    connections: Arc<Connections>,
}

impl Shared {
    /// Returns the current configuration.
    fn config(&self) -> Arc<Config> {
        let before = self.config.last();
        let config = self.config.current(Instant::now());
        if !Arc::ptr_eq(&before, &config) {
            self.forget_clients();
        }
        config
    }

    /// Closes connections that were accepted under the old configuration, so that clients connect again.
    fn forget_clients(&self) {
        self.connections.close_all("the web configuration has changed");
    }
}

/// Makes a running server read its configuration again.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// Reads the configuration file and the files that it names again, as on SIGHUP. If they change, the server does
    /// this by itself within a second or at the next request.
    ///
    /// # Errors
    /// The files are invalid. The last valid configuration stays.
    pub fn reload(&self) -> Result<(), ConfigError> {
        self.shared.config.reload(Instant::now())?;
        self.shared.forget_clients();
        Ok(())
    }
}

impl Server {
    /// Checks the options, reads the configuration and listens. Clients are answered once the server runs. Call it
    /// before capabilities are dropped; it starts no thread.
    ///
    /// # Errors
    /// The path or the configuration is invalid, or an address is not available.
    pub fn bind(options: Options) -> Result<Self, WebError> {
        paths::check(&options.telemetry_path)?;
        let config = LiveConfig::read(options.config_file.clone(), Instant::now())?;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for address in &options.listen {
            let failed = |error| WebError::Listen { address: *address, error };
            let listener = std::net::TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        if listeners.is_empty() {
            return Err(WebError::NoAddress);
        }
        let connections = Connections::new(options.limits.clone());
        Ok(Self { listeners, addresses, options, shared: Arc::new(Shared { config, connections }) })
    }

    /// The addresses that it listens on, with the ports that the kernel chose for port 0.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns a handle that can read the configuration again.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Answers clients until `stop` is done. After that, unfinished answers have [`super::Limits::stop_time`]. A
    /// scrape that takes longer continues in its thread until the process ends. Needs a tokio runtime with I/O
    /// and time. Its threads get the capabilities of the calling thread.
    ///
    /// # Errors
    /// Its threads cannot be started, or the runtime cannot wait for connections.
    pub async fn run(self, site: Arc<dyn Site>, stop: impl Future<Output = ()>) -> Result<(), WebError> {
        let Self { listeners, options, shared, .. } = self;
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(TcpListener::from_std)
            .collect::<Result<_, _>>()
            .map_err(WebError::Accept)?;
        let limits = options.limits;
        let password_worker = Workers::start("web-password", 1).map_err(WebError::Thread)?;
        let answers = Arc::new(Answers {
            landing: Bytes::from(landing::page(&options.landing, &options.telemetry_path)),
            telemetry_path: options.telemetry_path,
            scrapes: Arc::new(Semaphore::new(limits.scrapes)),
            workers: Workers::start("web-scrape", limits.scrapes).map_err(WebError::Thread)?,
            passwords: Passwords::new(password_worker)
                .map_err(|_| WebError::Thread(io::Error::other("the kernel provides no random numbers")))?,
            refusals: LogThrottle::default(),
            limits: limits.clone(),
            site,
        });
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let accept_failures = LogThrottle::default();
        let mut stop = pin!(stop);
        loop {
            let now = Instant::now();
            let deadline = shared.connections.next_deadline(now);
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = late => shared.connections.close_late(Instant::now()),
                Some(_ended) = tasks.join_next() => {}
                accepted = accept(&listeners), if shared.connections.have_room(now) => match accepted {
                    Ok((stream, peer)) => {
                        let config = shared.config();
                        let connection = shared.connections.enter(peer, config.tls.is_some(), Instant::now());
                        let client = Client {
                            connection,
                            config,
                            shared: Arc::clone(&shared),
                            answers: Arc::clone(&answers),
                            stopped: stopped.clone(),
                        };
                        tasks.spawn(client.serve(stream));
                        // Its request may have arrived already. Read it before another connection replaces this one.
                        yield_now().await;
                    }
                    Err(error) => {
                        if let Some(left_out) = accept_failures.admit(Instant::now()) {
                            tracing::warn!(%error, left_out, "cannot accept a connection");
                        }
                        shared.connections.close_oldest(Instant::now(), "the process has no file descriptor left");
                        sleep(AFTER_FAILURE).await;
                    }
                },
                () = shared.connections.changed() => {}
            }
        }
        drop(listeners);
        shared.connections.close_all("the server stops");
        stopping.send_replace(true);
        let all_ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(limits.stop_time, all_ended).await.is_err() {
            tracing::debug!("the server stopped before some clients had their whole answer");
        }
        Ok(())
    }
}

/// Waits for a connection on any of the addresses.
async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        for listener in listeners {
            match listener.poll_accept(cx) {
                // The client was gone before the connection was accepted.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(accepted) => return Poll::Ready(accepted),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}

/// Removes a connection from the list when its task ends.
struct LeaveOnDrop(Arc<Connection>);

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A client, and everything that serving it needs.
struct Client {
    connection: Arc<Connection>,
    /// The configuration under which it was accepted.
    config: Arc<Config>,
    shared: Arc<Shared>,
    answers: Arc<Answers>,
    stopped: watch::Receiver<bool>,
}

impl Client {
    async fn serve(self, stream: TcpStream) {
        let connection = Arc::clone(&self.connection);
        let peer = connection.peer;
        // This also happens if the site panics or the task is aborted.
        let _leave_on_drop = LeaveOnDrop(Arc::clone(&connection));
        tokio::select! {
            biased;
            () = connection.closed() => {}
            result = self.admit(stream) => if let Err(error) = result {
                tracing::debug!(%peer, %error, "a connection has ended early");
            }
        }
    }

    async fn admit(self, stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let Some(tls) = self.config.tls.clone() else { return self.http(stream).await };
        let mut first = [0];
        stream.peek(&mut first).await?;
        if first[0].is_ascii_alphabetic() {
            refuse_plain(stream).await?;
            return Err("it speaks HTTP where HTTPS is expected".into());
        }
        let stream = TlsAcceptor::from(tls).accept(stream).await?;
        self.connection.handshake_is_done(Instant::now());
        self.http(stream).await
    }

    async fn http<S>(self, stream: S) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { connection, config: first, shared, answers, mut stopped } = self;
        let stream = TokioIo::new(TrackedStream::new(stream, Arc::clone(&connection)));
        let header_bytes = answers.limits.header_bytes;
        let is_stopping = stopped.clone();
        let service = service_fn(move |request| {
            let (connection, answers) = (Arc::clone(&connection), Arc::clone(&answers));
            let config = shared.config();
            let is_last = !Arc::ptr_eq(&first, &config) || *is_stopping.borrow();
            async move {
                Ok::<_, std::convert::Infallible>(
                    answers.answer(&config, &connection, request, is_last).await,
                )
            }
        });
        // The phases of the connection have their own deadlines.
        let mut http = pin!(
            http1::Builder::new()
                .header_read_timeout(None)
                .max_buf_size(header_bytes.max(8 * 1024))
                .max_header_size(header_bytes)
                .serve_connection(stream, service)
        );
        tokio::select! {
            result = http.as_mut() => return Ok(result?),
            _ = stopped.changed() => http.as_mut().graceful_shutdown(),
        }
        Ok(http.await?)
    }
}

/// Sends the refusal. It reads the received part of the request first, because the kernel would drop the answer
/// otherwise.
async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    let mut request = [0; 4096];
    let _read = stream.try_read(&mut request)?;
    timeout(REFUSAL_TIME, async {
        stream.write_all(HTTPS_EXPECTED).await?;
        stream.shutdown().await
    })
    .await?
}
