//! Maps kernel records to events, and wanted events to the records that they need.

use pidns_ebpf::abi::{self, Kind};

use crate::event;

// The kernel side has the same limits, under these names.
const _: () = assert!(event::MAX_LEVEL == abi::MAX_LEVEL && event::COMM_LEN == abi::COMM_LEN);

/// The event that a record becomes (the record of namespace.init may also report a creation).
pub fn event_of(kind: Kind) -> &'static str {
    match kind {
        Kind::NamespaceCreate => "namespace.create",
        Kind::NamespaceCreateFailed => "namespace.create_failed",
        Kind::NamespaceInit => "namespace.init",
        Kind::NamespaceJoin => "namespace.join",
        Kind::NamespaceJoinFailed => "namespace.join_failed",
        Kind::NamespaceInitExit => "namespace.init_exit",
        Kind::NamespaceTeardown => "namespace.teardown",
        Kind::NamespaceDestroy => "namespace.destroy",
        Kind::InitSignal => "init.signal",
        Kind::ForkFailed => "fork.failed",
        Kind::ProcessFork => "process.fork",
        Kind::ProcessExec => "process.exec",
        Kind::ProcessExit => "process.exit",
        Kind::ProcessReap => "process.reap",
        // This is a part of process.exit, not an event.
        Kind::ProcessSignal => "process.exit.cause",
    }
}

/// The records that these events need, as a bit mask by record kind. Records that identify namespaces and explain their
/// ends are always needed.
pub fn event_mask(is_wanted: impl Fn(&str) -> bool) -> u32 {
    let is_needed = |kind: &&Kind| match event_of(**kind) {
        "init.signal" => is_wanted("init.signal") || is_wanted("namespace.init_exit"),
        name if name.starts_with("namespace.") => true,
        // The fork record shows the first parent of an orphan.
        "process.fork" => is_wanted("process.fork") || is_wanted("process.exit"),
        "process.exit.cause" => is_wanted("process.exit"),
        name => is_wanted(name),
    };
    Kind::ALL.iter().filter(is_needed).fold(0, |mask, kind| mask | 1 << *kind as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(mask: u32, kind: Kind) -> bool {
        mask & (1 << kind as u32) != 0
    }

    #[test]
    fn identity_and_causes_need_records_that_were_not_requested() {
        let mask = event_mask(|name| name == "namespace.init_exit");
        assert!(has(mask, Kind::InitSignal) && has(mask, Kind::NamespaceCreate));
        assert!(!has(mask, Kind::ProcessFork));
        let exits = event_mask(|name| name == "process.exit");
        assert!(has(exits, Kind::ProcessFork), "the fork shows the first parent of an orphan");
        assert!(has(exits, Kind::ProcessSignal) && !has(mask, Kind::ProcessSignal));
    }
}
