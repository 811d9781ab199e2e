//! The values of the filters: what they may be, and the errors for others.

use globset::{Glob, GlobMatcher};

use crate::{
    event::{Body, COMM_LEN, MAX_LEVEL, Token},
    text::distance,
};

/// The events of the live stream where none is asked for. Process events are of non-initial namespaces then.
const DEFAULT_EVENTS: [&str; 4] = ["namespace.*", "init.*", "fork.failed", "process.{fork,exec,exit}"];
/// Always there: without them a stream cannot be read.
const FRAME: [&str; 6] =
    ["stream.start", "stream.lost", "stream.resync", "stream.end", "snapshot.namespace", "snapshot.process"];
/// Seen by the hook on system calls alone.
const REFUSALS: [&str; 3] = ["namespace.create_failed", "namespace.join_failed", "fork.failed"];

/// An option's value that means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// No event matches.
    #[error(
        "--event {pattern:?}: no such event; did you mean '{nearest}'? Events: {list}. Patterns like namespace.*, the labels of \
         the column EVENT, and all are allowed too", list = event_list()
    )]
    NoEvent {
        /// What was given.
        pattern: String,
        /// The event, or the pattern, that is most like it.
        nearest: String,
    },
    /// Only what no choice leaves out.
    #[error("--event {0}: stream.start, stream.lost and stream.end are always there. Events to choose from: {list}", list = event_list())]
    Frame(String),
    /// Only refusals, and nothing that sees them.
    #[error(
        "--event {0}: refusals are seen by the hook on system calls only, which --no-syscall-hooks leaves out"
    )]
    NoRefusals(String),
    /// No name is that long.
    #[error(
        "--comm {pattern}: no name matches: the kernel keeps the first {most} bytes of a name{hint}",
        most = COMM_LEN - 1,
        hint = if cut.is_empty() { String::new() } else { format!("; try '{cut}*'") }
    )]
    LongComm {
        /// What was given.
        pattern: String,
        /// What of it the kernel keeps, up to its first wildcard.
        cut: String,
    },
    /// Not a pattern.
    #[error("{option} {value}: {error}")]
    BadGlob {
        /// Which option.
        option: &'static str,
        /// What it was given.
        value: String,
        /// What is wrong.
        error: String,
    },
    /// Not a level, or a range of them.
    #[error(
        "--level {0}: a level is a number from 0 (the host) to {MAX_LEVEL}, or a range of them: 1, 1-3, 2+"
    )]
    BadLevel(String),
    /// Not a namespace.
    #[error(
        "--ns {value}: {error}. Give an inode number (4026532847 or pid:[4026532847], as `lsns -t pid` prints it), a PID, or the path of a namespace file"
    )]
    NoNamespace {
        /// What was given.
        value: String,
        /// What is wrong.
        error: String,
    },
    /// Every container has a name that begins so.
    #[error("--container: give a container's name, pod, or id from its beginning")]
    NoContainer,
    /// More than the kernel's maps hold.
    #[error("{option}: at most {most} are possible")]
    TooMany {
        /// Which option.
        option: &'static str,
        /// How many there can be.
        most: u32,
    },
}

fn event_list() -> String {
    Body::NAMES.iter().filter(|name| !FRAME.contains(name)).copied().collect::<Vec<_>>().join(", ")
}

pub(super) fn matcher(option: &'static str, glob: &str) -> Result<GlobMatcher, FilterError> {
    match Glob::new(glob) {
        Ok(glob) => Ok(glob.compile_matcher()),
        Err(error) => {
            Err(FilterError::BadGlob { option, value: glob.to_owned(), error: error.kind().to_string() })
        }
    }
}

/// The pattern that a name stands for: what the table calls an event, or the last part of its name, is that event.
fn meant(word: &str) -> &str {
    let same = |text: &str| text.to_lowercase().replace(['-', '_'], " ");
    let asked = same(word);
    if word == "all" {
        return "*";
    }
    if Body::NAMES.contains(&word) {
        return word;
    }
    let labels = Body::NAMES.iter().zip(Body::LABELS);
    let named = labels.clone().filter(|(name, _)| !FRAME.contains(name));
    let by_label = labels.clone().find(|(_, label)| same(label) == asked);
    let by_end =
        named.clone().find(|(name, _)| name.rsplit('.').next().is_some_and(|end| same(end) == asked));
    by_label.or(by_end).map_or(word, |(name, _)| name)
}

/// The event that a pattern which matches none is most like; of a group's name its pattern.
fn nearest_event(pattern: &str) -> String {
    let word = pattern.to_lowercase();
    let group = ["namespace", "process"].into_iter().find(|group| distance(group, &word) <= 2);
    if let Some(group) = group {
        return format!("{group}.*");
    }
    let names = Body::NAMES.iter().copied().filter(|name| !FRAME.contains(name));
    let labels = Body::NAMES.iter().zip(Body::LABELS).filter(|(name, _)| !FRAME.contains(name));
    let ends = names.clone().filter_map(|name| Some((name, name.rsplit_once('.')?.1)));
    let all = names.map(|name| (name, name)).chain(labels.map(|(&name, &label)| (name, label))).chain(ends);
    let bare: String = word.chars().filter(|c| !"*?[]{}".contains(*c)).collect();
    all.min_by_key(|(_, text)| distance(&bare, text)).map(|(name, _)| name.to_owned()).unwrap_or_default()
}

pub(super) fn select_events(asked: &[String], no_syscall_hooks: bool) -> Result<Vec<Token>, FilterError> {
    let mut chosen = vec![false; Body::NAMES.len()];
    let given: Vec<&str> = asked.iter().flat_map(|patterns| split_at_commas(patterns)).collect();
    for &pattern in if asked.is_empty() { &DEFAULT_EVENTS[..] } else { &given } {
        let glob = matcher("--event", meant(pattern))?;
        let (mut any, mut frame, mut only_refusals) = (false, false, true);
        for (name, chosen) in Body::NAMES.iter().zip(&mut chosen).filter(|(name, _)| glob.is_match(name)) {
            if FRAME.contains(name) {
                frame = true;
            } else {
                *chosen = true;
                any = true;
                only_refusals &= REFUSALS.contains(name);
            }
        }
        match (any, frame) {
            (false, true) => return Err(FilterError::Frame(pattern.to_owned())),
            (false, false) => {
                return Err(FilterError::NoEvent {
                    pattern: pattern.to_owned(),
                    nearest: nearest_event(pattern),
                });
            }
            // The default is made for whatever hooks there are.
            (true, _) if only_refusals && no_syscall_hooks && !asked.is_empty() => {
                return Err(FilterError::NoRefusals(pattern.to_owned()));
            }
            (true, _) => {}
        }
    }
    Ok(Body::NAMES.iter().zip(chosen).filter_map(|(&name, chosen)| chosen.then_some(name.into())).collect())
}

pub(super) fn mask(from: u32, to: u32) -> u64 {
    (from..=to).fold(0, |mask, level| mask | 1 << level)
}

pub(super) fn parse_levels(levels: &[String]) -> Result<u64, FilterError> {
    levels.iter().try_fold(0, |all, text| {
        let bad = || FilterError::BadLevel(text.clone());
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|&level| level <= MAX_LEVEL).ok_or_else(bad);
        let (from, to) = match (text.strip_suffix('+'), text.split_once('-')) {
            (Some(from), _) => (number(from)?, MAX_LEVEL),
            (None, Some((from, to))) => (number(from)?, number(to)?),
            (None, None) => (number(text)?, number(text)?),
        };
        if from > to { Err(bad()) } else { Ok(all | mask(from, to)) }
    })
}

/// `--event`'s values: patterns with commas between them, which in braces and brackets belong to the pattern.
fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut braces, mut class, mut from, mut parts) = (0_u32, false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '[' => class = true,
            ']' => class = false,
            '{' if !class => braces += 1,
            '}' if !class => braces = braces.saturating_sub(1),
            ',' if !class && braces == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Least bytes of a text that the pattern, which is a valid one, matches.
fn least_bytes(pattern: &mut impl Iterator<Item = char>) -> usize {
    let (mut least, mut bytes) = (usize::MAX, 0);
    while let Some(c) = pattern.next() {
        bytes += match c {
            '*' => 0,
            '?' => 1,
            '[' => {
                // The first of a class, behind its `!`, is one of its characters, whatever it is.
                if matches!(pattern.next(), Some('!' | '^')) {
                    pattern.next();
                }
                let _ = pattern.find(|&c| c == ']');
                1
            }
            '{' => least_bytes(pattern),
            // At the top level, where these mean themselves, the longer text is the one that counts.
            ',' => {
                least = least.min(bytes);
                bytes = 0;
                continue;
            }
            '}' => break,
            c => c.len_utf8(),
        };
    }
    least.min(bytes)
}

/// A `--comm` that no name can match is refused. One with a backslash may be about bytes that are shown as four.
pub(super) fn check_comm(pattern: &str) -> Result<(), FilterError> {
    const MOST: usize = COMM_LEN - 1;
    if pattern.contains('\\') || least_bytes(&mut pattern.chars()) <= MOST {
        return Ok(());
    }
    let cut: String = pattern
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= MOST && !"*?[{".contains(*c))
        .map(|(_, c)| c)
        .collect();
    Err(FilterError::LongComm { pattern: pattern.to_owned(), cut })
}
