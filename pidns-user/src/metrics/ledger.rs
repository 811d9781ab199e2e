//! What happened to processes, by runtime: the kernel side counts by namespace, and namespaces go.
//!
//! Each reading is compared with the one before it, and the difference is added to the runtime that the namespace belongs to then.
//! So no total falls when a namespace goes, or when its container becomes known, and nothing is counted twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use pidns_ebpf::abi::namespace_counters::{NamespaceId, SLOTS};

use tracing::warn;

use super::labels::RuntimeLabel;
use crate::event::identity::NsInum;
use crate::kernel::namespace_counters::{CounterError, Counts, NamespaceCounterTable, Reading};

/// Where the counts come from: the kernel side, or a test.
pub trait CountSource: Send {
    /// Reads everything.
    fn read(&self) -> Result<Reading, CounterError>;
    /// Reads what was counted of a namespace that is gone, and forgets it.
    fn take(&mut self, id: NamespaceId) -> Result<Counts, CounterError>;
    /// Slots in use on the CPU that has most of them in use, and all that a CPU has.
    fn slots(&self) -> (u64, u64);
}

impl CountSource for NamespaceCounterTable {
    fn read(&self) -> Result<Reading, CounterError> {
        Self::read(self)
    }

    fn take(&mut self, id: NamespaceId) -> Result<Counts, CounterError> {
        Self::take(self, id)
    }

    fn slots(&self) -> (u64, u64) {
        (self.slots_in_use(), SLOTS.into())
    }
}

/// A namespace's counts as they were read last, and what follows from them.
#[derive(Clone, Copy, Debug)]
struct Account {
    runtime: RuntimeLabel,
    /// Whether the kernel side has a place for it.
    is_counted: bool,
    counts: Counts,
    /// Zombies that were there before the counting began.
    earlier_zombies: u64,
    reaps: u64,
    /// Processes that had ended before the snapshot that is being taken was begun.
    ended_before_snapshot: u64,
    /// Of how many snapshots in a row the model did not know it.
    unknown_to_snapshots: u32,
}

/// Totals of a runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) counts: Counts,
    pub(super) reaps: u64,
}

/// The counts of everything.
pub struct Ledger {
    source: Box<dyn CountSource>,
    totals: BTreeMap<RuntimeLabel, Totals>,
    namespaces: HashMap<NamespaceId, Account>,
    host: Account,
    together: Counts,
    /// `together` as it was before the last snapshot, and whether it had grown by then.
    together_before: Counts,
    together_grows: bool,
    has_snapshot: bool,
}

impl Ledger {
    /// Nothing has been read yet.
    pub fn new(source: Box<dyn CountSource>) -> Self {
        Self {
            source,
            totals: RuntimeLabel::all().map(|runtime| (runtime, Totals::default())).collect(),
            namespaces: HashMap::new(),
            host: Account::new(RuntimeLabel::Host),
            together: Counts::default(),
            together_before: Counts::default(),
            together_grows: false,
            has_snapshot: false,
        }
    }

    /// A namespace exists, and belongs to this runtime from now on.
    pub(super) fn assign_runtime(&mut self, id: NamespaceId, runtime: RuntimeLabel) {
        self.account(id).runtime = runtime;
    }

    fn account(&mut self, id: NamespaceId) -> &mut Account {
        self.namespaces.entry(id).or_insert(Account::new(RuntimeLabel::NoContainer))
    }

    /// Reads the counters. Nothing changes where they cannot be read.
    pub(super) fn read(&mut self) -> Result<(), CounterError> {
        let Reading { host, together, namespaces } = self.source.read()?;
        let more = std::mem::replace(&mut self.host.counts, host);
        self.add(RuntimeLabel::Host, &host.since(&more));
        let more = std::mem::replace(&mut self.together, together);
        self.add(RuntimeLabel::Other, &together.since(&more));
        for (id, counts) in namespaces {
            let account = self.account(id);
            account.is_counted = true;
            let before = std::mem::replace(&mut account.counts, counts);
            let runtime = account.runtime;
            self.add(runtime, &counts.since(&before));
        }
        Ok(())
    }

    fn add(&mut self, runtime: RuntimeLabel, more: &Counts) {
        self.totals.entry(runtime).or_default().counts.add(more);
    }

    fn add_reaps(&mut self, runtime: RuntimeLabel, more: u64) {
        self.totals.entry(runtime).or_default().reaps += more;
    }

    /// A snapshot is about to be taken: what has ended by now and is no zombie there was reaped.
    pub(super) fn before_snapshot(&mut self) {
        // Where they cannot be read fewer have ended, as far as is known: reaps are seen later.
        if let Err(error) = self.read() {
            warn!(%error, "the kernel's counters cannot be read");
        }
        self.together_grows = self.together != std::mem::replace(&mut self.together_before, self.together);
        for account in self.namespaces.values_mut().chain([&mut self.host]) {
            account.ended_before_snapshot = account.counts.ended();
        }
    }

    /// The zombies that a snapshot has found, by namespace that exists. What was counted of one that does not exist is kept for
    /// one snapshot more: it may have come to be meanwhile. It is kept, too, where another one has its inode number, as that may be
    /// the same one with less known of it.
    pub(super) fn after_snapshot(
        &mut self,
        host_zombies: u64,
        zombies: &HashMap<NamespaceId, u64>,
        existing: &HashSet<NsInum>,
    ) {
        let is_first = !std::mem::replace(&mut self.has_snapshot, true);
        let more = self.host.reaped(host_zombies, is_first);
        self.add_reaps(RuntimeLabel::Host, more);
        for (id, zombies) in zombies {
            let account = self.account(*id);
            account.unknown_to_snapshots = 0;
            let (runtime, more) = (account.runtime, account.reaped(*zombies, is_first));
            self.add_reaps(runtime, more);
        }
        let unknown = self.namespaces.iter_mut().filter(|(id, _)| !existing.contains(&NsInum(id.inum)));
        unknown.for_each(|(_, account)| account.unknown_to_snapshots += 1);
        let gone = self.namespaces.iter().filter(|(_, account)| account.unknown_to_snapshots > 1);
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(id);
        }
    }

    /// A namespace is gone: nothing will be counted there any more, and all that ended there was reaped. (But for its init, where
    /// its parent is slow.)
    pub(super) fn close(&mut self, id: NamespaceId) {
        let mut account = self.namespaces.remove(&id).unwrap_or(Account::new(RuntimeLabel::NoContainer));
        let counts = match self.source.take(id) {
            Ok(counts) => counts,
            Err(error) => {
                warn!(%error, "the kernel's counters of a namespace that is gone cannot be read");
                // Tried again after the next snapshots, which do not have it.
                self.namespaces.insert(id, account);
                return;
            }
        };
        self.add(account.runtime, &counts.since(&account.counts));
        account.ended_before_snapshot = counts.ended().max(account.counts.ended());
        let more = account.reaped(0, false);
        self.add_reaps(account.runtime, more);
    }

    /// The totals of each runtime.
    pub(super) fn totals(&self) -> impl Iterator<Item = (RuntimeLabel, Totals)> {
        self.totals.iter().map(|(runtime, totals)| (*runtime, *totals))
    }

    /// Forks and reaps of a namespace; `None` where nothing of it was counted, or is any more.
    pub(super) fn forks_and_reaps(&self, id: NamespaceId) -> Option<(u64, u64)> {
        self.namespaces.get(&id).map(|account| (account.counts.forks, account.reaps))
    }

    /// Slots of the kernel side's table that are in use, and all of them.
    pub(super) fn slots(&self) -> (u64, u64) {
        self.source.slots()
    }

    /// How many of these namespaces, at most, are being counted together with others, as they found no place of their own.
    pub(super) fn counted_together(&self, namespaces: impl Iterator<Item = NamespaceId>) -> usize {
        if !self.together_grows {
            return 0;
        }
        let has_place = |id: &NamespaceId| self.namespaces.get(id).is_some_and(|account| account.is_counted);
        namespaces.filter(|id| !has_place(id)).count()
    }
}

impl Account {
    fn new(runtime: RuntimeLabel) -> Self {
        Self {
            runtime,
            is_counted: false,
            counts: Counts::default(),
            earlier_zombies: 0,
            reaps: 0,
            ended_before_snapshot: 0,
            unknown_to_snapshots: 0,
        }
    }

    /// Processes that were reaped since this was asked last.
    fn reaped(&mut self, zombies: u64, is_first: bool) -> u64 {
        if is_first {
            self.earlier_zombies = zombies.saturating_sub(self.ended_before_snapshot);
        }
        // A process may have ended since the counters were read: it is a zombie, and not among those that have ended.
        let reaps = (self.ended_before_snapshot + self.earlier_zombies).saturating_sub(zombies);
        let more = reaps.saturating_sub(self.reaps);
        self.reaps += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type SharedReading = Arc<Mutex<Reading>>;

    struct Table(SharedReading);

    impl CountSource for Table {
        fn read(&self) -> Result<Reading, CounterError> {
            Ok(self.0.lock().unwrap().clone())
        }

        fn take(&mut self, id: NamespaceId) -> Result<Counts, CounterError> {
            Ok(self.0.lock().unwrap().namespaces.remove(&id).unwrap_or_default())
        }

        fn slots(&self) -> (u64, u64) {
            (self.0.lock().unwrap().namespaces.len() as u64, u64::MAX)
        }
    }

    /// One that cannot be read.
    struct Broken(Table);

    impl CountSource for Broken {
        fn read(&self) -> Result<Reading, CounterError> {
            Err(CounterError::Map(std::io::Error::other("broken")))
        }

        fn take(&mut self, _: NamespaceId) -> Result<Counts, CounterError> {
            Err(CounterError::Map(std::io::Error::other("broken")))
        }

        fn slots(&self) -> (u64, u64) {
            self.0.slots()
        }
    }

    fn ledger() -> (Ledger, SharedReading) {
        let reading = SharedReading::default();
        (Ledger::new(Box::new(Table(Arc::clone(&reading)))), reading)
    }

    fn id(number: u64) -> NamespaceId {
        NamespaceId::new(number, number as u32)
    }

    fn counts(forks: u64, ended: u64) -> Counts {
        Counts { forks, exits: [ended, 0, 0, 0, 0], ..Counts::default() }
    }

    fn total(ledger: &Ledger, runtime: RuntimeLabel) -> (u64, u64, u64) {
        let (_, totals) = ledger.totals().find(|(one, _)| *one == runtime).unwrap();
        (totals.counts.forks, totals.counts.ended(), totals.reaps)
    }

    #[test]
    fn a_total_keeps_the_counts_of_an_ended_namespace() {
        let (mut ledger, reading) = ledger();
        ledger.assign_runtime(id(1), RuntimeLabel::Docker);
        reading.lock().unwrap().namespaces.insert(id(1), counts(5, 2));
        ledger.read().unwrap();
        reading.lock().unwrap().namespaces.insert(id(1), counts(7, 7));
        ledger.close(id(1));
        assert_eq!(total(&ledger, RuntimeLabel::Docker), (7, 7, 7));
        ledger.read().unwrap();
        assert_eq!(total(&ledger, RuntimeLabel::Docker), (7, 7, 7), "and counts none of it again");
        assert_eq!(ledger.forks_and_reaps(id(1)), None);
    }

    #[test]
    fn counts_from_before_the_container_was_known_keep_their_labels() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(1, 0));
        ledger.read().unwrap();
        ledger.assign_runtime(id(1), RuntimeLabel::Podman);
        reading.lock().unwrap().namespaces.insert(id(1), counts(4, 0));
        ledger.read().unwrap();
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer).0, 1);
        assert_eq!(total(&ledger, RuntimeLabel::Podman).0, 3);
    }

    #[test]
    fn reaps_are_ends_without_zombies_and_never_fall() {
        let (mut ledger, reading) = ledger();
        let mut see = |ended, zombies| {
            reading.lock().unwrap().namespaces.insert(id(1), counts(0, ended));
            ledger.before_snapshot();
            ledger.after_snapshot(0, &[(id(1), zombies)].into(), &[NsInum(1)].into());
            ledger.forks_and_reaps(id(1)).unwrap().1
        };
        assert_eq!(see(2, 5), 0, "three zombies are from before, and two ended since");
        assert_eq!(see(2, 4), 1, "one of them was reaped");
        assert_eq!(see(10, 4), 9);
        assert_eq!(see(10, 6), 9, "two ended after the counters were read");
        assert_eq!(see(12, 0), 15, "12, and the three from before");
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer).2, 15);
    }

    #[test]
    fn a_namespace_that_two_snapshots_do_not_have_is_forgotten_and_its_counts_are_kept() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 3));
        for is_left in [true, false] {
            ledger.before_snapshot();
            ledger.after_snapshot(0, &HashMap::new(), &HashSet::new());
            assert_eq!(reading.lock().unwrap().namespaces.contains_key(&id(1)), is_left);
        }
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer), (3, 3, 3));
    }

    #[test]
    fn namespaces_that_share_a_place_are_counted_under_other_and_reported_while_that_grows() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 0));
        reading.lock().unwrap().together = counts(8, 0);
        ledger.assign_runtime(id(2), RuntimeLabel::NoContainer);
        ledger.before_snapshot();
        assert_eq!(total(&ledger, RuntimeLabel::Other).0, 8);
        let together = |ledger: &Ledger| ledger.counted_together([id(1), id(2)].into_iter());
        assert_eq!(together(&ledger), 1);
        ledger.before_snapshot();
        assert_eq!(together(&ledger), 0, "nothing was counted there since");
    }

    #[test]
    fn a_namespace_whose_number_a_snapshot_has_is_not_closed() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 3));
        for _ in 0..3 {
            ledger.before_snapshot();
            // Of which it is not known which one it is.
            ledger.after_snapshot(0, &HashMap::new(), &[NsInum(1)].into());
        }
        assert!(reading.lock().unwrap().namespaces.contains_key(&id(1)));
    }

    #[test]
    fn counters_that_cannot_be_read_change_nothing_and_are_tried_again() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 3));
        ledger.read().unwrap();
        ledger.source = Box::new(Broken(Table(Arc::clone(&reading))));
        assert!(ledger.read().is_err());
        ledger.close(id(1));
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer), (3, 3, 0), "what was read before");
        ledger.source = Box::new(Table(reading));
        for _ in 0..2 {
            ledger.after_snapshot(0, &HashMap::new(), &HashSet::new());
        }
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer), (3, 3, 3), "nothing is counted twice");
    }
}
