//! The hooks: which program goes where, and the form in which it runs.

use std::fmt;

use pidns_ebpf::abi::names;

use super::layout::Layout;

/// A kernel hook that the program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The tracepoint.
    pub name: &'static str,
    /// The program in the object.
    pub program: &'static str,
    /// What is not seen without it.
    pub shows: &'static str,
    /// Whether the live stream makes no sense without it.
    pub indispensable: bool,
}

/// The name of the hook on system calls, which `--no-syscall-hooks` leaves out.
pub const SYSCALL_HOOK: &str = "sys_exit";

/// All hooks, for a kernel of this layout. Those that end something come first, so that nothing that is seen to
/// begin ends unseen while the rest is being attached.
pub fn all(layout: &Layout) -> [Hook; 6] {
    let exit =
        if layout.exit_has_group_dead { names::PROGRAM_EXIT_GROUP_DEAD } else { names::PROGRAM_EXIT_LIVE };
    let hook = |name, program, indispensable, shows| Hook { name, program, shows, indispensable };
    [
        hook(
            "sched_process_free",
            names::PROGRAM_FREE,
            false,
            "process.reap, a teardown's end that no SIGCHLD tells",
        ),
        hook(
            "signal_generate",
            names::PROGRAM_SIGNAL,
            false,
            "init.signal, namespace.teardown, who killed an init",
        ),
        hook("sched_process_exit", exit, true, "process.exit, namespace.init_exit"),
        hook("sched_process_exec", names::PROGRAM_EXEC, false, "process.exec"),
        hook(
            SYSCALL_HOOK,
            names::PROGRAM_SYSCALL,
            false,
            "refusals, and unshare and setns before the fork that follows",
        ),
        hook(
            "sched_process_fork",
            names::PROGRAM_FORK,
            true,
            "process.fork, namespace.create, namespace.init",
        ),
    ]
}

/// How a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A BTF-typed program on a tracepoint.
    TpBtf,
    /// Not at all.
    Off(String),
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TpBtf => f.write_str("tp_btf"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}
