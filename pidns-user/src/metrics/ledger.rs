//! Totals of forks, execs, exits and reaps by runtime. The kernel side counts by namespace, and namespaces end.
//!
//! The ledger compares each reading with the one before it, and adds the difference to the runtime of the namespace at
//! that time. So no total decreases when a namespace ends or its container becomes known, and nothing is counted twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use pidns_ebpf::abi::namespace_counters::{NamespaceId, SLOTS};

use tracing::warn;

use super::labels::RuntimeLabel;
use crate::event::identity::NsInum;
use crate::kernel::namespace_counters::{CounterError, Counts, NamespaceCounterTable, Reading};

/// The source of the counts: the kernel side, or a test.
pub trait CountSource: Send {
    /// Reads all counts.
    fn read(&self) -> Result<Reading, CounterError>;
    /// Reads the counts of namespaces that are gone, and frees their slots.
    fn take(&mut self, gone: &HashSet<NamespaceId>) -> Result<HashMap<NamespaceId, Counts>, CounterError>;
    /// Number of slots in use on the CPU with the most in use, and number of slots per CPU.
    fn slots(&self) -> (u64, u64);
}

impl CountSource for NamespaceCounterTable {
    fn read(&self) -> Result<Reading, CounterError> {
        Self::read(self)
    }

    fn take(&mut self, gone: &HashSet<NamespaceId>) -> Result<HashMap<NamespaceId, Counts>, CounterError> {
        Self::take(self, gone)
    }

    fn slots(&self) -> (u64, u64) {
        (self.slots_in_use(), SLOTS.into())
    }
}

/// When this many namespaces have ended, their counts are taken. Taking them reads all slots of all CPUs, so it is not
/// done for each namespace. Until then their slots stay in use.
const MANY_GONE: usize = SLOTS as usize / 4;

/// The last counts of a namespace, and figures derived from them.
#[derive(Clone, Copy, Debug)]
struct Account {
    runtime: RuntimeLabel,
    /// Whether the kernel side counts it separately.
    is_counted: bool,
    counts: Counts,
    /// Zombies that existed before the counting began.
    earlier_zombies: u64,
    reaps: u64,
    /// Processes that had ended when the current snapshot began.
    ended_before_snapshot: u64,
    /// Number of consecutive snapshots that did not list it.
    unknown_to_snapshots: u32,
}

/// The totals of a runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) counts: Counts,
    pub(super) reaps: u64,
}

/// The totals of all runtimes, and the last counts of all namespaces.
pub struct Ledger {
    source: Box<dyn CountSource>,
    totals: BTreeMap<RuntimeLabel, Totals>,
    namespaces: HashMap<NamespaceId, Account>,
    /// Namespaces that are gone, but whose counts have not been taken yet.
    gone: HashSet<NamespaceId>,
    host: Account,
    shared_slot: Counts,
    /// The value of `shared_slot` before the last snapshot.
    shared_slot_before: Counts,
    /// Whether `shared_slot` grew between the last two snapshots.
    shared_slot_grows: bool,
    has_snapshot: bool,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(source: Box<dyn CountSource>) -> Self {
        Self {
            source,
            totals: RuntimeLabel::all().map(|runtime| (runtime, Totals::default())).collect(),
            namespaces: HashMap::new(),
            gone: HashSet::new(),
            host: Account::new(RuntimeLabel::Host),
            shared_slot: Counts::default(),
            shared_slot_before: Counts::default(),
            shared_slot_grows: false,
            has_snapshot: false,
        }
    }

    /// Adds a namespace if it is new. From now on its counts belong to this runtime.
    pub(super) fn assign_runtime(&mut self, id: NamespaceId, runtime: RuntimeLabel) {
        // It may have been marked as gone although a holder keeps it.
        self.gone.remove(&id);
        self.account(id).runtime = runtime;
    }

    fn account(&mut self, id: NamespaceId) -> &mut Account {
        self.namespaces.entry(id).or_insert(Account::new(RuntimeLabel::NoContainer))
    }

    /// Reads the counters. If they cannot be read, the totals do not change.
    pub(super) fn read(&mut self) -> Result<(), CounterError> {
        self.close_gone()?;
        let Reading { host, shared_slot, namespaces } = self.source.read()?;
        let more = std::mem::replace(&mut self.host.counts, host);
        self.add(RuntimeLabel::Host, &host.since(&more));
        let more = std::mem::replace(&mut self.shared_slot, shared_slot);
        self.add(RuntimeLabel::Other, &shared_slot.since(&more));
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

    /// Notes which processes have ended before a snapshot. Those that are no zombies in the snapshot were reaped.
    pub(super) fn before_snapshot(&mut self) {
        // If the counters cannot be read, the ledger knows of fewer exits, and counts the reaps later.
        if let Err(error) = self.read() {
            warn!(%error, "the kernel's counters cannot be read");
        }
        self.shared_slot_grows =
            self.shared_slot != std::mem::replace(&mut self.shared_slot_before, self.shared_slot);
        for account in self.namespaces.values_mut().chain([&mut self.host]) {
            account.ended_before_snapshot = account.counts.ended();
        }
    }

    /// Counts reaps after a snapshot, from the zombies of each existing namespace. If a snapshot does not list a
    /// namespace, its counts are kept until the next one, because the namespace may be newer than the snapshot. They
    /// are also kept if a namespace with the same inode number exists: it may be the same one, with an incomplete
    /// identity.
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

    /// Marks a namespace as gone: nothing more will be counted there, and all its processes were reaped. (Its init may
    /// not be, if the parent is slow.)
    pub(super) fn close(&mut self, id: NamespaceId) {
        self.gone.insert(id);
        if self.gone.len() >= MANY_GONE {
            self.tidy();
        }
    }

    /// Takes the counts of the namespaces that are gone, which frees their slots.
    pub(super) fn tidy(&mut self) {
        if let Err(error) = self.close_gone() {
            warn!(%error, "the kernel's counters of namespaces that are gone cannot be read");
        }
    }

    /// Adds the last counts of namespaces that are gone. If they cannot be read, the next call tries again.
    fn close_gone(&mut self) -> Result<(), CounterError> {
        if self.gone.is_empty() {
            return Ok(());
        }
        let mut taken = self.source.take(&self.gone)?;
        for id in std::mem::take(&mut self.gone) {
            let mut account = self.namespaces.remove(&id).unwrap_or(Account::new(RuntimeLabel::NoContainer));
            let counts = taken.remove(&id).unwrap_or_default();
            self.add(account.runtime, &counts.since(&account.counts));
            account.ended_before_snapshot = counts.ended().max(account.counts.ended());
            let more = account.reaped(0, false);
            self.add_reaps(account.runtime, more);
        }
        Ok(())
    }

    /// The totals of each runtime.
    pub(super) fn totals(&self) -> impl Iterator<Item = (RuntimeLabel, Totals)> {
        self.totals.iter().map(|(runtime, totals)| (*runtime, *totals))
    }

    /// Forks and reaps of a namespace; `None` if the ledger has no counts of it.
    pub(super) fn forks_and_reaps(&self, id: NamespaceId) -> Option<(u64, u64)> {
        self.namespaces.get(&id).map(|account| (account.counts.forks, account.reaps))
    }

    /// Number of slots of the kernel side's table in use, and of all slots.
    pub(super) fn slots(&self) -> (u64, u64) {
        self.source.slots()
    }

    /// At most this many of the namespaces are counted in the shared slot, because there was no room for them.
    pub(super) fn max_in_shared_slot(&self, namespaces: impl Iterator<Item = NamespaceId>) -> usize {
        if !self.shared_slot_grows {
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

    /// Number of processes that were reaped since the last call.
    fn reaped(&mut self, zombies: u64, is_first: bool) -> u64 {
        if is_first {
            self.earlier_zombies = zombies.saturating_sub(self.ended_before_snapshot);
        }
        // A process that ended after the counters were read is a zombie, but not yet counted as ended.
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

        fn take(
            &mut self,
            gone: &HashSet<NamespaceId>,
        ) -> Result<HashMap<NamespaceId, Counts>, CounterError> {
            Ok(self.0.lock().unwrap().namespaces.extract_if(|id, _| gone.contains(id)).collect())
        }

        fn slots(&self) -> (u64, u64) {
            (self.0.lock().unwrap().namespaces.len() as u64, u64::MAX)
        }
    }

    /// A source that cannot be read.
    struct Broken(Table);

    impl CountSource for Broken {
        fn read(&self) -> Result<Reading, CounterError> {
            Err(CounterError::Map(std::io::Error::other("broken")))
        }

        fn take(&mut self, _: &HashSet<NamespaceId>) -> Result<HashMap<NamespaceId, Counts>, CounterError> {
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
    fn a_namespace_that_is_held_after_all_keeps_its_runtime() {
        let (mut ledger, reading) = ledger();
        ledger.assign_runtime(id(1), RuntimeLabel::Docker);
        reading.lock().unwrap().namespaces.insert(id(1), counts(5, 0));
        ledger.close(id(1));
        ledger.assign_runtime(id(1), RuntimeLabel::Docker);
        ledger.read().unwrap();
        reading.lock().unwrap().namespaces.insert(id(1), counts(7, 0));
        ledger.read().unwrap();
        assert_eq!(total(&ledger, RuntimeLabel::Docker).0, 7);
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer).0, 0);
    }

    #[test]
    fn a_total_keeps_the_counts_of_an_ended_namespace() {
        let (mut ledger, reading) = ledger();
        ledger.assign_runtime(id(1), RuntimeLabel::Docker);
        reading.lock().unwrap().namespaces.insert(id(1), counts(5, 2));
        ledger.read().unwrap();
        reading.lock().unwrap().namespaces.insert(id(1), counts(7, 7));
        ledger.close(id(1));
        ledger.tidy();
        assert_eq!(total(&ledger, RuntimeLabel::Docker), (7, 7, 7));
        ledger.read().unwrap();
        assert_eq!(total(&ledger, RuntimeLabel::Docker), (7, 7, 7), "a second reading adds nothing");
        assert_eq!(ledger.forks_and_reaps(id(1)), None);
    }

    #[test]
    fn counts_from_before_the_container_was_known_keep_their_runtime() {
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
    fn reaps_are_exits_minus_zombies_and_never_decrease() {
        let (mut ledger, reading) = ledger();
        let mut see = |ended, zombies| {
            reading.lock().unwrap().namespaces.insert(id(1), counts(0, ended));
            ledger.before_snapshot();
            ledger.after_snapshot(0, &[(id(1), zombies)].into(), &[NsInum(1)].into());
            ledger.forks_and_reaps(id(1)).unwrap().1
        };
        assert_eq!(see(2, 5), 0, "three of five zombies are older than the counting");
        assert_eq!(see(2, 4), 1, "one of them was reaped");
        assert_eq!(see(10, 4), 9);
        assert_eq!(see(10, 6), 9, "two processes ended after the counters were read");
        assert_eq!(see(12, 0), 15, "12 exits and the three older zombies");
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer).2, 15);
    }

    #[test]
    fn a_namespace_missing_in_two_snapshots_is_forgotten_but_stays_in_the_totals() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 3));
        for is_left in [true, false] {
            ledger.before_snapshot();
            ledger.after_snapshot(0, &HashMap::new(), &HashSet::new());
            ledger.tidy();
            assert_eq!(reading.lock().unwrap().namespaces.contains_key(&id(1)), is_left);
        }
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer), (3, 3, 3));
    }

    #[test]
    fn ended_namespaces_do_not_occupy_many_slots() {
        let (mut ledger, reading) = ledger();
        for number in 1..=MANY_GONE as u64 {
            reading.lock().unwrap().namespaces.insert(id(number), counts(1, 1));
            assert_eq!(reading.lock().unwrap().namespaces.len() as u64, number);
            ledger.close(id(number));
        }
        assert_eq!(reading.lock().unwrap().namespaces.len(), 0);
        assert_eq!(
            total(&ledger, RuntimeLabel::NoContainer),
            (MANY_GONE as u64, MANY_GONE as u64, MANY_GONE as u64)
        );
    }

    #[test]
    fn namespaces_in_the_shared_slot_count_as_other_and_are_reported_while_it_grows() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 0));
        reading.lock().unwrap().shared_slot = counts(8, 0);
        ledger.assign_runtime(id(2), RuntimeLabel::NoContainer);
        ledger.before_snapshot();
        assert_eq!(total(&ledger, RuntimeLabel::Other).0, 8);
        let shared = |ledger: &Ledger| ledger.max_in_shared_slot([id(1), id(2)].into_iter());
        assert_eq!(shared(&ledger), 1);
        ledger.before_snapshot();
        assert_eq!(shared(&ledger), 0, "the shared slot did not grow since");
    }

    #[test]
    fn a_namespace_whose_inode_number_is_in_the_snapshot_is_kept() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 3));
        for _ in 0..3 {
            ledger.before_snapshot();
            // The snapshot has the inode number, but it is unknown which namespace it stands for.
            ledger.after_snapshot(0, &HashMap::new(), &[NsInum(1)].into());
            ledger.tidy();
        }
        assert!(reading.lock().unwrap().namespaces.contains_key(&id(1)));
    }

    #[test]
    fn unreadable_counters_change_nothing_and_are_read_again() {
        let (mut ledger, reading) = ledger();
        reading.lock().unwrap().namespaces.insert(id(1), counts(3, 3));
        ledger.read().unwrap();
        ledger.source = Box::new(Broken(Table(Arc::clone(&reading))));
        assert!(ledger.read().is_err());
        ledger.close(id(1));
        ledger.tidy();
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer), (3, 3, 0), "the last totals stay");
        ledger.source = Box::new(Table(reading));
        ledger.tidy();
        assert_eq!(total(&ledger, RuntimeLabel::NoContainer), (3, 3, 3), "nothing is counted twice");
    }
}
