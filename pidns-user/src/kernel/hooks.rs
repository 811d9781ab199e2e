//! The hooks: their programs, the prototypes that the programs rely on, and the form in which they run.

use std::fmt;

use pidns_ebpf::abi::{DoubleHook, names};

use super::{
    btf::{Btf, BtfError, Prototype, Value},
    layout::Layout,
};

/// A kernel hook that the tracer uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The tracepoint or function.
    pub name: &'static str,
    /// The programs of the object, and how each is attached.
    pub programs: &'static [(At, &'static str)],
    /// Facts that are not reported without it.
    pub shows: &'static str,
    /// Its importance.
    pub need: Need,
    /// The prototype that the programs rely on.
    pub prototype: Prototype<'static>,
}

/// Kind of attach point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A tracepoint, BTF-typed.
    TpBtf,
    /// The entry of a function.
    Fentry,
    /// The return of a function.
    Fexit,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TpBtf => "tp_btf",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
        })
    }
}

/// Importance of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The live stream makes no sense without it.
    Indispensable,
    /// Some facts are not reported without it.
    Useful,
    /// It reports more than tracepoints, or more exactly.
    Function,
    /// The same, and only together with the others of its group.
    Grouped(Group),
    /// Replaces these groups if one of them does not run: it reports less exactly, or at a higher cost.
    Fallback(&'static [Group]),
}

/// Function hooks that are attached together or not at all. For a call, one hook sees the return and the others the
/// reason. For ends, the fallback is needed unless all of them are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Reaped processes, and finished teardowns.
    Ends,
    /// unshare and the clone family.
    Creation,
    /// setns.
    Setns,
}

impl Hook {
    /// Describes what is lost without it.
    pub fn loss(&self) -> String {
        // Tracepoints report much of it too.
        let how = if self.is_function() { "not seen, or less exactly," } else { "not seen" };
        format!("{how} without it: {}", self.shows)
    }

    /// Whether SIGCHLD or the sweep later reports the facts that its programs miss.
    pub fn is_backed_up(&self) -> bool {
        self.need == Need::Grouped(Group::Ends) || self.need == Need::Fallback(&[Group::Ends])
    }

    /// Whether it runs at every reap.
    pub fn is_about_reapings(&self) -> bool {
        ["release_task", "sched_process_free"].contains(&self.name)
    }

    /// Whether its programs run at every fork and report only refused ones. If the kernel skips such a program, usually
    /// nothing is lost. We cannot know whether something is.
    pub fn is_only_source_of_refusals(&self) -> bool {
        ["kernel_clone", "alloc_pid"].contains(&self.name)
    }

    /// Its programs. If a tracepoint has two programs, only the first, with its [`DoubleHook`]: the second replaces the
    /// skipped runs of the first.
    pub fn programs_to_count(&self) -> impl Iterator<Item = (&'static str, Option<DoubleHook>)> + use<> {
        let programs = self.programs;
        let double_hook = programs.iter().find_map(|(_, program)| match *program {
            names::PROGRAM_FORK_AGAIN => Some(DoubleHook::Fork),
            names::PROGRAM_EXEC_AGAIN => Some(DoubleHook::Exec),
            names::PROGRAM_EXIT_AGAIN => Some(DoubleHook::Exit),
            _ => None,
        });
        let most = if double_hook.is_some() { 1 } else { programs.len() };
        programs.iter().take(most).map(move |(_, program)| (*program, double_hook))
    }

    /// Whether it belongs to the function set.
    pub fn is_function(&self) -> bool {
        matches!(self.need, Need::Function | Need::Grouped(_))
    }

    /// Whether the live stream must not start without it, if this set is requested.
    pub fn is_indispensable(&self, set: HookSet) -> bool {
        self.need == Need::Indispensable || (set == HookSet::Function && self.is_function())
    }

    /// Whether it is a fallback whose groups are all complete, so that it is not needed.
    pub fn is_unneeded(&self, incomplete: &[(Group, &'static str)]) -> bool {
        let Need::Fallback(groups) = self.need else { return false };
        !incomplete.iter().any(|(group, _)| groups.contains(group))
    }

    /// The reason why it is omitted if this set is requested; `None` if it is not.
    pub fn left_out(
        &self,
        set: HookSet,
        without_syscall_hooks: Option<&'static str>,
    ) -> Option<&'static str> {
        if self.is_function() && set == HookSet::Tracepoint {
            return Some("--hooks tracepoint");
        }
        without_syscall_hooks.filter(|_| self.name == SYSCALL_HOOK)
    }

    /// Returns the number of its attach point in BTF, if the prototype is the expected one.
    pub fn find(&self, points: &AttachPoints<'_>) -> Result<u32, Drift> {
        let (id, found) = points.get(self).map_err(|error| match error {
            BtfError::NoType(_) => Drift::Missing,
            error => Drift::Unreadable(error),
        })?;
        // A tracepoint may have more arguments than the programs read. A function may not: its result comes right after
        // its arguments.
        let fits = if self.is_function() {
            found == self.prototype
        } else {
            found.arguments.starts_with(&self.prototype.arguments)
        };
        if fits {
            Ok(id)
        } else {
            Err(Drift::Prototype { expected: self.prototype.to_string(), found: found.to_string() })
        }
    }
}

/// Why a hook's attach point is not what the programs rely on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Drift {
    /// This kernel does not have it, or has no BTF for it.
    #[error("this kernel has no such function or tracepoint")]
    Missing,
    /// It has another prototype.
    #[error("its prototype is {found} in this kernel, the program expects {expected}")]
    Prototype {
        /// The prototype that the programs rely on.
        expected: String,
        /// The prototype in BTF.
        found: String,
    },
    /// BTF is damaged at this point.
    #[error(transparent)]
    Unreadable(BtfError),
}

/// Facts in BTF about the attach points of all hooks.
#[derive(Debug)]
pub struct AttachPoints<'a> {
    btf: &'a Btf<'a>,
    functions: std::collections::HashMap<&'static str, (u32, Prototype<'a>)>,
}

impl<'a> AttachPoints<'a> {
    /// Finds the attach points of `hooks`.
    pub fn of(btf: &'a Btf<'a>, hooks: &[Hook]) -> Result<Self, BtfError> {
        let functions: Vec<&'static str> =
            hooks.iter().filter(|hook| hook.is_function()).map(|hook| hook.name).collect();
        Ok(Self { btf, functions: btf.functions(&functions)? })
    }

    /// Returns the number of a hook's attach point and its prototype.
    pub fn get(&self, hook: &Hook) -> Result<(u32, Prototype<'a>), BtfError> {
        if hook.is_function() {
            self.functions.get(hook.name).cloned().ok_or_else(|| BtfError::NoType(hook.name.to_owned()))
        } else {
            self.btf.tracepoint(hook.name)
        }
    }
}

/// Returns the incomplete groups, each with a hook that is off.
pub fn incomplete(forms: &[(Hook, HookForm)]) -> Vec<(Group, &'static str)> {
    let lacks = |group: &Group| {
        let mut members = forms.iter().filter(|(hook, _)| hook.need == Need::Grouped(*group));
        let (missing, _) = members.find(|(_, form)| matches!(form, HookForm::Off(_)))?;
        Some((*group, missing.name))
    };
    [Group::Ends, Group::Creation, Group::Setns].iter().filter_map(lacks).collect()
}

/// The reason why a hook is off if another hook of its group is off.
pub fn only_together_with(missing: &str) -> String {
    format!("hooked only together with {missing}")
}

/// All hooks for a kernel with this layout, in the order of attaching. Hooks that report ends come first, so that an
/// object whose beginning we report cannot end unreported while other hooks are still being attached. Fallbacks come
/// after their groups. Hooks that report beginnings come last.
pub fn all(layout: &Layout) -> Vec<Hook> {
    const TASK: Value<'static> = Value::Pointer("task_struct");
    const NS: Value<'static> = Value::Pointer("pid_namespace");
    const NUMBER: Value<'static> = Value::Number;
    let exit: &[_] = match (layout.exit_has_group_dead, layout.has_second_programs()) {
        (true, true) => {
            &[(At::TpBtf, names::PROGRAM_EXIT_GROUP_DEAD), (At::TpBtf, names::PROGRAM_EXIT_AGAIN)]
        }
        (true, false) => &[(At::TpBtf, names::PROGRAM_EXIT_GROUP_DEAD)],
        (false, _) => &[(At::TpBtf, names::PROGRAM_EXIT_LIVE)],
    };
    // If the kernel can skip a program, a second one follows each of the busy ones.
    let twice = |both: &'static [(At, &'static str)]| {
        if layout.has_second_programs() { both } else { &both[..1] }
    };
    let hook = |name, programs, need, arguments: &[_], returns, shows| Hook {
        name,
        programs,
        shows,
        need,
        prototype: Prototype { arguments: arguments.to_vec(), returns },
    };
    let tracepoint = |name, programs, need, arguments: &[_], shows| {
        hook(name, programs, need, arguments, Value::Nothing, shows)
    };
    vec![
        hook(
            "release_task",
            &[(At::Fentry, names::PROGRAM_RELEASE)],
            Need::Grouped(Group::Ends),
            &[TASK],
            Value::Nothing,
            "the exact time at which a zombie was reaped",
        ),
        hook(
            "zap_pid_ns_processes",
            &[(At::Fentry, names::PROGRAM_ZAP_BEGIN), (At::Fexit, names::PROGRAM_ZAP_END)],
            Need::Grouped(Group::Ends),
            &[NS],
            Value::Nothing,
            "the exact start and end of a teardown, with or without a SIGCHLD",
        ),
        tracepoint(
            "sched_process_free",
            &[(At::TpBtf, names::PROGRAM_FREE)],
            Need::Fallback(&[Group::Ends]),
            &[TASK],
            "process.reap, a teardown's end without a SIGCHLD",
        ),
        hook(
            "proc_free_inum",
            &[(At::Fentry, names::PROGRAM_FREE_INUM)],
            Need::Function,
            &[NUMBER],
            Value::Nothing,
            "namespace.destroy",
        ),
        tracepoint(
            "signal_generate",
            &[(At::TpBtf, names::PROGRAM_SIGNAL)],
            Need::Useful,
            &[NUMBER, Value::Pointer("kernel_siginfo"), TASK, NUMBER, NUMBER],
            "init.signal, namespace.teardown, the process that killed an init",
        ),
        tracepoint(
            "sched_process_exit",
            exit,
            Need::Indispensable,
            &[TASK],
            "process.exit, namespace.init_exit",
        ),
        tracepoint(
            "mark_victim",
            &[(At::TpBtf, names::PROGRAM_VICTIM)],
            Need::Useful,
            &[TASK],
            "that an init was killed because memory ran out",
        ),
        hook(
            "reboot_pid_ns",
            &[(At::Fentry, names::PROGRAM_REBOOT)],
            Need::Function,
            &[NS, NUMBER],
            NUMBER,
            "the command of a reboot(2) inside",
        ),
        tracepoint(
            "sched_process_exec",
            twice(&[(At::TpBtf, names::PROGRAM_EXEC), (At::TpBtf, names::PROGRAM_EXEC_AGAIN)]),
            Need::Useful,
            &[TASK, NUMBER, Value::Pointer("linux_binprm")],
            "process.exec",
        ),
        hook(
            "copy_pid_ns",
            &[(At::Fexit, names::PROGRAM_COPY_PID_NS)],
            Need::Grouped(Group::Creation),
            &[NUMBER, Value::Pointer("user_namespace"), NS],
            NS,
            "which of several namespaces was refused",
        ),
        hook(
            "alloc_pid",
            &[(At::Fexit, names::PROGRAM_ALLOC_PID)],
            Need::Grouped(Group::Creation),
            &[NS, Value::Pointer(""), NUMBER],
            Value::Pointer("pid"),
            "a fork that pid_max refused, and chosen PIDs as the kernel read them",
        ),
        hook(
            "kernel_clone",
            &[(At::Fexit, names::PROGRAM_KERNEL_CLONE)],
            Need::Grouped(Group::Creation),
            &[Value::Pointer("kernel_clone_args")],
            NUMBER,
            "refused forks, of 32-bit programs too",
        ),
        hook(
            "ksys_unshare",
            &[(At::Fexit, names::PROGRAM_KSYS_UNSHARE)],
            Need::Grouped(Group::Creation),
            &[NUMBER],
            NUMBER,
            "unshare before the fork that follows, of 32-bit programs too",
        ),
        hook(
            "pidns_install",
            &[(At::Fexit, names::PROGRAM_PIDNS_INSTALL)],
            Need::Grouped(Group::Setns),
            &[Value::Pointer("nsset"), Value::Pointer("ns_common")],
            NUMBER,
            "which of several namespaces was refused, and one named through a pidfd",
        ),
        hook(
            "__x64_sys_setns",
            &[(At::Fexit, names::PROGRAM_SETNS)],
            Need::Grouped(Group::Setns),
            &[Value::Pointer("pt_regs")],
            NUMBER,
            "setns before the fork that follows, and refused ones",
        ),
        tracepoint(
            SYSCALL_HOOK,
            &[(At::TpBtf, names::PROGRAM_SYSCALL)],
            Need::Fallback(&[Group::Creation, Group::Setns]),
            &[Value::Pointer("pt_regs"), NUMBER],
            "refusals, and unshare and setns before the fork that follows",
        ),
        tracepoint(
            "sched_process_fork",
            twice(&[(At::TpBtf, names::PROGRAM_FORK), (At::TpBtf, names::PROGRAM_FORK_AGAIN)]),
            Need::Indispensable,
            &[TASK, TASK],
            "process.fork, namespace.create, namespace.init",
        ),
    ]
}

/// Name of the hook on system calls. `--no-syscall-hooks` leaves it out.
pub const SYSCALL_HOOK: &str = "sys_exit";

/// The set of hooks to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookSet {
    /// For each hook what this kernel accepts: functions first, tracepoints for the rest.
    #[default]
    Auto,
    /// Functions for everything that they can report. Exits with code 4 if this kernel refuses one.
    Function,
    /// Only tracepoints.
    Tracepoint,
}

/// The form in which a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookForm {
    /// Runs as these programs.
    On(&'static [(At, &'static str)]),
    /// Does not run: other hooks report the same.
    Unneeded,
    /// Does not run, for this reason.
    Off(String),
}

impl fmt::Display for HookForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On(programs) => {
                for (index, (at, _)) in programs.iter().enumerate() {
                    if !programs[..index].iter().any(|(earlier, _)| earlier == at) {
                        write!(f, "{}{at}", if index > 0 { "+" } else { "" })?;
                    }
                }
                Ok(())
            }
            Self::Unneeded => f.write_str("off: not needed with the function hooks"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}
