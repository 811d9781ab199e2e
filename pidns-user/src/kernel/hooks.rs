//! The hooks: their programs, the prototypes that these rely on, and the form in which they run.

use std::fmt;

use pidns_ebpf::abi::{Moment, names};

use super::{
    btf::{Btf, BtfError, Prototype, Value},
    layout::Layout,
};

/// A kernel hook that the tracer uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The tracepoint or function.
    pub name: &'static str,
    /// How it is hooked, and with which program of the object.
    pub programs: &'static [(At, &'static str)],
    /// Facts that are not reported without it.
    pub shows: &'static str,
    /// Its importance.
    pub need: Need,
    /// The prototype that the programs rely on.
    pub prototype: Prototype<'static>,
}

/// Where a program is attached.
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
    /// Of setns.
    Setns,
}

impl Hook {
    /// What is lost without it, as text.
    pub fn loss(&self) -> String {
        // Tracepoints report much of it too.
        let how = if self.is_function() { "not seen, or less exactly," } else { "not seen" };
        format!("{how} without it: {}", self.shows)
    }

    /// Whether something else reports, later, what its programs do not see: SIGCHLD, or the sweep.
    pub fn is_backed_up(&self) -> bool {
        self.need == Need::Grouped(Group::Ends) || self.need == Need::Fallback(&[Group::Ends])
    }

    /// Whether it runs whenever a process is reaped.
    pub fn is_about_reapings(&self) -> bool {
        ["release_task", "sched_process_free"].contains(&self.name)
    }

    /// Whether its programs run at every fork and report refused ones alone: most runs that are left
    /// out lose nothing, and which do is unknown.
    pub fn is_only_source_of_refusals(&self) -> bool {
        ["kernel_clone", "alloc_pid"].contains(&self.name)
    }

    /// The first of its programs, and the moment that the second makes up for, if there is one.
    pub fn chances(&self) -> impl Iterator<Item = (&'static str, Option<Moment>)> + use<> {
        let programs = self.programs;
        let moment = programs.iter().find_map(|(_, program)| match *program {
            names::PROGRAM_FORK_AGAIN => Some(Moment::Fork),
            names::PROGRAM_EXEC_AGAIN => Some(Moment::Exec),
            names::PROGRAM_EXIT_AGAIN => Some(Moment::Exit),
            _ => None,
        });
        let most = if moment.is_some() { 1 } else { programs.len() };
        programs.iter().take(most).map(move |(_, program)| (*program, moment))
    }

    /// Whether it is one of the function set.
    pub fn is_function(&self) -> bool {
        matches!(self.need, Need::Function | Need::Grouped(_))
    }

    /// Whether the live stream is not to run without it, where these hooks are asked for.
    pub fn is_indispensable(&self, set: HookSet) -> bool {
        self.need == Need::Indispensable || (set == HookSet::Function && self.is_function())
    }

    /// Whether it is a fallback, and the groups whose place it would take are complete.
    pub fn is_spared(&self, incomplete: &[(Group, &'static str)]) -> bool {
        let Need::Fallback(groups) = self.need else { return false };
        !incomplete.iter().any(|(group, _)| groups.contains(group))
    }

    /// Why it is left out, where these hooks are asked for.
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

    /// The number of its attach point in BTF, if that is what the programs rely on.
    pub fn find(&self, points: &AttachPoints<'_>) -> Result<u32, Drift> {
        let (id, found) = points.get(self).map_err(|error| match error {
            BtfError::NoType(_) => Drift::Missing,
            error => Drift::Unreadable(error),
        })?;
        // A tracepoint may have more arguments than are read; the result of a function stands right after its own.
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

/// Why a hook is not what the programs rely on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Drift {
    /// This kernel has none, or no BTF for it.
    #[error("this kernel has no such function or tracepoint")]
    Missing,
    /// It has another prototype.
    #[error("this kernel has it as {found}, the program knows {expected}")]
    Prototype {
        /// The prototype that the programs rely on.
        expected: String,
        /// The facts of BTF.
        found: String,
    },
    /// BTF is damaged there.
    #[error(transparent)]
    Unreadable(BtfError),
}

/// The facts of BTF about all hooks' attach points.
#[derive(Debug)]
pub struct AttachPoints<'a> {
    btf: &'a Btf<'a>,
    functions: std::collections::HashMap<&'static str, (u32, Prototype<'a>)>,
}

impl<'a> AttachPoints<'a> {
    /// Finds those of `hooks`.
    pub fn of(btf: &'a Btf<'a>, hooks: &[Hook]) -> Result<Self, BtfError> {
        let functions: Vec<&'static str> =
            hooks.iter().filter(|hook| hook.is_function()).map(|hook| hook.name).collect();
        Ok(Self { btf, functions: btf.functions(&functions)? })
    }

    /// The number of a hook's attach point, and its prototype.
    pub fn get(&self, hook: &Hook) -> Result<(u32, Prototype<'a>), BtfError> {
        if hook.is_function() {
            self.functions.get(hook.name).cloned().ok_or_else(|| BtfError::NoType(hook.name.to_owned()))
        } else {
            self.btf.tracepoint(hook.name)
        }
    }
}

/// The groups that are not complete, each with a hook that it lacks.
pub fn incomplete(forms: &[(Hook, HookForm)]) -> Vec<(Group, &'static str)> {
    let lacks = |group: &Group| {
        let mut members = forms.iter().filter(|(hook, _)| hook.need == Need::Grouped(*group));
        let (missing, _) = members.find(|(_, form)| matches!(form, HookForm::Off(_)))?;
        Some((*group, missing.name))
    };
    [Group::Ends, Group::Creation, Group::Setns].iter().filter_map(lacks).collect()
}

/// Why a hook is off whose group lacks another.
pub fn only_together_with(missing: &str) -> String {
    format!("hooked only together with {missing}")
}

/// All hooks, for a kernel of this layout, in the order in which they are attached: those that end something come
/// first, so that nothing that is seen to begin ends unseen while the rest is being attached; a fallback comes after
/// the groups whose place it takes, and what begins things is last.
pub fn all(layout: &Layout) -> Vec<Hook> {
    const TASK: Value<'static> = Value::Pointer("task_struct");
    const NS: Value<'static> = Value::Pointer("pid_namespace");
    const NUMBER: Value<'static> = Value::Number;
    let exit: &[_] = match (layout.exit_has_group_dead, layout.second_chances()) {
        (true, true) => {
            &[(At::TpBtf, names::PROGRAM_EXIT_GROUP_DEAD), (At::TpBtf, names::PROGRAM_EXIT_AGAIN)]
        }
        (true, false) => &[(At::TpBtf, names::PROGRAM_EXIT_GROUP_DEAD)],
        (false, _) => &[(At::TpBtf, names::PROGRAM_EXIT_LIVE)],
    };
    // Where the kernel can leave a program out, each of the busy ones is followed by a second.
    let twice = |both: &'static [(At, &'static str)]| {
        if layout.second_chances() { both } else { &both[..1] }
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
            "when exactly a zombie was reaped",
        ),
        hook(
            "zap_pid_ns_processes",
            &[(At::Fentry, names::PROGRAM_ZAP_BEGIN), (At::Fexit, names::PROGRAM_ZAP_END)],
            Need::Grouped(Group::Ends),
            &[NS],
            Value::Nothing,
            "when exactly a teardown began and ended, with or without a SIGCHLD",
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
            "init.signal, namespace.teardown, who killed an init",
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
            "which command reboot(2) was called with inside",
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

/// The name of the hook on system calls, which `--no-syscall-hooks` leaves out.
pub const SYSCALL_HOOK: &str = "sys_exit";

/// Which hooks to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookSet {
    /// Hook by hook what this kernel takes: functions, and tracepoints for the rest.
    #[default]
    Auto,
    /// Functions for all that they can report; end with exit code 4 where this kernel refuses one.
    Function,
    /// Tracepoints alone.
    Tracepoint,
}

/// How a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookForm {
    /// As these programs.
    On(&'static [(At, &'static str)]),
    /// Not at all: others see what it would.
    Unneeded,
    /// Not at all.
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
            Self::Unneeded => f.write_str("off: not needed beside the function hooks"),
            Self::Off(why) => write!(f, "off: {why}"),
        }
    }
}
