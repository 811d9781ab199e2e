//! The kernel side's counters, summed over all CPUs.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Pod,
    maps::{MapData, MapError, PerCpuArray},
    programs::{Program, ProgramError},
};
use pidns_ebpf::abi::{Counters, DOUBLE_HOOKS, DoubleHook, Kind};

#[derive(Clone, Copy)]
#[repr(transparent)]
struct CounterRow(Counters);

// SAFETY: repr(C) with only u64 fields (pidns-ebpf asserts its size): any bytes are valid, and there is no padding.
unsafe impl Pod for CounterRow {}

/// Records of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindTotals {
    /// Records that reached the ring buffer.
    pub submitted: u64,
    /// Dropped because the ring buffer was full.
    pub lost: u64,
}

/// Totals since loading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By kind, without kinds whose counts are zero.
    pub kinds: BTreeMap<u8, KindTotals>,
    /// Creations of namespaces that the record of their init reports: submitted and lost records.
    pub creations_with_init: KindTotals,
    /// Threads created.
    pub threads_created: u64,
    /// Threads ended, except the last thread of each process.
    pub threads_ended: u64,
    /// How often the second program ran because the kernel skipped the first, by [`DoubleHook`].
    pub second_runs: [u64; DOUBLE_HOOKS],
    /// Entries refused because a kernel map was full, keyed by the event field that is missing as a result.
    pub untracked: Vec<(&'static str, u64)>,
}

impl Totals {
    /// Records dropped because the ring buffer was full.
    pub fn lost(&self) -> u64 {
        self.kinds.values().map(|kind| kind.lost).sum()
    }

    /// Events lost because a kernel map was full. Events that only lack a field do not count.
    pub fn unseen(&self) -> u64 {
        self.untracked
            .iter()
            .filter(|(what, _)| !what.starts_with("process.exit"))
            .map(|(_, count)| count)
            .sum()
    }

    /// Records of this kind.
    pub fn kind(&self, kind: Kind) -> KindTotals {
        self.kinds.get(&(kind as u8)).copied().unwrap_or_default()
    }
}

/// Reads the counters.
pub struct Stats(PerCpuArray<MapData, CounterRow>);

impl Stats {
    pub(super) fn new(map: aya::maps::Map) -> Result<Self, MapError> {
        PerCpuArray::try_from(map).map(Self)
    }

    /// Reads the counters and sums them over all CPUs.
    pub fn read(&self) -> Result<Totals, MapError> {
        let mut totals = Totals::default();
        let mut unseen = [0; 5];
        for CounterRow(cpu) in self.0.get(&0, 0)?.iter() {
            let Counters {
                submitted,
                lost,
                threads_created,
                threads_ended,
                zombies_untracked,
                peaks_untracked,
                cascades_untracked,
                teardowns_untracked,
                destroys_untracked,
                creations_with_init,
                creations_with_init_lost,
                second_runs,
            } = cpu;
            for kind in Kind::ALL {
                let of =
                    |rows: &[[u64; Kind::ALL.len()]]| rows.iter().map(|row| row[*kind as usize]).sum::<u64>();
                let (submitted, lost) = (of(submitted), of(lost));
                if submitted + lost > 0 {
                    let entry = totals.kinds.entry(*kind as u8).or_default();
                    entry.submitted += submitted;
                    entry.lost += lost;
                }
            }
            totals.creations_with_init.submitted += creations_with_init;
            totals.creations_with_init.lost += creations_with_init_lost;
            totals.threads_created += threads_created;
            totals.threads_ended += threads_ended;
            for (sum, more) in totals.second_runs.iter_mut().zip(second_runs) {
                *sum += more;
            }
            for (sum, more) in unseen.iter_mut().zip([
                zombies_untracked,
                peaks_untracked,
                cascades_untracked,
                teardowns_untracked,
                &destroys_untracked.iter().sum(),
            ]) {
                *sum += more;
            }
        }
        let names = [
            "process.reap",
            "process.exit.threads",
            "process.exit.cascade",
            "namespace.teardown",
            "namespace.destroy",
        ];
        totals.untracked = names.into_iter().zip(unseen).filter(|&(_, count)| count > 0).collect();
        Ok(totals)
    }
}

/// Runs of our programs that the kernel skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissedRuns {
    /// Skipped runs of programs that a second one follows, by [`DoubleHook`].
    firsts: [u64; DOUBLE_HOOKS],
    /// Skipped runs of all other programs.
    others: u64,
    /// Skipped runs of programs that report only refused forks: an upper bound for refusals that we missed.
    pub refusals: u64,
}

impl MissedRuns {
    pub(crate) fn add(&mut self, double_hook: Option<DoubleHook>, runs: u64) {
        match double_hook {
            Some(double_hook) => self.firsts[double_hook as usize] += runs,
            None => self.others += runs,
        }
    }

    /// Number of missed events: the skipped runs that no second program replaced, according to these totals. Read the
    /// totals after the runs; otherwise a run could briefly count as lost.
    pub fn lost(&self, totals: &Totals) -> u64 {
        let firsts = self.firsts.iter().zip(totals.second_runs);
        self.others + firsts.map(|(missed, taken)| missed.saturating_sub(taken)).sum::<u64>()
    }
}

/// Reads the kernel's facts about a program. They fit in a page, so one read suffices; `fs::read_to_string` would take
/// five.
pub(super) fn fdinfo(program: BorrowedFd<'_>) -> io::Result<String> {
    let mut file = fs::File::open(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let mut page = [0; 4_096];
    let length = file.read(&mut page)?;
    Ok(String::from_utf8_lossy(&page[..length]).into_owned())
}

/// Runs that the kernel skipped because the program was already running on that CPU (`recursion_misses`, 5.12 and
/// later). `None` if the kernel does not count them.
pub(super) fn missed_runs(program: &Program) -> Result<Option<u64>, ProgramError> {
    let text = fdinfo(program.fd()?.as_fd()).unwrap_or_default();
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|count| count.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_second_program_do_not_count_as_lost() {
        let mut missed = MissedRuns::default();
        missed.add(Some(DoubleHook::Fork), 5);
        missed.add(Some(DoubleHook::Exit), 2);
        missed.add(None, 1);
        let mut totals = Totals::default();
        assert_eq!(missed.lost(&totals), 8, "no second program ran");
        totals.second_runs[DoubleHook::Fork as usize] = 4;
        totals.second_runs[DoubleHook::Exit as usize] = 3;
        assert_eq!(missed.lost(&totals), 2, "second runs only replace runs of the same hook");
    }
}
