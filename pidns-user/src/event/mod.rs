//! The public event: `-o json` prints it, a recording contains it, docs/events.md describes it.
//!
//! An absent fact is an absent field. Field names are stable within [`VERSION`].

mod body;
mod bounds;
pub mod container;
pub mod finding;
pub mod identity;
pub(crate) mod objects;
pub mod snapshot;
#[cfg(test)]
mod testing;

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    body::Body,
    bounds::MAX_LEVEL,
    objects::{
        COMM_LEN, Cause, Exit, INITIAL_NS, KernelCount, ModelCount, Namespace, Process, ReachedLimit,
        StreamFilter, TakenPid, ThreadCount,
    },
};
use self::{body::Named, identity::BootNs};

/// Version of the schema: `v` of every event.
pub const VERSION: u8 = 1;

/// A word of a fixed vocabulary: one of ours, or one read from JSON.
pub type Token = Cow<'static, str>;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// 1, 2, 3 … within a run.
    pub seq: u64,
    /// Wall clock.
    pub time: Timestamp,
    /// When the hook ran.
    pub boot_ns: BootNs,
    /// False if the hook in use cannot know the fact precisely.
    pub exact: bool,
    /// The kind of the event, with its fields.
    pub body: Body,
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Numbered { seq: self.seq, event: self }.serialize(serializer)
    }
}

/// An event with another number: its position among the printed events.
#[derive(Clone, Copy, Debug)]
pub struct Numbered<'a> {
    /// The number.
    pub seq: u64,
    /// The event.
    pub event: &'a Event,
}

impl Serialize for Numbered<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            v: u8,
            event: &'static str,
            seq: u64,
            time: Nanoseconds,
            boot_ns: BootNs,
            #[serde(skip_serializing_if = "Option::is_none")]
            exact: Option<bool>,
            #[serde(flatten)]
            body: &'a Body,
        }
        let Self { seq, event: Event { seq: _, time, boot_ns, exact, body } } = *self;
        Line {
            v: VERSION,
            event: body.name(),
            seq,
            time: Nanoseconds(*time),
            boot_ns: *boot_ns,
            exact: (!exact).then_some(false),
            body,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    /// Ignores unknown fields: a later version may add some.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Line {
            v: u8,
            seq: u64,
            time: Timestamp,
            boot_ns: BootNs,
            #[serde(default = "yes")]
            exact: bool,
            #[serde(flatten)]
            body: Named,
        }
        fn yes() -> bool {
            true
        }
        let Line { v, seq, time, boot_ns, exact, body } = Line::deserialize(deserializer)?;
        if v != VERSION {
            return Err(serde::de::Error::custom(format!(
                "version {v} of the events: this program only reads version {VERSION}"
            )));
        }
        Ok(Self { seq, time, boot_ns, exact, body: body.into() })
    }
}

/// RFC 3339 in UTC, always with nine digits.
pub struct Nanoseconds(pub Timestamp);

impl Serialize for Nanoseconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:.9}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(line: &str) -> String {
        serde_json::to_string(&serde_json::from_str::<Event>(line).expect(line))
            .expect("an event can be written")
    }

    #[test]
    fn event_survives_a_round_trip_through_json() {
        let frame = r#""seq":3,"time":"2023-11-14T22:13:20.000000005Z","boot_ns":42"#;
        let process =
            r#"{"pid":20,"pids":[20,2],"comm":"s\\\\h\\x9b","start_boot_ns":7,"ppid":1,"uid":0,"ns":9}"#;
        let ns =
            r#"{"inum":9,"level":1,"parent":8,"born_boot_ns":6,"kernel_id":5,"user_ns":4,"owner_uid":0}"#;
        for (event, body) in [
            ("stream.lost", r#""stage":"ring","count":18446744073709551615"#.to_owned()),
            ("namespace.create", format!(r#""ns":{ns},"creator":{process}"#)),
            ("namespace.create", format!(r#""ns":{ns},"via":"clone3","creator":{process}"#)),
            (
                "namespace.init_exit",
                format!(
                    r#""ns":{ns},"process":{process},"exit":{{"signal":"SIGKILL"}},"cause":{{"kind":"signal","signal":"SIGKILL","sender":{process}}},"members":3"#
                ),
            ),
            (
                "namespace.init_exit",
                format!(
                    r#""ns":{ns},"process":{process},"exit":{{"code":0}},"cause":{{"kind":"cascade","ns":8}},"members":0"#
                ),
            ),
            (
                "process.exit",
                format!(
                    r#""process":{process},"exit":{{"signal":"SIGSEGV","core":true}},"ran_ns":1,"orphaned":true"#
                ),
            ),
            ("process.reap", format!(r#""process":{process}"#)),
        ] {
            for exact in ["", r#","exact":false"#] {
                let line = format!(r#"{{"v":1,"event":"{event}",{frame}{exact},{body}}}"#);
                assert_eq!(back(&line), line);
            }
        }
    }

    #[test]
    fn new_fields_are_ignored_and_other_versions_refused() {
        let line = |v, event: &str, more: &str| {
            format!(
                r#"{{"v":{v},"event":"{event}","seq":1,"time":"1970-01-01T00:00:00Z","boot_ns":0,"stage":"ring","count":1{more}}}"#
            )
        };
        let read = |line: &str| serde_json::from_str::<Event>(line).map_err(|error| error.to_string());
        assert!(read(&line(1, "stream.lost", r#","new":{"a":[1]}"#)).is_ok());
        assert!(read(&line(2, "stream.lost", "")).unwrap_err().contains("version 2"));
        assert!(read(&line(1, "stream.found", "")).unwrap_err().contains("stream.found"));
        assert!(read("{}").is_err());
    }
}
