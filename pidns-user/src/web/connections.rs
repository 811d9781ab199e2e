//! The open connections: the phase of each, its deadline, and which one to close if there are too many.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::Limits;

/// A client that takes longer than this to read its answer is slow. Its connection may be closed to make room for
/// another one.
const SLOW: Duration = Duration::from_secs(1);

/// Answers up to this length are always sent, whatever is still unread. For all connections together, that is a
/// mebibyte.
const SHORT: usize = 16 * 1024;

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    open: Mutex<Vec<Arc<Connection>>>,
    /// Notified when a connection has ended, or a deadline may have come closer.
    changed: Notify,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: SocketAddr,
    phase: Mutex<Phase>,
    /// If set, the connection is closed after its present answer, for this reason.
    last_answer: OnceLock<&'static str>,
    close: Notify,
    all: Arc<Connections>,
}

/// The phase of a connection, and when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// TLS handshake.
    Handshake(Instant),
    /// The server waits for the headers of a request, or has received a part.
    Head(Instant),
    /// The connection is open after an answer, without another request.
    Idle(Instant),
    /// An answer is being made.
    Answering,
    /// An answer is being sent.
    Sending { since: Instant, bytes: usize, is_handed_over: bool },
}

impl Phase {
    /// The deadline of this phase, and the reason for closing after that.
    fn deadline(self, limits: &Limits) -> Option<(Instant, &'static str)> {
        match self {
            Self::Handshake(since) => {
                Some((since + limits.handshake_time, "the TLS handshake took too long"))
            }
            Self::Head(since) => {
                Some((since + limits.header_time, "the headers of its request took too long"))
            }
            Self::Idle(since) => Some((since + limits.idle_time, "it sent no further request")),
            Self::Answering => None,
            Self::Sending { since, .. } => Some((since + limits.read_time, "it reads its answer too slowly")),
        }
    }

    /// Since when the server has waited for the client; `None` if the connection must not be closed to make room for
    /// another one. A connection that has just been opened can be closed too, but the one that has waited longest is
    /// closed first.
    fn replaceable_since(self, now: Instant) -> Option<Instant> {
        match self {
            Self::Handshake(since) | Self::Head(since) | Self::Idle(since) => Some(since),
            Self::Answering => None,
            Self::Sending { since, .. } => (now >= since + SLOW).then_some(since),
        }
    }

    fn is_sending(self) -> bool {
        matches!(self, Self::Sending { .. })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), changed: Notify::new() })
    }

    /// Adds a new connection. If there are too many, closes another one.
    pub(super) fn enter(self: &Arc<Self>, peer: SocketAddr, is_tls: bool, now: Instant) -> Arc<Connection> {
        if locked(&self.open).len() >= self.limits.connections {
            self.close_oldest(now, "its place is needed for another connection");
        }
        let phase = Mutex::new(if is_tls { Phase::Handshake(now) } else { Phase::Head(now) });
        let connection = Arc::new(Connection {
            peer,
            phase,
            last_answer: OnceLock::new(),
            close: Notify::new(),
            all: Arc::clone(self),
        });
        locked(&self.open).push(Arc::clone(&connection));
        connection
    }

    /// Whether there is room for another connection, or one that may be closed for it.
    pub(super) fn have_room(&self, now: Instant) -> bool {
        let open = locked(&self.open);
        open.len() < self.limits.connections
            || open.iter().any(|connection| connection.phase().replaceable_since(now).is_some())
    }

    /// Closes the connection that has made the server wait longest. Returns false if there is none.
    pub(super) fn close_oldest(&self, now: Instant, reason: &'static str) -> bool {
        self.close_oldest_of(now, reason, |_| true)
    }

    fn close_oldest_of(&self, now: Instant, reason: &'static str, is_meant: impl Fn(Phase) -> bool) -> bool {
        let mut open = locked(&self.open);
        let oldest = open
            .iter()
            .enumerate()
            .filter(|(_, connection)| is_meant(connection.phase()))
            .filter_map(|(at, connection)| Some((connection.phase().replaceable_since(now)?, at)))
            .min();
        let Some((_, at)) = oldest else { return false };
        open.swap_remove(at).close(reason);
        true
    }

    /// Makes room for an answer of this length among the unread ones. Returns false if that is impossible.
    fn make_room(&self, bytes: usize, now: Instant) -> bool {
        if bytes <= SHORT {
            return true;
        }
        loop {
            let unread: usize = locked(&self.open).iter().map(|connection| connection.unread()).sum();
            if unread == 0 || unread + bytes <= self.limits.unread_bytes {
                return true;
            }
            if !self.close_oldest_of(now, "it reads slowly and its memory is needed", Phase::is_sending) {
                return false;
            }
        }
    }

    /// Closes connections whose deadline has passed.
    pub(super) fn close_late(&self, now: Instant) {
        locked(&self.open).retain(|connection| match connection.phase().deadline(&self.limits) {
            Some((deadline, reason)) if deadline <= now => {
                connection.close(reason);
                false
            }
            _ => true,
        });
    }

    /// Closes connections that wait for a request, and the others after their answer.
    pub(super) fn close_all(&self, reason: &'static str) {
        locked(&self.open).retain(|connection| {
            let is_waiting =
                matches!(connection.phase(), Phase::Handshake(_) | Phase::Head(_) | Phase::Idle(_));
            if is_waiting {
                connection.close(reason);
            } else {
                // It may already have a reason.
                let _ = connection.last_answer.set(reason);
            }
            !is_waiting
        });
    }

    /// When to call [`Connections::close_late`] or [`Connections::have_room`] again.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let is_full = !self.have_room(now);
        let open = locked(&self.open);
        let of = |connection: &Arc<Connection>| match connection.phase() {
            Phase::Sending { since, .. } if is_full => Some(since + SLOW),
            phase => phase.deadline(&self.limits).map(|(deadline, _)| deadline),
        };
        open.iter().filter_map(of).min()
    }

    /// Waits until deadlines or room may have changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        locked(&self.open).len()
    }
}

impl Connection {
    fn phase(&self) -> Phase {
        *locked(&self.phase)
    }

    fn set(&self, phase: Phase) {
        *locked(&self.phase) = phase;
        self.all.changed.notify_one();
    }

    fn close(&self, reason: &'static str) {
        tracing::debug!(peer = %self.peer, reason, "closing a connection");
        self.close.notify_one();
    }

    /// Waits until the connection must be closed.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Removes the connection, which has ended.
    pub(super) fn leave(self: &Arc<Self>) {
        locked(&self.all.open).retain(|other| !Arc::ptr_eq(self, other));
        self.all.changed.notify_one();
    }

    /// Notes that the TLS handshake is done.
    pub(super) fn handshake_is_done(&self, now: Instant) {
        self.set(Phase::Head(now));
    }

    /// Notes that bytes have arrived.
    pub(super) fn bytes_arrived(&self, now: Instant) {
        if let Phase::Idle(_) = self.phase() {
            self.set(Phase::Head(now));
        }
    }

    /// Notes that a request has arrived.
    pub(super) fn answering(&self) {
        self.set(Phase::Answering);
    }

    /// Notes that the answer is ready. Returns false if there is no room for this many bytes: then send a short one
    /// instead.
    pub(super) fn sending(&self, bytes: usize, now: Instant) -> bool {
        let has_room = self.all.make_room(bytes, now);
        let bytes = if has_room { bytes } else { 0 };
        self.set(Phase::Sending { since: now, bytes, is_handed_over: false });
        has_room
    }

    /// Notes that the whole answer is in the connection's own small buffer.
    pub(super) fn answer_is_handed_over(&self) {
        if let Phase::Sending { is_handed_over, bytes, .. } = &mut *locked(&self.phase) {
            *is_handed_over = true;
            *bytes = 0;
        }
    }

    /// Notes that this buffer was sent to the kernel.
    pub(super) fn buffer_is_sent(&self, now: Instant) {
        if let Phase::Sending { is_handed_over: true, .. } = self.phase() {
            self.set(Phase::Idle(now));
            if let Some(reason) = self.last_answer.get() {
                self.close(reason);
            }
        }
    }

    fn unread(&self) -> usize {
        match self.phase() {
            Phase::Sending { bytes, .. } => bytes,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        all: Arc<Connections>,
        start: Instant,
    }

    impl Fixture {
        fn new(connections: usize) -> Self {
            let limits = Limits { connections, unread_bytes: 100_000, ..Limits::default() };
            Self { all: Connections::new(limits), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn enter(&self, seconds: u64) -> Arc<Connection> {
            self.all.enter(([127, 0, 0, 1], 1).into(), false, self.at(seconds))
        }

        fn is_open(&self, connection: &Arc<Connection>) -> bool {
            locked(&self.all.open).iter().any(|other| Arc::ptr_eq(other, connection))
        }
    }

    #[test]
    fn a_new_connection_replaces_the_one_that_has_waited_longest() {
        let f = Fixture::new(2);
        let (first, second) = (f.enter(0), f.enter(1));
        first.answering();
        let third = f.enter(2);
        assert_eq!([&first, &second, &third].map(|c| f.is_open(c)), [true, false, true]);
        third.answering();
        assert!(!f.all.have_room(f.at(2)), "both are busy");
        first.leave();
        assert!(f.all.have_room(f.at(2)));
    }

    #[test]
    fn a_slow_reader_can_be_replaced_after_a_second() {
        let f = Fixture::new(1);
        let connection = f.enter(0);
        connection.answering();
        assert!(connection.sending(50, f.at(10)));
        assert!(!f.all.have_room(f.at(10)));
        assert_eq!(f.all.next_deadline(f.at(10)), Some(f.at(11)));
        assert!(f.all.have_room(f.at(11)));
    }

    #[test]
    fn unread_answers_are_bounded_and_the_slowest_reader_is_closed_first() {
        let f = Fixture::new(9);
        let (slow, quick, other) = (f.enter(0), f.enter(0), f.enter(0));
        assert!(slow.sending(60_000, f.at(0)));
        assert!(!quick.sending(60_000, f.at(0)), "the first had no time to read");
        assert!(quick.sending(SHORT, f.at(0)), "a short answer always has room");
        quick.answer_is_handed_over();
        assert!(other.sending(60_000, f.at(2)));
        assert!(!f.is_open(&slow));
        other.answer_is_handed_over();
        assert!(quick.sending(100_000, f.at(2)));
        quick.answer_is_handed_over();
        assert!(other.sending(500_000, f.at(2)), "a single answer may exceed the limit");
    }

    #[tokio::test]
    async fn closing_all_lets_answers_finish() {
        let f = Fixture::new(9);
        let (idle, busy) = (f.enter(0), f.enter(0));
        busy.answering();
        f.all.close_all("test");
        idle.closed().await;
        assert!(f.is_open(&busy) && !f.is_open(&idle));
        busy.sending(10, f.at(1));
        busy.answer_is_handed_over();
        busy.buffer_is_sent(f.at(1));
        busy.closed().await;
    }

    #[test]
    fn each_phase_has_its_deadline() {
        let f = Fixture::new(9);
        let connection = f.enter(0);
        assert_eq!(f.all.next_deadline(f.at(0)), Some(f.at(5)));
        connection.answering();
        assert_eq!(f.all.next_deadline(f.at(0)), None);
        connection.sending(10, f.at(10));
        assert_eq!(f.all.next_deadline(f.at(10)), Some(f.at(40)));
        connection.buffer_is_sent(f.at(11));
        connection.answer_is_handed_over();
        connection.buffer_is_sent(f.at(12));
        assert_eq!(f.all.next_deadline(f.at(12)), Some(f.at(132)));
        connection.bytes_arrived(f.at(100));
        connection.bytes_arrived(f.at(104));
        assert_eq!(f.all.next_deadline(f.at(104)), Some(f.at(105)), "later bytes do not give more time");
        f.all.close_late(f.at(104));
        assert_eq!(f.all.count(), 1);
        f.all.close_late(f.at(105));
        assert_eq!(f.all.count(), 0);
    }
}
