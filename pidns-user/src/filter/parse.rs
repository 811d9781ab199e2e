//! Checks the values of filter options.

use globset::{Glob, GlobMatcher};

use crate::{
    event::finding::Diagnosis,
    event::{Body, COMM_LEN, MAX_LEVEL, Token},
    text::{distance, is_similar},
};

/// The default events of the live stream. Then process events of the host are omitted.
const DEFAULT_EVENTS: [&str; 4] = ["namespace.*", "init.*", "fork.failed", "process.{fork,exec,exit}"];
/// Always shown: a stream cannot be read without them.
const FRAME: [&str; 6] =
    ["stream.start", "stream.lost", "stream.resync", "stream.end", "snapshot.namespace", "snapshot.process"];
/// Only the hook on system calls reports these.
const REFUSALS: [&str; 3] = ["namespace.create_failed", "namespace.join_failed", "fork.failed"];

/// An invalid value of an option.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// No event matches.
    #[error(
        "--event {pattern:?}: no such event{} Events: {list}. Patterns like namespace.*, the labels of the column EVENT, and all \
         are allowed too", suggestion(nearest.as_deref()), list = event_list()
    )]
    NoEvent {
        /// The given pattern.
        pattern: String,
        /// The event or pattern that is similar enough to be meant.
        nearest: Option<String>,
    },
    /// The pattern only matches events that are always shown.
    #[error("--event {0}: stream.start, stream.lost and stream.end are always there. Events to choose from: {list}", list = event_list())]
    Frame(String),
    /// The pattern only matches refusals, and perhaps no hook reports them.
    #[error(
        "--event {0}: these are only refusals, and with --no-syscall-hooks they are not reported without function hooks; omit \
         --no-syscall-hooks, which is not needed with function hooks"
    )]
    NoRefusals(String),
    /// The pattern is longer than any name.
    #[error(
        "--comm {pattern}: no name matches: the kernel keeps the first {most} bytes of a name{hint}",
        most = COMM_LEN - 1,
        hint = if cut.is_empty() { String::new() } else { format!("; try '{cut}*'") }
    )]
    LongComm {
        /// The given pattern.
        pattern: String,
        /// The part of it that the kernel keeps, up to its first wildcard.
        cut: String,
    },
    /// The pattern is invalid.
    #[error("{option} {value}: {error}")]
    BadGlob {
        /// The option.
        option: &'static str,
        /// The given value.
        value: String,
        /// The error.
        error: String,
    },
    /// The value is neither a level nor a range of levels.
    #[error(
        "--level {0}: a level is a number from 0 (the host) to {MAX_LEVEL}, or a range of them: 1, 1-3, 2+"
    )]
    BadLevel(String),
    /// The value does not name a namespace.
    #[error("--ns {value}: {error}")]
    NoNamespace {
        /// The given value.
        value: String,
        /// The error, and the forms of a value.
        error: String,
    },
    /// The value is empty, so it would match every container.
    #[error("--container: give a container's name, its pod, or the beginning of its id")]
    NoContainer,
    /// More values than the kernel's maps can hold.
    #[error("{option}: at most {most} are possible")]
    TooMany {
        /// The option.
        option: &'static str,
        /// The largest possible number.
        most: u32,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(|| ".".to_owned(), |nearest| format!("; did you mean '{nearest}'?"))
}

/// The events that `--event` can choose.
pub fn choosable_events() -> impl Iterator<Item = &'static str> {
    Body::NAMES.iter().filter(|name| !FRAME.contains(name)).copied()
}

fn event_list() -> String {
    choosable_events().collect::<Vec<_>>().join(", ")
}

pub(super) fn matcher(option: &'static str, glob: &str) -> Result<GlobMatcher, FilterError> {
    match Glob::new(glob) {
        Ok(glob) => Ok(glob.compile_matcher()),
        Err(error) => {
            Err(FilterError::BadGlob { option, value: glob.to_owned(), error: error.kind().to_string() })
        }
    }
}

/// The pattern for a word. A label of the table, or the last part of an event's name, selects that event.
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

/// The event that is most similar to a pattern that matches none, if it is similar. For the name of a group, the
/// group's pattern; for a word of a finding, the event about findings.
fn nearest_event(pattern: &str) -> Option<String> {
    let word = pattern.to_lowercase();
    let group = ["namespace", "process"].into_iter().find(|group| distance(group, &word) <= 2);
    if let Some(group) = group {
        return Some(format!("{group}.*"));
    }
    let names = Body::NAMES.iter().copied().filter(|name| !FRAME.contains(name));
    let labels = Body::NAMES.iter().zip(Body::LABELS).filter(|(name, _)| !FRAME.contains(name));
    let ends = names.clone().filter_map(|name| Some((name, name.rsplit_once('.')?.1)));
    let all = names.map(|name| (name, name)).chain(labels.map(|(&name, &label)| (name, label))).chain(ends);
    let bare: String = word.chars().filter(|c| !"*?[]{}".contains(*c)).collect();
    let similar = all.filter(|(_, text)| is_similar(&bare, text));
    let nearest = similar.min_by_key(|(_, text)| distance(&bare, text)).map(|(name, _)| name.to_owned());
    let is_of_finding = |id: &&Diagnosis| {
        bare.len() >= 3
            && id
                .id()
                .split('-')
                .any(|part| part == bare || is_similar(&bare, part) || part.starts_with(&bare))
    };
    nearest.or_else(|| Diagnosis::ALL.iter().find(is_of_finding).map(|_| "finding".to_owned()))
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
            // The default is for any set of hooks.
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

/// Splits `--event`'s value at commas. Commas in braces and brackets belong to the pattern.
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

/// Length in bytes of the shortest text that this valid pattern matches.
fn least_bytes(pattern: &mut impl Iterator<Item = char>) -> usize {
    let (mut least, mut bytes) = (usize::MAX, 0);
    while let Some(c) = pattern.next() {
        bytes += match c {
            '*' => 0,
            '?' => 1,
            '[' => {
                // The first character of a class, after its `!`, always belongs to the class, even if it is `]`.
                if matches!(pattern.next(), Some('!' | '^')) {
                    pattern.next();
                }
                let _ = pattern.find(|&c| c == ']');
                1
            }
            '{' => least_bytes(pattern),
            // At the top level, commas and braces stand for themselves. Then the longer text is the right one.
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

/// Refuses a `--comm` that no name can match. A pattern with a backslash is accepted: it may be about bytes that are
/// shown as four characters.
pub(super) fn check_comm(pattern: &str) -> Result<(), FilterError> {
    const MAX_LEN: usize = COMM_LEN - 1;
    if pattern.contains('\\') || least_bytes(&mut pattern.chars()) <= MAX_LEN {
        return Ok(());
    }
    let cut: String = pattern
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= MAX_LEN && !"*?[{".contains(*c))
        .map(|(_, c)| c)
        .collect();
    Err(FilterError::LongComm { pattern: pattern.to_owned(), cut })
}
