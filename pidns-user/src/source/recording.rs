//! Recordings: files of events, one JSON object a line, with zstd around it or not.

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

/// What a zstd frame begins with (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Longest line: an exec with 4 KB of arguments, each byte of them escaped, is a fraction of it.
const LONGEST_LINE: u64 = 1 << 20;
/// Most memory that this process may have taken when there is more to read, bytes. 200,000 processes in 50,000 namespaces, which
/// the program is built for, take a tenth of it.
const MEMORY: u64 = 1 << 30;
/// So many bytes of lines are read before memory is checked again.
const BETWEEN_LOOKS: u64 = 1 << 20;

/// Why a recording cannot be read any further. What stood before it is good.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The line is no event.
    #[error("line {line}: {}{}", printable(&error.to_string()), is_one(*line))]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The last line has no end.
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
    /// Events are not there that were.
    #[error("line {line}: {} missing before it (seq {found}{})", Count(*missing, "event is", "events are"), after(*.before))]
    Missing {
        /// Number of the line behind the gap, from 1.
        line: u64,
        /// How many.
        missing: u64,
        /// `seq` of the event before the gap; 0 where there is none.
        before: u64,
        /// `seq` of the event behind it.
        found: u64,
    },
    /// It is no later event than the one before.
    #[error("line {line}: it does not follow the line before it (seq {found}{})", after(*.before))]
    Disordered {
        /// Its number, from 1.
        line: u64,
        /// `seq` of the event before.
        before: u64,
        /// Its own.
        found: u64,
    },
    /// The file cannot be read, or what it is compressed with is damaged.
    #[error("after line {line}: {error}")]
    Unreadable {
        /// Number of the last line that could be read.
        line: u64,
        /// What came back.
        error: io::Error,
    },
    /// What it makes takes more memory than a recording may.
    #[error(
        "after line {line}: what it has made so far takes more than {} MiB of memory, which is all that a recording may take",
        budget >> 20
    )]
    TooLarge {
        /// Number of the last line that was read.
        line: u64,
        /// How much it may take, bytes.
        budget: u64,
    },
    /// All lines are good, and the last one is not there.
    #[error("after line {line}: the recording ends without stream.end: {}", why_without_end(*line))]
    NoEnd {
        /// Number of the last line.
        line: u64,
    },
}

/// What is wrong from the start may never have been a recording.
fn is_one(line: u64) -> &'static str {
    if line == 1 { ": is this a recording, as `pidns-trace record` makes them?" } else { "" }
}

fn why_without_end(line: u64) -> &'static str {
    match line {
        0 => "it is empty",
        _ => "the recording was cut off, or is still being written",
    }
}

fn after(before: u64) -> String {
    if before == 0 { " at the beginning".to_owned() } else { format!(" after {before}") }
}

/// The events of a recording, one after the other.
pub struct Recording {
    lines: Box<dyn BufRead + Send>,
    line: u64,
    /// `seq` of the event before.
    seq: u64,
    ended: bool,
    over: bool,
    /// Events of kinds that only a later version knows.
    unknown: u64,
    memory: u64,
    /// Bytes of lines that were read since memory was checked.
    unlooked: u64,
}

/// A file of a recording, open, of which nothing is read yet.
#[derive(Debug)]
pub struct RecordingFile {
    /// None: standard input.
    file: Option<File>,
    can_be_read_again: bool,
}

impl RecordingFile {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be opened, or is a folder.
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

    /// Whether it is a regular file.
    pub fn can_be_read_again(&self) -> bool {
        self.can_be_read_again
    }

    /// Reads it; a regular file from its beginning, each time. Those that read it at the same time share the place.
    ///
    /// # Errors
    /// What comes first cannot be read.
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

    /// Reads from there.
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

    /// How many events there were, so far, of kinds that only a later version of this program knows: they are left out.
    pub fn unknown(&self) -> u64 {
        self.unknown
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
        if self.unlooked >= BETWEEN_LOOKS {
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
                    // Recordings can stand one behind the other in a file, and each counts from 1.
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

    /// Each event is the next one: a recorder reports what it lost (`stream.lost`), and counts on.
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

/// `seq` of an event whose name is not known here: there may be more of them within a version of the schema.
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

    /// The names of the events, and what the end is like.
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
        // One that was continued.
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
            (format!("{one}\n{}\n", two.replace("\"v\":1", "\"v\":2")), 1, "line 2: this is version 2"),
            (String::new(), 0, "after line 0: the recording ends without"),
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
            let damage = damage.expect("it has no end");
            match message {
                Some(message) => {
                    assert!(names.is_empty() && damage.starts_with(message), "{damage}: {message}")
                }
                None => assert!(names.len() == 1 && damage.starts_with("after line 1: "), "{damage}"),
            }
        }
    }

    #[test]
    fn a_recording_that_takes_too_much_memory_is_left_with_the_line() {
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
    fn events_that_are_missing_are_damage() {
        let text = |seqs: &[u64]| {
            let events: String = seqs.iter().map(|&seq| format!("{}\n", lost(seq))).collect();
            format!("{events}{}\n", end(seqs.last().unwrap() + 1))
        };
        for (seqs, good, message) in [
            (&[1, 2, 6][..], 2, "line 3: 3 events are missing before it (seq 6 after 2)"),
            (&[1, 3], 1, "line 2: 1 event is missing before it (seq 3 after 1)"),
            (&[3, 4], 0, "line 1: 2 events are missing before it (seq 3 at the beginning)"),
            (&[1, 2, 2], 2, "line 3: it does not follow the line before it (seq 2 after 2)"),
            (&[1, 2, 3, 2], 3, "line 4: it does not follow the line before it (seq 2 after 3)"),
        ] {
            let (names, damage) = read(text(seqs).as_bytes());
            assert_eq!((names.len(), damage.as_deref()), (good, Some(message)));
        }
    }

    #[test]
    fn events_that_only_a_later_version_has_are_left_out_and_counted() {
        let later = lost(1).replace("stream.lost", "stream.found");
        let text = format!("{later}\n{}\n", end(2));
        let mut recording = Recording::read(Cursor::new(text.into_bytes())).unwrap();
        assert_eq!(recording.by_ref().filter_map(Result::ok).count(), 1, "and none is missing");
        assert_eq!(recording.unknown(), 1);
    }

    proptest! {
        #[test]
        fn no_file_is_too_bad(bytes: Vec<u8>, compress: bool) {
            let mut file = if compress { ZSTD_MAGIC.to_vec() } else { Vec::new() };
            file.extend(bytes);
            prop_assert!(read(&file).1.is_some(), "it has no end");
        }
    }
}
