//! Sorts records by time.
//!
//! A record gets its time just before its place in the ring, so two records of different CPUs can have the wrong order
//! there. The newest records of a batch therefore wait for the next batch.

/// Memory that is kept for later batches, in bytes.
const KEPT: usize = 8 << 20;

/// Records by time, in one block of memory.
#[derive(Debug, Default)]
pub struct Reorder {
    /// The records, one after the other.
    bytes: Vec<u8>,
    /// (time, offset in `bytes`, length). Records with the same time keep the order in which they came.
    order: Vec<(u64, u32, u32)>,
    spare: Vec<u8>,
}

impl Reorder {
    /// Adds a record with this time.
    pub fn push(&mut self, boot_ns: u64, record: &[u8]) {
        self.order.push((boot_ns, self.bytes.len() as u32, record.len() as u32));
        self.bytes.extend_from_slice(record);
    }

    /// Total size of the waiting records in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Time of the newest waiting record.
    pub fn newest(&self) -> Option<u64> {
        self.order.iter().map(|&(boot_ns, ..)| boot_ns).max()
    }

    /// Passes on the records with time `ripe` or earlier, oldest first.
    pub fn release(&mut self, ripe: u64, mut each: impl FnMut(&[u8])) {
        self.order.sort_unstable();
        let count = self.order.partition_point(|&(boot_ns, ..)| boot_ns <= ripe);
        for &(_, at, len) in &self.order[..count] {
            each(&self.bytes[at as usize..(at + len) as usize]);
        }
        self.order.drain(..count);
        self.spare.clear();
        for (_, at, len) in &mut self.order {
            let from = *at as usize;
            *at = self.spare.len() as u32;
            self.spare.extend_from_slice(&self.bytes[from..from + *len as usize]);
        }
        std::mem::swap(&mut self.bytes, &mut self.spare);
        if self.spare.capacity() > KEPT {
            // A backlog is gone.
            self.spare = Vec::new();
            self.bytes.shrink_to(KEPT);
            self.order.shrink_to(KEPT / size_of::<(u64, u32, u32)>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn released(reorder: &mut Reorder, ripe: u64) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        reorder.release(ripe, |record| out.push(record.to_vec()));
        out
    }

    #[test]
    fn new_records_wait_and_equal_times_keep_their_order() {
        let mut reorder = Reorder::default();
        for (time, name) in [(5, "e"), (3, "c"), (9, "i"), (3, "d")] {
            reorder.push(time, name.as_bytes());
        }
        assert_eq!(reorder.newest(), Some(9));
        assert_eq!(released(&mut reorder, 5), [b"c", b"d", b"e"]);
        reorder.push(7, b"g");
        assert_eq!(released(&mut reorder, u64::MAX), [b"g", b"i"]);
        assert!(reorder.is_empty());
        assert_eq!(reorder.bytes(), 0);
    }

    proptest! {
        #[test]
        fn records_are_never_lost_doubled_or_out_of_order(
            batches in proptest::collection::vec(proptest::collection::vec((0u64..50, 0usize..20), 0..30), 1..8),
        ) {
            let mut reorder = Reorder::default();
            let (mut number, mut came, mut went) = (0u32, Vec::new(), Vec::new());
            let mut base = 0;
            for batch in &batches {
                for (time, len) in batch {
                    let mut record = (base + time).to_ne_bytes().to_vec();
                    record.extend_from_slice(&number.to_ne_bytes());
                    record.resize(12 + len, 0);
                    number += 1;
                    reorder.push(base + time, &record);
                    came.push(record);
                }
                // Later records are never older than those already released.
                base += 25;
                reorder.release(base - 1, |record| went.push(record.to_vec()));
            }
            reorder.release(u64::MAX, |record| went.push(record.to_vec()));
            let time = |record: &Vec<u8>| u64::from_ne_bytes(*record.first_chunk().unwrap());
            prop_assert!(went.windows(2).all(|pair| time(&pair[0]) <= time(&pair[1])));
            came.sort();
            went.sort();
            prop_assert_eq!(came, went);
        }
    }
}
