//! The signals that ask for an end, and when a further one cuts that end off.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the output stands still before a further signal cuts the end off.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The signals that ask for an end.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// None where whoever started us (nohup) has us ignore it.
    hang_up: Option<Signal>,
}

impl Interrupts {
    /// From now on they end nothing by themselves.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = async {
                match &mut self.hang_up {
                    Some(hang_up) => drop(hang_up.recv().await),
                    None => std::future::pending().await,
                }
            } => {}
        }
    }

    /// While the end is under way: waits until one has come and a write of the output, whose place `place` tells, has
    /// stood still for [`GRACE`]. An end that moves is not cut off, nor one that is busy with something else than a
    /// write (`None`): taking the hooks away takes some kernels a second.
    pub async fn cut_off<T: PartialEq>(&mut self, place: impl Fn() -> Option<T>) {
        let mut stillness = Stillness::new(place(), Instant::now());
        let mut asked = false;
        while stillness.look(place(), Instant::now()) < GRACE || !asked {
            tokio::select! {
                () = self.next() => asked = true,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }
}

/// For how long something has stood still, while there was something to move.
#[derive(Debug)]
struct Stillness<T> {
    place: Option<T>,
    since: Instant,
}

impl<T: PartialEq> Stillness<T> {
    fn new(place: Option<T>, now: Instant) -> Self {
        Self { place, since: now }
    }

    fn look(&mut self, place: Option<T>, now: Instant) -> Duration {
        if place.is_none() || place != self.place {
            *self = Self::new(place, now);
        }
        now.duration_since(self.since)
    }
}

/// Whether SIGHUP is ignored (`SigIgn` of proc(5), whose lowest bit it is).
fn ignores_hang_up() -> bool {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?.trim().to_owned();
            u64::from_str_radix(&mask, 16).ok()
        })
        .is_some_and(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_never_still_for_long() {
        let began = Instant::now();
        let after = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut stillness = Stillness::new(Some(1), began);
        assert_eq!(stillness.look(Some(1), after(900)), Duration::from_millis(900));
        assert_eq!(stillness.look(Some(2), after(990)), Duration::ZERO, "it has moved");
        assert_eq!(stillness.look(Some(2), after(1900)), Duration::from_millis(910));
        assert_eq!(stillness.look(None, after(2000)), Duration::ZERO, "nothing is to move");
        assert_eq!(stillness.look(None, after(5000)), Duration::ZERO, "for however long");
        assert_eq!(stillness.look(Some(2), after(5500)), Duration::ZERO, "it begins to");
        assert_eq!(stillness.look(Some(2), after(6500)), Duration::from_secs(1));
    }
}
