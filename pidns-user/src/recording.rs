//! Recordings: files of events, one JSON object a line, with zstd around it or not.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use serde::Deserialize;

use crate::event::{Body, Event, VERSION};

/// What a zstd frame begins with (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
/// Longest line: an exec with 4 KB of arguments, each byte of them escaped, is a fraction of it.
const LONGEST_LINE: u64 = 1 << 20;

/// Why a recording cannot be read any further. What stood before it is good.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The line is no event.
    #[error("line {line}: {error}")]
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
    /// The file cannot be read, or what it is compressed with is damaged.
    #[error("after line {line}: {error}")]
    Unreadable {
        /// Number of the last line that could be read.
        line: u64,
        /// What came back.
        error: io::Error,
    },
    /// All lines are good, and the last one is not there.
    #[error(
        "after line {line}: the file ends without stream.end: whoever recorded it was cut off, or is still at work"
    )]
    NoEnd {
        /// Number of the last line.
        line: u64,
    },
}

/// The events of a recording, one after the other.
pub struct Recording {
    lines: Box<dyn BufRead>,
    line: u64,
    ended: bool,
    over: bool,
    /// Events of kinds that only a later version knows.
    unknown: u64,
}

impl Recording {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path == "-" {
            return Self::read(io::stdin());
        }
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Self::read(file)
    }

    /// Reads from there.
    pub fn read(from: impl Read + 'static) -> io::Result<Self> {
        let mut from = BufReader::new(from);
        let compressed = from.fill_buf()?.starts_with(&ZSTD_MAGIC);
        let lines: Box<dyn BufRead> = if compressed {
            Box::new(BufReader::new(zstd::Decoder::with_buffer(from)?))
        } else {
            Box::new(from)
        };
        Ok(Self { lines, line: 0, ended: false, over: false, unknown: 0 })
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
                    self.ended = matches!(event.body, Body::StreamEnd { .. });
                    return Ok(Some(event));
                }
                Err(_) if is_of_a_later_version(&bytes) => self.unknown += 1,
                Err(error) => return Err(Damage::Line { line: self.line, error }),
            }
        }
        Ok(None)
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

/// Whether it is an event whose name is not known here: there may be more of them within a version of the schema.
fn is_of_a_later_version(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        v: u8,
        event: String,
    }
    serde_json::from_slice::<Head>(line)
        .is_ok_and(|head| head.v == VERSION && !Body::NAMES.contains(&head.event.as_str()))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use proptest::prelude::*;

    use super::*;

    const LOST: &str = r#"{"v":1,"event":"stream.lost","seq":1,"time":"1970-01-01T00:00:00Z","boot_ns":5,"stage":"ring","count":1}"#;
    const END: &str = r#"{"v":1,"event":"stream.end","seq":2,"time":"1970-01-01T00:00:00Z","boot_ns":6,"events":{},"lost":{},"kernel":{},"threads":{"created":0,"ended":0},"duration_ns":1}"#;

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
        let text = format!("{LOST}\n{END}\n");
        for bytes in [text.clone().into_bytes(), compressed(&text)] {
            assert_eq!(read(&bytes), (vec!["stream.lost", "stream.end"], None));
        }
        // One that was continued.
        let twice = [compressed(&text), compressed(&text)].concat();
        assert_eq!(read(&twice).0.len(), 4);
    }

    #[test]
    fn what_stands_before_the_damage_is_read_and_the_line_named() {
        let cases = [
            (format!("{LOST}\n{LOST}\n"), 2, "after line 2: the file ends without stream.end"),
            (format!("{LOST}\n{LOST}"), 1, "line 2: the file ends in the middle of it"),
            (format!("{LOST}\n{}", &LOST[..20]), 1, "line 2: the file ends in the middle of it"),
            (format!("{LOST}\nnonsense\n{END}\n"), 1, "line 2: expected"),
            (format!("{LOST}\n{}\n", LOST.replace("\"v\":1", "\"v\":2")), 1, "line 2: this is version 2"),
            (String::new(), 0, "after line 0: the file ends without"),
            (format!("{LOST}\n{}", "x".repeat(2 << 20)), 1, "line 2: longer than any event"),
        ];
        for (text, good, words) in cases {
            let (names, damage) = read(text.as_bytes());
            assert_eq!(names.len(), good, "{words}");
            assert!(damage.as_deref().is_some_and(|damage| damage.starts_with(words)), "{damage:?}: {words}");
        }
        let text = format!("{}{END}\n", format!("{LOST}\n").repeat(1000));
        let whole = compressed(&text);
        let (names, damage) = read(&whole[..whole.len() - 10]);
        assert!(names.len() < 1001 && damage.is_some_and(|damage| damage.contains("line ")));
    }

    #[test]
    fn events_that_only_a_later_version_has_are_left_out_and_counted() {
        let later = LOST.replace("stream.lost", "stream.found");
        let text = format!("{later}\n{END}\n");
        let mut recording = Recording::read(Cursor::new(text.into_bytes())).unwrap();
        assert_eq!(recording.by_ref().filter_map(Result::ok).count(), 1);
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
