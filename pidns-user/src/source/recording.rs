//! Reads recordings: files with one event as a JSON object on each line, compressed with zstd or not.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek as _},
    path::Path,
};

use serde::Deserialize;

use crate::{
    event::{Body, Event, VERSION},
    procfs,
    text::Count,
    text::printable,
};

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Longest line in bytes. An exec with 4 KB of arguments, each byte escaped, needs a fraction of it.
const LONGEST_LINE: u64 = 1 << 20;
/// Memory limit of this process while a recording is read, in bytes. The program is built for 200,000 processes in
/// 50,000 namespaces, which take a tenth of it.
const MEMORY: u64 = 1 << 30;
/// Memory is checked after this many bytes of lines.
const CHECK_INTERVAL: u64 = 1 << 20;

/// Why a recording cannot be read further. Everything before is good.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The line is not an event.
    #[error("line {line}: {}{}", printable(&error.to_string()), not_a_recording(*line))]
    Line {
        /// Its number, from 1.
        line: u64,
        /// The fault.
        error: serde_json::Error,
    },
    /// The last line is incomplete.
    #[error("line {line}: the file ends in the middle of it")]
    CutOff {
        /// Its number, from 1.
        line: u64,
    },
    /// The line is longer than any event.
    #[error("line {line}: longer than any event")]
    Endless {
        /// Its number, from 1.
        line: u64,
    },
    /// Events are missing.
    #[error("line {line}: {} missing before it (seq {found}{})", Count(*missing, "event is", "events are"), after(*.before))]
    Missing {
        /// Number of the line after the gap, from 1.
        line: u64,
        /// Number of missing events.
        missing: u64,
        /// `seq` of the event before the gap; 0 if there is none.
        before: u64,
        /// `seq` of the event after the gap.
        found: u64,
    },
    /// The event does not come after the previous one.
    #[error("line {line}: its event is not later than the one before (seq {found}{})", after(*.before))]
    Disordered {
        /// Its number, from 1.
        line: u64,
        /// `seq` of the previous event.
        before: u64,
        /// `seq` of this event.
        found: u64,
    },
    /// The file cannot be read, or its compressed data is damaged.
    #[error("after line {line}: {error}")]
    Unreadable {
        /// Number of the last line that could be read.
        line: u64,
        /// The error.
        error: io::Error,
    },
    /// The model of the recording takes more memory than allowed.
    #[error(
        "after line {line}: processing the recording takes more than {} MiB of memory, the limit for a recording",
        budget >> 20
    )]
    TooLarge {
        /// Number of the last line that was read.
        line: u64,
        /// The limit in bytes.
        budget: u64,
    },
    /// All lines are good, but the last event is missing.
    #[error("{}", without_end(*line))]
    NoEnd {
        /// Number of the last line.
        line: u64,
    },
}

/// If the first line is wrong, the file may not be a recording at all.
fn not_a_recording(line: u64) -> &'static str {
    if line == 1 { ": is this a recording, as `pidns-trace record` makes them?" } else { "" }
}

fn without_end(line: u64) -> String {
    match line {
        0 => format!("it is empty{}", not_a_recording(1)),
        _ => format!(
            "after line {line}: the recording ends without stream.end: the recording was cut off, or is still being written"
        ),
    }
}

fn after(before: u64) -> String {
    if before == 0 { " at the beginning".to_owned() } else { format!(" after {before}") }
}

/// Iterates over the events of a recording.
pub struct Recording {
    lines: Box<dyn BufRead + Send>,
    line: u64,
    /// `seq` of the previous event.
    seq: u64,
    ended: bool,
    over: bool,
    /// Number of events whose kinds only a later version knows.
    unknown: u64,
    memory: u64,
    /// Bytes of lines that were read since the last check of memory.
    unlooked: u64,
}

/// An open file of a recording. Nothing is read yet.
#[derive(Debug)]
pub struct RecordingFile {
    /// `None` for standard input.
    file: Option<File>,
    can_be_read_again: bool,
}

impl RecordingFile {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// The file cannot be opened, or is a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path == "-" {
            return Ok(Self { file: None, can_be_read_again: false });
        }
        let file = File::open(path)?;
        let found = file.metadata()?;
        if found.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Self { file: Some(file), can_be_read_again: found.is_file() })
    }

    /// Whether the file is a regular file.
    pub fn can_be_read_again(&self) -> bool {
        self.can_be_read_again
    }

    /// Reads the recording. A regular file is read from its beginning each time.
    ///
    /// # Errors
    /// The beginning cannot be read.
    pub fn read(&self) -> io::Result<Recording> {
        let Some(file) = &self.file else { return Recording::read(io::stdin()) };
        let mut file = file.try_clone()?;
        if self.can_be_read_again {
            file.rewind()?;
        }
        Recording::read(file)
    }
}

impl Recording {
    /// Opens a file and reads it; `-` is standard input.
    pub fn open(path: &Path) -> io::Result<Self> {
        RecordingFile::open(path)?.read()
    }

    /// Reads a recording from `from`.
    pub fn read(from: impl Read + Send + 'static) -> io::Result<Self> {
        let mut from = BufReader::new(from);
        let compressed = from.fill_buf()?.starts_with(&ZSTD_MAGIC);
        let lines: Box<dyn BufRead + Send> = if compressed {
            Box::new(BufReader::new(zstd::Decoder::with_buffer(from)?))
        } else {
            Box::new(from)
        };
        Ok(Self {
            lines,
            line: 0,
            seq: 0,
            ended: false,
            over: false,
            unknown: 0,
            memory: MEMORY,
            unlooked: 0,
        })
    }

    /// Number of events so far whose kinds only a later version of this program knows. They are omitted.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The events that can name a container or start a namespace, up to the first line that cannot be read. Other lines
    /// are not parsed, which would take most of the time.
    pub fn naming(mut self) -> impl Iterator<Item = Event> {
        const WORDS: [&str; 3] = ["\"container\"", "\"namespace.create\"", "\"stream.start\""];
        let mut bytes = Vec::new();
        std::iter::from_fn(move || {
            while let Ok(true) = self.next_line(&mut bytes) {
                let names =
                    str::from_utf8(&bytes).is_ok_and(|line| WORDS.iter().any(|word| line.contains(word)));
                if names && let Ok(event) = serde_json::from_slice(&bytes) {
                    return Some(event);
                }
            }
            None
        })
    }

    fn next_line(&mut self, bytes: &mut Vec<u8>) -> Result<bool, Damage> {
        bytes.clear();
        let mut limited = (&mut self.lines).take(LONGEST_LINE);
        let read = limited.read_until(b'\n', bytes);
        if let Err(error) = read {
            return Err(Damage::Unreadable { line: self.line, error });
        }
        if bytes.is_empty() {
            return if self.ended { Ok(false) } else { Err(Damage::NoEnd { line: self.line }) };
        }
        self.line += 1;
        self.unlooked += bytes.len() as u64;
        if self.unlooked >= CHECK_INTERVAL {
            self.unlooked = 0;
            if procfs::own_memory().is_some_and(|taken| taken > self.memory) {
                return Err(Damage::TooLarge { line: self.line, budget: self.memory });
            }
        }
        match bytes.pop() {
            Some(b'\n') => Ok(true),
            _ if bytes.len() as u64 + 1 >= LONGEST_LINE => Err(Damage::Endless { line: self.line }),
            _ => Err(Damage::CutOff { line: self.line }),
        }
    }

    fn next_event(&mut self) -> Result<Option<Event>, Damage> {
        let mut bytes = Vec::new();
        while self.next_line(&mut bytes)? {
            match serde_json::from_slice::<Event>(&bytes) {
                Ok(event) => {
                    // A file can contain several recordings, one after the other. Each counts from 1.
                    if event.seq == 1 && matches!(event.body, Body::StreamStart { .. }) {
                        if self.line > 1 && !self.ended {
                            return Err(Damage::NoEnd { line: self.line - 1 });
                        }
                        self.seq = 0;
                    }
                    self.follow(event.seq)?;
                    self.ended = matches!(event.body, Body::StreamEnd { .. });
                    return Ok(Some(event));
                }
                Err(error) => match seq_of_a_later_event(&bytes) {
                    Some(seq) => {
                        self.follow(seq)?;
                        self.unknown += 1;
                    }
                    None => return Err(Damage::Line { line: self.line, error }),
                },
            }
        }
        Ok(None)
    }

    /// Checks that this is the next event: a recorder reports lost events (`stream.lost`) and counts on without a gap.
    fn follow(&mut self, found: u64) -> Result<(), Damage> {
        let (line, before) = (self.line, self.seq);
        self.seq = found;
        match found.checked_sub(before) {
            Some(1) => Ok(()),
            None | Some(0) => Err(Damage::Disordered { line, before, found }),
            Some(steps) => Err(Damage::Missing { line, missing: steps - 1, before, found }),
        }
    }
}

impl Iterator for Recording {
    type Item = Result<Event, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.next_event().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// `seq` of an event with an unknown name. A version of the schema can get more events later.
fn seq_of_a_later_event(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Head {
        v: u8,
        event: String,
        seq: u64,
    }
    let Head { v, event, seq } = serde_json::from_slice(line).ok()?;
    (v == VERSION && !Body::NAMES.contains(&event.as_str())).then_some(seq)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use proptest::prelude::*;

    use super::*;

    const START: &str = r#"{"v":1,"event":"stream.start","seq":1,"time":"1970-01-01T00:00:00Z","boot_ns":5,"version":"","boot_time":"","hooks":{},"filter":{"events":[]}}"#;

    fn lost(seq: u64) -> String {
        format!(
            r#"{{"v":1,"event":"stream.lost","seq":{seq},"time":"1970-01-01T00:00:00Z","boot_ns":5,"stage":"ring","count":1}}"#
        )
    }

    fn end(seq: u64) -> String {
        format!(
            r#"{{"v":1,"event":"stream.end","seq":{seq},"time":"1970-01-01T00:00:00Z","boot_ns":6,"events":{{}},"lost":{{}},"kernel":{{}},"threads":{{"created":0,"ended":0}},"duration_ns":1}}"#
        )
    }

    /// Returns the names of the events, and the damage, if any.
    fn read(bytes: &[u8]) -> (Vec<&'static str>, Option<String>) {
        let mut names = Vec::new();
        for event in Recording::read(Cursor::new(bytes.to_vec())).unwrap() {
            match event {
                Ok(event) => names.push(event.body.name()),
                Err(damage) => return (names, Some(damage.to_string())),
            }
        }
        (names, None)
    }

    fn compressed(text: &str) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_whole_recording_is_read_compressed_or_not() {
        let text = format!("{START}\n{}\n{}\n", lost(2), end(3));
        for bytes in [text.clone().into_bytes(), compressed(&text)] {
            assert_eq!(read(&bytes), (vec!["stream.start", "stream.lost", "stream.end"], None));
        }
        // A recording that was continued.
        let twice = [compressed(&text), compressed(&text)].concat();
        let (names, damage) = read(&twice);
        assert_eq!((names.len(), damage), (6, None));
    }

    #[test]
    fn events_before_the_damage_are_read_and_the_line_is_named() {
        let (one, two, three) = (lost(1), lost(2), end(3));
        let cases = [
            (format!("{one}\n{two}\n"), 2, "after line 2: the recording ends without stream.end"),
            (format!("{one}\n{two}"), 1, "line 2: the file ends in the middle of it"),
            (format!("{one}\n{}", &two[..20]), 1, "line 2: the file ends in the middle of it"),
            (format!("{one}\nnonsense\n{three}\n"), 1, "line 2: expected"),
            (format!("{one}\n{}\n", two.replace("\"v\":1", "\"v\":2")), 1, "line 2: version 2 of the events"),
            (String::new(), 0, "it is empty: is this a recording"),
            (format!("{one}\n{}", "x".repeat(2 << 20)), 1, "line 2: longer than any event"),
        ];
        for (text, good, message) in cases {
            let (names, damage) = read(text.as_bytes());
            assert_eq!(names.len(), good, "{message}");
            assert!(
                damage.as_deref().is_some_and(|damage| damage.starts_with(message)),
                "{damage:?}: {message}"
            );
        }
        let events: String = (1..=1000).map(|seq| format!("{}\n", lost(seq))).collect();
        let whole = compressed(&format!("{events}{}\n", end(1001)));
        let (names, damage) = read(&whole[..whole.len() - 10]);
        assert!(names.len() < 1001 && damage.is_some_and(|damage| damage.contains("line ")));
    }

    #[test]
    fn events_with_impossible_values_are_refused() {
        let process = |comm: &str, pids: &str| {
            format!(
                r#"{{"v":1,"event":"process.reap","seq":1,"time":"1970-01-01T00:00:00Z","boot_ns":5,"process":{{"pid":1,"pids":[{pids}],"comm":"{comm}","start_boot_ns":7,"uid":0,"ns":9}}}}"#
            ) + "\n"
        };
        let namespace = |level: u32| {
            format!(
                r#"{{"v":1,"event":"snapshot.namespace","seq":1,"time":"1970-01-01T00:00:00Z","boot_ns":5,"ns":{{"inum":9,"level":{level}}}}}"#
            ) + "\n"
        };
        let levels = |count| vec!["1"; count].join(",");
        for (text, message) in [
            (process(&"x".repeat(64), &levels(33)), None),
            (process(&"x".repeat(65), "1"), Some("line 1: a comm of 65 bytes")),
            (process("x", &levels(34)), Some("line 1: 34 PIDs of one process")),
            (namespace(32), None),
            (namespace(33), Some("line 1: level 33: ")),
        ] {
            let (names, damage) = read(text.as_bytes());
            let damage = damage.expect("the recording has no end");
            match message {
                Some(message) => {
                    assert!(names.is_empty() && damage.starts_with(message), "{damage}: {message}")
                }
                None => assert!(names.len() == 1 && damage.starts_with("after line 1: "), "{damage}"),
            }
        }
    }

    #[test]
    fn a_recording_that_takes_too_much_memory_is_abandoned_and_its_line_named() {
        let text: String = (1..=20_000).map(|seq| format!("{}\n", lost(seq))).collect();
        let recording = Recording::read(Cursor::new(text.into_bytes())).unwrap();
        let mut recording = Recording { memory: 1 << 20, ..recording };
        let good = recording.by_ref().take_while(Result::is_ok).count() as u64;
        assert!(good > 1_000 && good < 20_000, "memory is checked at intervals: {good}");
        assert_eq!(recording.line, good + 1);
        let damage = Damage::TooLarge { line: recording.line, budget: 3 << 20 }.to_string();
        assert!(damage.contains("more than 3 MiB"), "{damage}");
    }

    #[test]
    fn missing_events_are_damage() {
        let text = |seqs: &[u64]| {
            let events: String = seqs.iter().map(|&seq| format!("{}\n", lost(seq))).collect();
            format!("{events}{}\n", end(seqs.last().unwrap() + 1))
        };
        for (seqs, good, message) in [
            (&[1, 2, 6][..], 2, "line 3: 3 events are missing before it (seq 6 after 2)"),
            (&[1, 3], 1, "line 2: 1 event is missing before it (seq 3 after 1)"),
            (&[3, 4], 0, "line 1: 2 events are missing before it (seq 3 at the beginning)"),
            (&[1, 2, 2], 2, "line 3: its event is not later than the one before (seq 2 after 2)"),
            (&[1, 2, 3, 2], 3, "line 4: its event is not later than the one before (seq 2 after 3)"),
        ] {
            let (names, damage) = read(text(seqs).as_bytes());
            assert_eq!((names.len(), damage.as_deref()), (good, Some(message)));
        }
    }

    #[test]
    fn unknown_events_are_omitted_and_counted() {
        let later = lost(1).replace("stream.lost", "stream.found");
        let text = format!("{later}\n{}\n", end(2));
        let mut recording = Recording::read(Cursor::new(text.into_bytes())).unwrap();
        assert_eq!(recording.by_ref().filter_map(Result::ok).count(), 1, "no event is missing");
        assert_eq!(recording.unknown(), 1);
    }

    proptest! {
        #[test]
        fn any_file_ends_with_an_error_and_never_panics(bytes: Vec<u8>, compress: bool) {
            let mut file = if compress { ZSTD_MAGIC.to_vec() } else { Vec::new() };
            file.extend(bytes);
            prop_assert!(read(&file).1.is_some(), "the recording has no end");
        }
    }
}
