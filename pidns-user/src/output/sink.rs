//! The output. It counts exactly which events were written.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, write},
};

/// Size in bytes at which the buffer must be flushed.
const FULL: usize = 64 << 10;

/// Bytes that a pipe with room accepts in one write (`PIPE_BUF`, pipe(7)).
const PIPE_BUF: usize = 4096;

/// Result of writing the buffered events.
#[derive(Debug)]
pub enum Written {
    /// All were written.
    All,
    /// The other end of the pipe is closed.
    Closed,
    /// They could not be written.
    Failed {
        /// The error of the system.
        error: io::Error,
        /// Number of events that were not or not completely written.
        unwritten: u64,
    },
}

/// Buffers whole events, so that the lost ones can be counted after a failure.
pub struct Sink {
    to: Box<dyn AsFd + Send>,
    buffer: Vec<u8>,
    /// Compresses the buffer.
    encoder: Option<zstd::Encoder<'static, Vec<u8>>>,
    /// The end of each event in the buffer.
    ends: Vec<usize>,
    progress: Arc<WriteProgress>,
}

/// Progress of the writing, shared with another thread.
#[derive(Debug, Default)]
pub struct WriteProgress {
    /// Number of written bytes.
    written: AtomicU64,
    /// Whether the time for a slow reader is over. Then data for which it has no room is dropped.
    given_up: AtomicBool,
}

impl WriteProgress {
    /// From now on, no write waits for the reader. A write that is blocked already stays blocked until a signal
    /// interrupts it.
    ///
    /// A signal handler may call this.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }
}

impl Sink {
    /// A sink for this output.
    pub fn new(to: impl AsFd + Send + 'static) -> Self {
        Self {
            to: Box::new(to),
            buffer: Vec::new(),
            encoder: None,
            ends: Vec::new(),
            progress: Arc::default(),
        }
    }

    /// A sink that compresses with zstd. After each flush, all data written so far can be decompressed.
    pub fn compressed(to: impl AsFd + Send + 'static) -> io::Result<Self> {
        let mut encoder = zstd::Encoder::new(Vec::new(), zstd::DEFAULT_COMPRESSION_LEVEL)?;
        // Without a checksum, a changed byte can yield a changed letter and no error.
        encoder.include_checksum(true)?;
        Ok(Self { encoder: Some(encoder), ..Self::new(to) })
    }

    /// The shared progress of the writing.
    pub fn progress(&self) -> Arc<WriteProgress> {
        Arc::clone(&self.progress)
    }

    /// The buffer to write an event to before [`Sink::end_event`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Marks the end of an event. Returns whether the buffer should be flushed.
    pub fn end_event(&mut self) -> bool {
        self.ends.push(self.buffer.len());
        self.buffer.len() >= FULL
    }

    /// Whether the other end of a pipe or terminal is closed. Without data to write, no write would report that.
    pub fn reader_has_gone(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.to.as_fd(), PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
    }

    /// Writes the whole buffer.
    pub fn flush(&mut self) -> Written {
        let events = self.ends.len() as u64;
        match self.compress(false) {
            // If a compressed block is only partly written, we do not know which events are in that part.
            Some(Ok(bytes)) => self.write(&bytes, |_| events),
            Some(Err(error)) => Written::Failed { error, unwritten: events },
            None => {
                let buffer = std::mem::take(&mut self.buffer);
                let ends = std::mem::take(&mut self.ends);
                let written =
                    self.write(&buffer, |done| ends.iter().filter(|&&end| end > done).count() as u64);
                // Reuse the memory.
                (self.buffer, self.ends) = (buffer, ends);
                self.buffer.clear();
                self.ends.clear();
                written
            }
        }
    }

    /// Writes the whole buffer and ends a compressed file.
    pub fn finish(&mut self) -> Written {
        let events = self.ends.len() as u64;
        match self.compress(true) {
            Some(Ok(bytes)) => self.write(&bytes, |_| events),
            Some(Err(error)) => Written::Failed { error, unwritten: events },
            None => self.flush(),
        }
    }

    /// Compresses the buffer and empties it. Returns the compressed bytes; `None` if the sink does not compress.
    fn compress(&mut self, to_the_end: bool) -> Option<io::Result<Vec<u8>>> {
        let mut encoder = self.encoder.take()?;
        let written = encoder.write_all(&self.buffer);
        self.buffer.clear();
        self.ends.clear();
        if let Err(error) = written {
            return Some(Err(error));
        }
        if to_the_end {
            return Some(encoder.finish());
        }
        let flushed = encoder.flush().map(|()| std::mem::take(encoder.get_mut()));
        self.encoder = Some(encoder);
        Some(flushed)
    }

    fn write(&self, bytes: &[u8], unwritten: impl Fn(usize) -> u64) -> Written {
        let to = self.to.as_fd();
        let mut done = 0;
        loop {
            if done == bytes.len() {
                break Written::All;
            }
            let given_up = self.progress.given_up.load(Ordering::Acquire);
            if given_up && !has_room(to) {
                let error = io::Error::new(
                    io::ErrorKind::TimedOut,
                    "its reader took too long after the end was requested",
                );
                break Written::Failed { error, unwritten: unwritten(done) };
            }
            // The reader may not be the slow one. So it gets the rest while it has room, in parts that never block.
            let most = if given_up { PIPE_BUF } else { usize::MAX };
            let rest = &bytes[done..];
            match write(to, &rest[..rest.len().min(most)]) {
                Ok(count) => {
                    done += count;
                    self.progress.written.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // The file is non-blocking: wait for room.
                    let _ = poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None);
                }
                Err(Errno::PIPE) => break Written::Closed,
                Err(error) => break Written::Failed { error: error.into(), unwritten: unwritten(done) },
            }
        }
    }
}

/// Whether a write of [`PIPE_BUF`] bytes would not block.
fn has_room(to: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        io::Read as _,
        thread,
        time::Duration,
    };

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    fn event(sink: &mut Sink, bytes: &[u8]) -> bool {
        sink.buffer().extend_from_slice(bytes);
        sink.end_event()
    }

    #[test]
    fn flushed_data_is_written_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut sink = Sink::new(writer);
        let progress = sink.progress();
        assert!(!event(&mut sink, b"one\n") && !event(&mut sink, b"two\n"));
        assert_eq!(progress.written.load(Ordering::Relaxed), 0, "nothing is written before a flush");
        assert!(matches!(sink.flush(), Written::All));
        assert!(matches!(sink.flush(), Written::All), "nothing to write is no failure");
        event(&mut sink, b"three\n");
        assert!(matches!(sink.flush(), Written::All));
        assert_eq!(progress.written.load(Ordering::Relaxed), 14);
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\nthree\n");
    }

    #[test]
    fn changed_byte_in_compressed_data_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        let mut sink = Sink::compressed(file.try_clone().unwrap()).unwrap();
        // Random bytes do not compress, so only a checksum shows a changed byte.
        let mut state = 1u32;
        let noise = std::iter::from_fn(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((state >> 24) as u8)
        });
        let noise: Vec<u8> = noise.take(1000).collect();
        event(&mut sink, &noise);
        assert!(matches!(sink.finish(), Written::All));
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), noise);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(zstd::decode_all(&bytes[..]).is_err());
    }

    #[test]
    fn full_buffer_requests_a_flush() {
        let mut sink = Sink::new(File::create("/dev/null").unwrap());
        assert!(!event(&mut sink, &vec![b'x'; FULL - 1]));
        assert!(event(&mut sink, b"y"));
        sink.flush();
        assert!(!event(&mut sink, b"z"), "a flush empties it");
    }

    #[test]
    fn closed_reader_is_no_failure() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut sink = Sink::new(writer);
        event(&mut sink, b"one\n");
        assert!(matches!(sink.flush(), Written::Closed));
    }

    #[test]
    fn late_reader_gets_only_what_fits_its_buffer() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut sink = Sink::new(writer);
        sink.progress().give_up();
        let line = [b'x'; 100];
        event(&mut sink, &line);
        assert!(matches!(sink.flush(), Written::All), "the pipe is empty");
        for _ in 0..2000 {
            event(&mut sink, &line);
        }
        let Written::Failed { error, unwritten } = sink.flush() else { panic!("a pipe holds 64 KiB") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(sink);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text.len() as u64 / 100 + unwritten, 2001, "every event is written or counted");
    }

    #[test]
    fn every_buffered_event_is_lost_on_a_full_disk() {
        let mut sink = Sink::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        for _ in 0..3 {
            event(&mut sink, b"event\n");
        }
        let Written::Failed { error, unwritten } = sink.flush() else { panic!("/dev/full accepted a write") };
        assert_eq!((error.raw_os_error(), unwritten), (Some(libc::ENOSPC), 3));
        assert!(matches!(sink.flush(), Written::All), "they are not written later, and not counted twice");
    }

    #[test]
    fn truncated_and_missing_events_are_counted_when_the_disk_fills_up() {
        // A file with room for one page and no more.
        let page = rustix::param::page_size();
        let file = memfd_create("page", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, page as u64).unwrap();
        fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        let mut sink = Sink::new(file);
        let progress = sink.progress();
        for length in [page / 2, page / 2, 1, page] {
            event(&mut sink, &vec![b'x'; length]);
        }
        assert!(matches!(sink.flush(), Written::Failed { unwritten: 2, .. }));
        assert_eq!(progress.written.load(Ordering::Relaxed), page as u64);
    }

    #[test]
    fn non_blocking_output_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut sink = Sink::new(writer);
        // More than fits into a pipe.
        let bytes = vec![b'x'; 1 << 20];
        event(&mut sink, &bytes);
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all.len()
        });
        assert!(matches!(sink.flush(), Written::All));
        drop(sink);
        assert_eq!(late.join().unwrap(), bytes.len());
    }

    #[test]
    fn closed_reader_is_noticed_without_a_write() {
        let (reader, writer) = io::pipe().unwrap();
        let sink = Sink::new(writer);
        assert!(!sink.reader_has_gone());
        drop(reader);
        assert!(sink.reader_has_gone());
        assert!(!Sink::new(File::open("/dev/null").unwrap()).reader_has_gone());
    }
}
