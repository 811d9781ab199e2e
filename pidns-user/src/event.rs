//! The public event: what `-o json` prints and a recording holds. docs/events.md has the contract; this is its schema.
//!
//! An absent fact is an absent field. Field names are stable within [`VERSION`].

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    snapshot::{self, Holder},
    text::Name,
};

/// The version of the schema, `v` of every event.
pub const VERSION: u8 = 1;

/// A word of a vocabulary: ours, or one that was read.
pub type Word = Cow<'static, str>;

/// A process. Its identity is (`pid`, `start_boot_ns`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Thread group id in the initial PID namespace.
    pub pid: u32,
    /// Its PID at each level, from 0 to the innermost.
    pub pids: Vec<u32>,
    /// The kernel's short name for it, escaped.
    pub comm: Name,
    /// When it was started: CLOCK_BOOTTIME, nanoseconds.
    pub start_boot_ns: u64,
    /// Its real parent, in the initial namespace; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// Inode number of its innermost PID namespace.
    pub ns: u32,
}

/// A PID namespace. Its identity is (`inum`, `born_boot_ns`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Inode number, as in `pid:[4026532847]`.
    pub inum: u32,
    /// Depth; 0 is the initial namespace.
    pub level: u32,
    /// Inode number of its parent; absent for the initial one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Its creation, or where that was not observed its init's start: CLOCK_BOOTTIME, nanoseconds. Absent where
    /// neither is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub born_boot_ns: Option<u64>,
    /// The kernel's own 64-bit number for it (6.18 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_id: Option<u64>,
    /// Inode number of the user namespace that owns it.
    pub user_ns: u32,
    /// Who owns that one: a user id in the initial user namespace.
    pub owner_uid: u32,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Exit {
    /// By itself.
    Code {
        /// 0 to 255.
        code: u32,
    },
    /// By a signal.
    Signal {
        /// "SIGKILL".
        signal: String,
        /// Whether a core was dumped.
        #[serde(default, skip_serializing_if = "is_false")]
        core: bool,
    },
}

/// Why an init died, as far as a hook saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// It ended by itself.
    Exited,
    /// A process sent it a signal.
    Signal {
        /// "SIGKILL".
        signal: String,
        /// Who; absent where the kernel did (a timer, say).
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
    },
    /// An outer namespace's init died.
    Cascade {
        /// Inode number of that namespace.
        ns: u32,
    },
    /// reboot(2) inside the namespace.
    Reboot {
        /// "restart", "restart2", "halt" or "power_off"; in the tracepoint set "restart" or "halt" alone, which stand
        /// for the others too: the kernel keeps no difference.
        command: Word,
    },
    /// The kernel chose it when memory ran out.
    Oom {
        /// The process that was chosen.
        victim: Process,
    },
    /// It did something that the processor or the kernel forbids.
    Fault {
        /// "SIGSEGV".
        signal: String,
    },
    /// No hook saw it.
    Unknown,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// 1, 2, 3 … within a run.
    pub seq: u64,
    /// Wall clock.
    pub time: Timestamp,
    /// CLOCK_BOOTTIME at the hook, nanoseconds.
    pub boot_ns: u64,
    /// False where the hook in use cannot know the fact precisely.
    pub exact: bool,
    /// What happened.
    pub body: Body,
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            v: u8,
            event: &'static str,
            seq: u64,
            time: Nanoseconds,
            boot_ns: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            exact: Option<bool>,
            #[serde(flatten)]
            body: &'a Body,
        }
        let Self { seq, time, boot_ns, exact, body } = self;
        Line {
            v: VERSION,
            event: body.name(),
            seq: *seq,
            time: Nanoseconds(*time),
            boot_ns: *boot_ns,
            exact: (!exact).then_some(false),
            body,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    /// Fields that are not known are ignored: a later version may have more.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Line {
            v: u8,
            seq: u64,
            time: Timestamp,
            boot_ns: u64,
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
                "this is version {v} of the events, and only {VERSION} is known"
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

macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident = $name:literal { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* })*) => {
        /// What happened, with the fields of that event.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        pub enum Body { $($(#[$doc])* $variant { $($(#[$fdoc])* $field: $type,)* },)* }

        /// [`Body`] as it is read: the name tells which it is.
        #[derive(Deserialize)]
        #[serde(tag = "event")]
        enum Named { $(#[serde(rename = $name)] $variant { $($(#[$fdoc])* $field: $type,)* },)* }

        impl From<Named> for Body {
            fn from(named: Named) -> Self {
                match named { $(Named::$variant { $($field),* } => Self::$variant { $($field),* },)* }
            }
        }

        impl Body {
            /// The names of all events, in the order of the contract.
            pub const NAMES: &[&str] = &[$($name,)*];

            /// The event's name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => $name,)* }
            }
        }
    };
}

bodies! {
    /// The first event.
    StreamStart = "stream.start" {
        /// Of pidns-trace.
        version: Word,
        /// Host name; absent where /proc does not tell it.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Kernel release, likewise.
        #[serde(skip_serializing_if = "Option::is_none")]
        kernel: Option<String>,
        /// Wall clock at CLOCK_BOOTTIME 0.
        boot_time: String,
        /// Hook to form.
        hooks: BTreeMap<String, String>,
        /// What the stream is limited to.
        filter: Filter,
    }
    /// A PID namespace that exists already: in recordings, after `stream.start` and after a `stream.resync`.
    SnapshotNamespace = "snapshot.namespace" {
        /// The namespace.
        ns: snapshot::Namespace,
        /// What keeps it alive, besides its processes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holders: Vec<Holder>,
    }
    /// A process that exists already, likewise.
    SnapshotProcess = "snapshot.process" {
        /// The process.
        process: Process,
        /// State of its first thread, a letter as proc(5) has it; absent where it may not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<char>,
        /// Threads, zombie ones included, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// Since when it is a zombie, where that was seen: CLOCK_BOOTTIME, nanoseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        zombie_since_boot_ns: Option<u64>,
        /// Whether it entered its namespace from outside, as far as its parent shows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        joined: Option<bool>,
    }
    /// A PID namespace comes to exist.
    NamespaceCreate = "namespace.create" {
        /// The namespace.
        ns: Namespace,
        /// "clone", "clone3" or "unshare"; absent where a 32-bit call was used.
        #[serde(skip_serializing_if = "Option::is_none")]
        via: Option<Word>,
        /// Who made it.
        creator: Process,
    }
    /// It could not.
    NamespaceCreateFailed = "namespace.create_failed" {
        /// "clone", "clone3" or "unshare".
        via: Word,
        /// Who tried.
        creator: Process,
        /// "ENOSPC".
        errno: String,
        /// Why, as far as the kernel's state shows.
        reason: Word,
    }
    /// Its first process exists.
    NamespaceInit = "namespace.init" {
        /// The namespace.
        ns: Namespace,
        /// PID 1 in it.
        process: Process,
    }
    /// setns into it succeeded.
    NamespaceJoin = "namespace.join" {
        /// The namespace.
        ns: Namespace,
        /// Whose children will be members.
        process: Process,
        /// Inode number of the namespace that its children went to before; absent where that was not observed.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<u32>,
    }
    /// setns was refused.
    NamespaceJoinFailed = "namespace.join_failed" {
        /// The namespace; absent where the call named it through a pidfd.
        #[serde(skip_serializing_if = "Option::is_none")]
        ns: Option<Namespace>,
        /// Who tried.
        process: Process,
        /// "EINVAL".
        errno: String,
        /// Why, as far as the kernel's state shows.
        reason: Word,
    }
    /// Its PID 1 exits.
    NamespaceInitExit = "namespace.init_exit" {
        /// The namespace.
        ns: Namespace,
        /// PID 1.
        process: Process,
        /// How it ended.
        exit: Exit,
        /// Why.
        cause: Cause,
        /// PIDs in use in it and below, besides the init's: processes, their further threads, zombies.
        members: u32,
    }
    /// The kernel killed all members, and they are gone.
    NamespaceTeardown = "namespace.teardown" {
        /// The namespace.
        ns: Namespace,
        /// Processes that the kernel sent SIGKILL to.
        killed: u32,
        /// Inode numbers of the namespaces below that went down with it.
        nested: Vec<u32>,
        /// From the init's exit to the end.
        duration_ns: u64,
    }
    /// The last reference to it is gone: processes, files, mounts.
    NamespaceDestroy = "namespace.destroy" {
        /// The namespace.
        ns: Namespace,
        /// From its birth; absent where that is not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        lived_ns: Option<u64>,
    }
    /// A process exists.
    ProcessFork = "process.fork" {
        /// The new one.
        process: Process,
        /// Who forked it.
        parent: Process,
        /// Whether they are in different PID namespaces.
        #[serde(default, skip_serializing_if = "is_false")]
        crosses: bool,
        /// Whether its PIDs were chosen by clone3's set_tid.
        #[serde(default, skip_serializing_if = "is_false")]
        restored: bool,
    }
    /// It runs another program.
    ProcessExec = "process.exec" {
        /// The process, after the exec.
        process: Process,
        /// The file.
        filename: Name,
        /// The arguments, with `--args`.
        #[serde(skip_serializing_if = "Option::is_none")]
        args: Option<Vec<Name>>,
        /// Whether there are more than these.
        #[serde(default, skip_serializing_if = "is_false")]
        args_truncated: bool,
    }
    /// Its last thread ended.
    ProcessExit = "process.exit" {
        /// The process.
        process: Process,
        /// How.
        exit: Exit,
        /// How long it lived.
        ran_ns: u64,
        /// The most threads it ever had; absent where it was not observed from its start.
        #[serde(skip_serializing_if = "Option::is_none")]
        threads: Option<u32>,
        /// Inode number of the dying namespace that killed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        cascade: Option<u32>,
        /// Whether its parent is no longer the one it began with.
        #[serde(default, skip_serializing_if = "is_false")]
        orphaned: bool,
    }
    /// Its zombie is gone.
    ProcessReap = "process.reap" {
        /// The process, as it was at its exit, or where that was not seen at its reaping.
        process: Process,
        /// How long it was a zombie, where its exit was seen.
        #[serde(skip_serializing_if = "Option::is_none")]
        zombie_ns: Option<u64>,
    }
    /// A signal was sent to a namespace's PID 1.
    InitSignal = "init.signal" {
        /// The namespace.
        ns: Namespace,
        /// PID 1.
        process: Process,
        /// "SIGTERM".
        signal: String,
        /// Who; absent for the kernel.
        #[serde(skip_serializing_if = "Option::is_none")]
        sender: Option<Process>,
        /// "inside", "ancestor" or "kernel".
        from: Word,
        /// "delivered", "ignored", "already_pending", "queue_full" or "info_lost".
        fate: Word,
    }
    /// fork or clone was refused.
    ForkFailed = "fork.failed" {
        /// Who tried.
        process: Process,
        /// The namespace that the child would have been in.
        #[serde(skip_serializing_if = "Option::is_none")]
        ns: Option<Namespace>,
        /// "ENOMEM".
        errno: String,
        /// Why, as far as the kernel's state shows.
        reason: Word,
        /// Whether a thread was asked for.
        #[serde(default, skip_serializing_if = "is_false")]
        thread: bool,
    }
    /// Events were dropped since the last one of these.
    StreamLost = "stream.lost" {
        /// "ring": the ring buffer was full. "hook": the kernel left a program out.
        stage: Word,
        /// How many.
        count: u64,
    }
    /// After a loss all was looked at again. The `snapshot.*` events that follow say what exists; the rest is gone.
    StreamResync = "stream.resync" {
        /// Processes and namespaces that nobody had seen come.
        added: u64,
        /// Those that nobody had seen go.
        removed: u64,
        /// Those of which something else was thought.
        changed: u64,
    }
    /// The last event.
    StreamEnd = "stream.end" {
        /// Events printed, by name, this one left out.
        events: BTreeMap<Word, u64>,
        /// Events lost, by stage.
        lost: BTreeMap<Word, u64>,
        /// The kernel side's own counts, by record.
        kernel: BTreeMap<Word, KernelCount>,
        /// Threads created and ended, which are counted and not streamed.
        threads: ThreadCount,
        /// Ends that no hook told, but a look at what is left, by event.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        swept: BTreeMap<Word, u64>,
        /// What the kernel side had no room to follow, by what is missing for it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        untracked: BTreeMap<Word, u64>,
        /// How long the stream ran.
        duration_ns: u64,
    }
}

/// What the kernel side sent of one kind, and what the ring buffer had no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    /// Sent.
    pub submitted: u64,
    /// Lost.
    pub lost: u64,
}

/// Threads, which are no processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadCount {
    /// Created.
    pub created: u64,
    /// Ended.
    pub ended: u64,
}

/// What a stream is limited to, as given on the command line; absent: not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Names of the events.
    pub events: Vec<Word>,
    /// Inode numbers of the namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<u32>,
    /// PIDs in the initial namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
    /// Patterns of comm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comms: Vec<String>,
    /// Levels, as given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(line: &str) -> String {
        serde_json::to_string(&serde_json::from_str::<Event>(line).expect(line))
            .expect("an event can be written")
    }

    #[test]
    fn an_event_that_is_read_is_the_one_that_was_written() {
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
    fn what_a_later_version_adds_is_ignored_and_what_it_changes_is_refused() {
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
