//! The kernel side's counters, added up over the CPUs.

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
use pidns_ebpf::abi::{Counters, Kind, MOMENTS, Moment};

#[derive(Clone, Copy)]
#[repr(transparent)]
struct CounterRow(Counters);

// SAFETY: repr(C), only u64s (pidns-ebpf asserts its size): any bytes are a value, and there is no padding.
unsafe impl Pod for CounterRow {}

/// Records of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindTotals {
    /// Reached the ring buffer.
    pub submitted: u64,
    /// Dropped because the ring buffer was full.
    pub lost: u64,
}

/// Totals since load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By kind, without kinds that are all zero.
    pub kinds: BTreeMap<u8, KindTotals>,
    /// Creations of namespaces that the record of their init reports: submitted and lost records.
    pub creations_with_init: KindTotals,
    /// Threads created.
    pub threads_created: u64,
    /// Threads ended that were not their process's last.
    pub threads_ended: u64,
    /// How often the second program ran because the kernel skipped the first, by tracepoint.
    pub second_runs: [u64; MOMENTS],
    /// Entries refused because a kernel map was full, keyed by the event field that is missing as a result.
    pub untracked: Vec<(&'static str, u64)>,
}

impl Totals {
    /// Records dropped because the ring was full.
    pub fn lost(&self) -> u64 {
        self.kinds.values().map(|kind| kind.lost).sum()
    }

    /// Events lost because a kernel map was full.
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

    /// Adds up the CPUs.
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

/// Runs that the kernel left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissedRuns {
    /// Of first programs, which a second one follows, by moment.
    firsts: [u64; MOMENTS],
    /// Of all others.
    others: u64,
    /// Of programs that report refused forks alone: as many of those were not seen, at most.
    pub refusals: u64,
}

impl MissedRuns {
    pub(crate) fn add(&mut self, moment: Option<Moment>, runs: u64) {
        match moment {
            Some(moment) => self.firsts[moment as usize] += runs,
            None => self.others += runs,
        }
    }

    /// Events that were not seen: what of the first programs the second ones, by these totals, did not take over. The totals
    /// must be read after the runs, so that none counts as lost for a moment.
    pub fn lost(&self, totals: &Totals) -> u64 {
        let firsts = self.firsts.iter().zip(totals.second_runs);
        self.others + firsts.map(|(missed, taken)| missed.saturating_sub(taken)).sum::<u64>()
    }
}

/// What the kernel reports of a program: less than a page, which it gives with one read. `fs::read_to_string` would take five.
pub(super) fn fdinfo(program: BorrowedFd<'_>) -> io::Result<String> {
    let mut file = fs::File::open(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let mut page = [0; 4_096];
    let length = file.read(&mut page)?;
    Ok(String::from_utf8_lossy(&page[..length]).into_owned())
}

/// Runs that the kernel left out because the program was running on that CPU already (`recursion_misses`, 5.12
/// and later); `None` on kernels that do not count them.
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
    fn the_state_taken_over_by_a_second_program_is_not_lost() {
        let mut missed = MissedRuns::default();
        missed.add(Some(Moment::Fork), 5);
        missed.add(Some(Moment::Exit), 2);
        missed.add(None, 1);
        let mut totals = Totals::default();
        assert_eq!(missed.lost(&totals), 8, "nothing was taken over");
        totals.second_runs[Moment::Fork as usize] = 4;
        totals.second_runs[Moment::Exit as usize] = 3;
        assert_eq!(missed.lost(&totals), 2, "of other moments nothing is made up for");
    }
}
