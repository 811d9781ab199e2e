//! Arguments as people write them, brought into the order that their definition has.

use std::ffi::OsString;

use super::values::parse_duration;

/// Options that more than one command has, which may stand before the command too; and whether a value follows them.
const SHARED: [(&str, &str, bool); 7] = [
    ("-q", "--quiet", false),
    ("-o", "--output", true),
    ("", "--color", true),
    ("", "--wide", false),
    ("", "--no-headers", false),
    ("", "--from", true),
    ("", "--at", true),
];

/// How many arguments such an option takes up, its value included; `None` where it is another one.
fn shared(argument: &str) -> Option<usize> {
    SHARED.iter().find_map(|&(short, long, has_value)| {
        let is_joined = has_value
            && (argument.strip_prefix(long).is_some_and(|rest| rest.starts_with('='))
                || (!short.is_empty() && argument.len() > short.len() && argument.starts_with(short)));
        match argument {
            _ if is_joined => Some(1),
            "" => None,
            _ if argument == short || argument == long => Some(1 + usize::from(has_value)),
            _ => None,
        }
    })
}

/// Puts the shared options that stand before the command behind it, and joins `--watch 1s` to `--watch=1s`: its time is optional,
/// and a TARGET may follow it.
pub(super) fn in_order(arguments: Vec<OsString>, is_command: impl Fn(&str) -> bool) -> Vec<OsString> {
    let text = |at: usize| arguments.get(at).and_then(|argument| argument.to_str());
    let mut at = 1;
    while let Some(taken) = text(at).and_then(shared) {
        at += taken;
    }
    let Some(command) = text(at).filter(|&text| is_command(text)) else { return arguments };
    let has_optional_time = matches!(command, "tree" | "ps");
    let mut ordered: Vec<OsString> = arguments[..1].to_vec();
    ordered.push(arguments[at].clone());
    ordered.extend_from_slice(&arguments[1..at]);
    let mut rest = arguments[at + 1..].iter().peekable();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            ordered.push(argument.clone());
            ordered.extend(rest.cloned());
            break;
        }
        let is_time = |next: &&OsString| next.to_str().is_some_and(|next| parse_duration(next).is_ok());
        match (has_optional_time && argument == "--watch").then(|| rest.next_if(is_time)).flatten() {
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
    fn shared_options_may_stand_before_the_command() {
        assert_eq!(ordered("p -q -o json ps web"), "p ps -q -o json web");
        assert_eq!(ordered("p --from f --at +2s tree"), "p tree --from f --at +2s");
        assert_eq!(ordered("p -ojson --color=never --wide ps"), "p ps -ojson --color=never --wide");
        assert_eq!(ordered("p --output=json --no-headers ps -q"), "p ps --output=json --no-headers -q");
        for as_it_is in ["p -e fork ps", "p -q", "p ps -q", "p -o json", "p -o ps", "p --from ps", "p"] {
            assert_eq!(ordered(as_it_is), as_it_is);
        }
    }

    #[test]
    fn a_time_may_follow_watch() {
        assert_eq!(ordered("p ps --watch 1s"), "p ps --watch=1s");
        assert_eq!(ordered("p tree --watch 500ms web"), "p tree --watch=500ms web");
        assert_eq!(ordered("p -q ps --watch 1s web"), "p ps -q --watch=1s web");
        for as_it_is in [
            "p ps --watch web",
            "p ps --watch=1s",
            "p ps --watch",
            "p findings --watch 1s",
            "p ps -- --watch 1s",
        ] {
            assert_eq!(ordered(as_it_is), as_it_is);
        }
    }
}
