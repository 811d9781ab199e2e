//! Answers requests.

use std::{sync::Arc, time::Instant};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{
        ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName,
        HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
    },
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    Format, Limits, Site, SiteError,
    body::AnswerBody,
    config::Config,
    connections::Connection,
    encoding::{accepts_gzip, gzip},
    passwords::{Passwords, Verdict},
    paths,
    throttle::LogThrottle,
    workers::Workers,
};
use crate::text::JsonText;

/// Everything that answering needs.
pub(super) struct Answers {
    pub(super) site: Arc<dyn Site>,
    pub(super) telemetry_path: String,
    pub(super) landing: Bytes,
    pub(super) limits: Limits,
    pub(super) scrapes: Arc<Semaphore>,
    pub(super) workers: Workers,
    pub(super) passwords: Passwords,
    pub(super) refusals: LogThrottle,
}

/// The status, headers and body of an answer, before they become a [`Response`].
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    bytes: Bytes,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self { status, headers, bytes: bytes.into() }
    }

    /// Makes an answer of one sentence.
    fn text(status: StatusCode, sentence: impl Into<String>) -> Self {
        let mut sentence = sentence.into();
        sentence.push('\n');
        Self::new(status, TEXT, sentence)
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    fn busy(sentence: &str) -> Self {
        Self::text(StatusCode::SERVICE_UNAVAILABLE, sentence).with(RETRY_AFTER, "1")
    }
}

impl Answers {
    /// Answers a request. `is_last`: the connection is closed after it.
    pub(super) async fn answer(
        &self,
        config: &Config,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
        is_last: bool,
    ) -> Response<AnswerBody> {
        connection.answering();
        let limit = self.limits.answer_time;
        let answer = timeout(limit, self.checked(config, connection, &request)).await.unwrap_or_else(|_| {
            tracing::warn!(peer = %connection.peer, path = request.uri().path(), "an answer took longer than {limit:?}");
            Answer::busy("The answer takes too long.")
        });
        // The server does not read the body, so it cannot find where the next request begins.
        let request_has_body = !request.body().is_end_stream();
        let length = if request.method() == Method::HEAD { 0 } else { answer.bytes.len() };
        let answer = if connection.sending(length, Instant::now()) {
            answer
        } else {
            tracing::warn!(peer = %connection.peer, "refused a request: other clients have not read their answers yet");
            Answer::busy("Other clients have not read their answers yet.")
        };
        let mut response = Response::new(AnswerBody::new(answer.bytes, Arc::clone(connection)));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers
            .extend(answer.headers.into_iter().map(|(name, value)| (Some(name), value)).collect::<Vec<_>>());
        for (name, value) in &config.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if is_last || request_has_body {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Checks the rate limit and the password, and refuses a body; then answers.
    async fn checked(&self, config: &Config, connection: &Connection, request: &Request<Incoming>) -> Answer {
        if config.rate.as_ref().is_some_and(|rate| !rate.take(Instant::now())) {
            tracing::debug!(peer = %connection.peer, "refused a request: rate_limit");
            return Answer::text(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests: the rate limit is reached.",
            );
        }
        if let Some(users) = &config.users {
            let verdict = self.passwords.check(users, request.headers().get(AUTHORIZATION)).await;
            if verdict != Verdict::Right {
                self.log_refusal(connection, verdict);
                return Answer::text(
                    StatusCode::UNAUTHORIZED,
                    "The user or the password is missing or wrong.",
                )
                .with(WWW_AUTHENTICATE, "Basic realm=\"pidns-trace\", charset=\"UTF-8\"");
            }
        }
        if !request.body().is_end_stream() {
            return Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "Requests must not have a body.");
        }
        self.page(request).await
    }

    fn log_refusal(&self, connection: &Connection, verdict: Verdict) {
        if verdict == Verdict::NotGiven {
            tracing::debug!(peer = %connection.peer, "refused a request without user and password");
        } else if let Some(left_out) = self.refusals.admit(Instant::now()) {
            tracing::warn!(peer = %connection.peer, left_out, "refused a request with a wrong user or password");
        }
    }

    async fn page(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let is_known = path == self.telemetry_path
            || [paths::LANDING, paths::HEALTH, paths::READINESS, paths::STATUS].contains(&path);
        if !is_known {
            return Answer::text(StatusCode::NOT_FOUND, "There is no page at this path. / lists all pages.");
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are supported.")
                .with(ALLOW, "GET, HEAD");
        }
        match path {
            paths::LANDING => Answer::new(StatusCode::OK, "text/html; charset=utf-8", self.landing.clone()),
            paths::HEALTH => state(self.site.health()),
            paths::READINESS => state(self.site.readiness()),
            paths::STATUS => {
                let site = Arc::clone(&self.site);
                let status = move || {
                    let mut text = JsonText(Vec::new());
                    let written = serde_json::to_writer_pretty(&mut text, &site.status());
                    written.map(|()| text.0).map_err(|error| SiteError::Failed(error.to_string()))
                };
                self.collected(request.headers(), "application/json", status).await
            }
            _ => {
                let site = Arc::clone(&self.site);
                let format = Format::Text;
                self.collected(request.headers(), format.content_type(), move || site.metrics(format)).await
            }
        }
    }

    /// Runs slow work in a worker, if one is free soon, and compresses the result there.
    async fn collected(
        &self,
        headers: &HeaderMap,
        content_type: &'static str,
        collect: impl FnOnce() -> Result<Vec<u8>, SiteError> + Send + 'static,
    ) -> Answer {
        let wait = self.limits.scrape_wait;
        let permit = match timeout(wait, Arc::clone(&self.scrapes).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => {
                tracing::debug!("refused a scrape: {} are under way", self.limits.scrapes);
                return Answer::busy("Too many scrapes are under way.");
            }
        };
        let takes_gzip = accepts_gzip(headers);
        let work = move || {
            // Held until the work ends, even if the client has gone: the worker is busy until then.
            let _permit = permit;
            let bytes = collect()?;
            let compressed = if takes_gzip { gzip(&bytes) } else { None };
            Ok::<_, SiteError>(compressed.map_or((bytes, false), |compressed| (compressed, true)))
        };
        match self.workers.run(work).await {
            Some(Ok((bytes, is_gzip))) => {
                let answer = Answer::new(StatusCode::OK, content_type, bytes).with(VARY, "Accept-Encoding");
                if is_gzip { answer.with(CONTENT_ENCODING, "gzip") } else { answer }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot collect an answer");
                let status = match error {
                    SiteError::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
                    SiteError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Answer::text(status, error.to_string())
            }
            None => {
                tracing::error!("cannot collect an answer: the code that collects it panicked");
                Answer::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The agent has a defect; its log has the reason.",
                )
            }
        }
    }
}

fn state(state: Result<(), String>) -> Answer {
    match state {
        Ok(()) => Answer::text(StatusCode::OK, "ok"),
        Err(reason) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
