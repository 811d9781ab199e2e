//! Reorders the user's arguments into the order that the definition expects.

use std::ffi::OsString;

use super::values::parse_duration;

/// The value of an option that may also precede the command.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    Needed,
    /// `--watch 1s`: a TARGET may follow `--watch` too.
    OptionalTime,
}

/// Options of several commands that may also precede the command.
const SHARED: [(&str, &str, Value); 9] = [
    ("-q", "--quiet", Value::None),
    ("-o", "--output", Value::Needed),
    ("", "--color", Value::Needed),
    ("", "--wide", Value::None),
    ("", "--no-headers", Value::None),
    ("", "--fields", Value::Needed),
    ("", "--watch", Value::OptionalTime),
    ("", "--from", Value::Needed),
    ("", "--at", Value::Needed),
];

/// The long name of a shared option that this argument is, with or without its value.
pub(super) fn shared_option(argument: &str) -> Option<&'static str> {
    parse(argument).map(|(long, _)| long)
}

/// The long name of the shared option that this argument is, and which value follows as another argument.
fn parse(argument: &str) -> Option<(&'static str, Value)> {
    SHARED.iter().find_map(|&(short, long, value)| {
        let is_joined = value != Value::None
            && (argument.strip_prefix(long).is_some_and(|rest| rest.starts_with('='))
                || (!short.is_empty() && argument.len() > short.len() && argument.starts_with(short)));
        match argument {
            _ if is_joined => Some((long, Value::None)),
            "" => None,
            _ if argument == short || argument == long => Some((long, value)),
            _ => None,
        }
    })
}

/// Whether the argument after `--watch` is its time and not a TARGET. A small number lacks its unit, which is an error.
fn is_time(text: &str) -> bool {
    /// As a PID, a larger number is more likely.
    const MAX_SECONDS: f64 = 3600.0;
    parse_duration(text).is_ok() || text.parse::<f64>().is_ok_and(|seconds| seconds <= MAX_SECONDS)
}

/// Moves shared options from before the command to after it, and joins `--watch 1s` to `--watch=1s`: its time is
/// optional, so a TARGET may follow `--watch`.
pub(super) fn in_order(arguments: Vec<OsString>, is_command: impl Fn(&str) -> bool) -> Vec<OsString> {
    let text = |at: usize| arguments.get(at).and_then(|argument| argument.to_str());
    let mut at = 1;
    while let Some((_, value)) = text(at).and_then(parse) {
        at += match value {
            Value::Needed => 2,
            Value::OptionalTime if text(at + 1).is_some_and(is_time) => 2,
            Value::OptionalTime | Value::None => 1,
        };
    }
    let Some(command) = text(at).filter(|&text| is_command(text)) else { return arguments };
    let has_watch = matches!(command, "tree" | "ps" | "findings");
    let mut ordered: Vec<OsString> = arguments[..1].to_vec();
    ordered.push(arguments[at].clone());
    let mut rest = arguments[1..at].iter().chain(&arguments[at + 1..]).peekable();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            ordered.push(argument.clone());
            ordered.extend(rest.cloned());
            break;
        }
        let is_time = |next: &&OsString| next.to_str().is_some_and(is_time);
        match (has_watch && argument == "--watch").then(|| rest.next_if(is_time)).flatten() {
            Some(time) => {
                let mut joined = OsString::from("--watch=");
                joined.push(time);
                ordered.push(joined);
            }
            None => ordered.push(argument.clone()),
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        let ordered = in_order(arguments, |word| ["ps", "tree", "findings", "trace"].contains(&word));
        ordered.iter().map(|argument| argument.to_str().expect("UTF-8")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn shared_options_before_the_command_are_moved_after_it() {
        assert_eq!(ordered("p -q -o json ps web"), "p ps -q -o json web");
        assert_eq!(ordered("p --from f --at +2s tree"), "p tree --from f --at +2s");
        assert_eq!(ordered("p -ojson --color=never --wide ps"), "p ps -ojson --color=never --wide");
        assert_eq!(ordered("p --output=json --no-headers ps -q"), "p ps --output=json --no-headers -q");
        assert_eq!(ordered("p --fields pid ps"), "p ps --fields pid");
        assert_eq!(ordered("p --watch 1s --fields=ns tree"), "p tree --watch=1s --fields=ns");
        assert_eq!(ordered("p --watch ps web"), "p ps --watch web");
        for as_it_is in ["p -e fork ps", "p -q", "p ps -q", "p -o json", "p -o ps", "p --from ps", "p"] {
            assert_eq!(ordered(as_it_is), as_it_is);
        }
    }

    #[test]
    fn time_after_watch_is_joined() {
        assert_eq!(ordered("p ps --watch 1s"), "p ps --watch=1s");
        assert_eq!(ordered("p tree --watch 500ms web"), "p tree --watch=500ms web");
        assert_eq!(ordered("p -q ps --watch 1s web"), "p ps -q --watch=1s web");
        assert_eq!(ordered("p findings --watch 1s"), "p findings --watch=1s");
        for number in ["1", "0.5", "60"] {
            assert_eq!(
                ordered(&format!("p ps --watch {number}")),
                format!("p ps --watch={number}"),
                "it lacks its unit"
            );
        }
        for as_it_is in [
            "p ps --watch web",
            "p ps --watch=1s",
            "p ps --watch",
            "p ps --watch 4026532178",
            "p ps --watch 48121",
            "p trace --watch 1s",
            "p ps -- --watch 1s",
        ] {
            assert_eq!(ordered(as_it_is), as_it_is);
        }
    }
}
