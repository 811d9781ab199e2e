//! Attaches the programs, hook by hook, in the form that this kernel accepts.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    maps::{Array, MapData},
    programs::{Program, ProgramError},
};
use pidns_ebpf::abi::names::attached;

use super::{
    error::{LoadError, exhausted},
    hooks::{Drift, Group, Hook, HookForm, HookSet, Need, SYSCALL_HOOK, incomplete, only_together_with},
};

/// The programs to attach, and their attach points.
pub(super) struct Plan<'a> {
    /// All hooks, in the order in which to attach them.
    pub(super) hooks: Vec<Hook>,
    /// Hooks that this kernel lacks, or has with another prototype.
    pub(super) drifted: HashMap<&'static str, Drift>,
    /// BTF with the attach points of the other hooks.
    pub(super) attach_points: aya::Btf,
    pub(super) set: HookSet,
    /// Whether user space can find ends that no hook reported ([`super::sweep`]).
    pub(super) can_sweep: bool,
    /// Why system calls are not hooked; `None` if they may be.
    pub(super) without_syscall_hooks: Option<&'static str>,
    /// See [`pidns_ebpf::abi::names::MAP_ATTACHED`].
    pub(super) attached: &'a mut Array<MapData, u32>,
}

impl Plan<'_> {
    /// Returns the hooks with their forms.
    ///
    /// Loads all programs, then attaches them. A hook that the kernel refuses is off, and the stream reports that. Only
    /// a refused hook that is indispensable is an error.
    pub(super) fn carry_out<'a>(
        mut self,
        programs: impl Iterator<Item = (&'a str, &'a mut Program)>,
    ) -> Result<Vec<(Hook, HookForm)>, LoadError> {
        let mut programs: HashMap<&str, &mut Program> = programs.collect();
        let hooks = std::mem::take(&mut self.hooks);
        // Load a fallback only when it is needed: it seldom is if functions can be hooked.
        let is_fallback = |hook: &Hook| matches!(hook.need, Need::Fallback(_));
        let first = hooks.iter().filter(|hook| !is_fallback(hook) && self.ruled_out(hook).is_none());
        let mut refused = self.load(first, &mut programs);

        let mut forms: Vec<(Hook, HookForm)> = Vec::new();
        for hook in hooks {
            let spared = match hook.need {
                Need::Fallback(groups) => {
                    take_incomplete_away(groups, &mut forms, &mut programs);
                    hook.is_unneeded(&incomplete(&forms))
                }
                _ => false,
            };
            let form = if let Some(why) = self.ruled_out(&hook) {
                HookForm::Off(why)
            } else if spared {
                HookForm::Unneeded
            } else {
                if is_fallback(&hook) {
                    refused.extend(self.load(std::iter::once(&hook), &mut programs));
                }
                match refused.remove(hook.name).map_or_else(|| attach(&hook, &mut programs), Err) {
                    Ok(()) => HookForm::On(hook.programs),
                    Err(error) => {
                        if let Some(error) = exhausted(&error) {
                            let what = format!("load and attach {}", hook.name);
                            return Err(LoadError::Exhausted { what, error });
                        }
                        unload(&hook, &mut programs);
                        HookForm::Off(explain(&error))
                    }
                }
            };
            if let (HookForm::Off(error), true) = (&form, hook.is_indispensable(self.set)) {
                return Err(LoadError::Hook { hook: hook.name, error: error.clone() });
            }
            let ends_its_groups = is_fallback(&hook);
            forms.push((hook, form));
            if ends_its_groups {
                self.set_switches(&forms)?;
            }
        }
        Ok(forms)
    }

    /// The reason why this hook is not tried; `None` if it is.
    fn ruled_out(&self, hook: &Hook) -> Option<String> {
        if hook.need == Need::Grouped(Group::Ends) && !self.can_sweep {
            // No hook would report a leader that is reaped with its last thread.
            return Some("only useful in the host's PID namespace".to_owned());
        }
        let left_out = hook.left_out(self.set, self.without_syscall_hooks).map(str::to_owned);
        left_out.or_else(|| self.drifted.get(hook.name).map(Drift::to_string))
    }

    /// Tells the programs which hooks are attached. Hooks that depend on this are attached afterwards.
    fn set_switches(&mut self, forms: &[(Hook, HookForm)]) -> Result<(), LoadError> {
        // A hook that is not attached yet counts as off.
        let on = |is: &dyn Fn(&Hook) -> bool| {
            let mut those = forms.iter().filter(|(hook, _)| is(hook)).peekable();
            those.peek().is_some() && those.all(|(_, form)| matches!(form, HookForm::On(_)))
        };
        let ends = on(&|hook| hook.need == Need::Grouped(Group::Ends));
        let creation = on(&|hook| hook.need == Need::Grouped(Group::Creation));
        let setns = on(&|hook| hook.need == Need::Grouped(Group::Setns));
        let syscalls = on(&|hook| hook.name == SYSCALL_HOOK);
        let bits = [
            (attached::ENDS_BY_FUNCTION, ends),
            (attached::RELEASE_SEEN, on(&|hook| hook.name == "proc_free_inum")),
            (attached::CREATION_BY_FUNCTION, creation),
            (attached::SETNS_BY_FUNCTION, setns),
            (attached::UNSHARE_SEEN, creation || syscalls),
            (attached::SETNS_SEEN, setns || syscalls),
        ];
        let all = bits.iter().filter(|(_, on)| *on).fold(0, |all, (bit, _)| all | bit);
        Ok(self.attached.set(0, all, 0)?)
    }

    /// Loads the programs of these hooks. Returns those that were refused.
    ///
    /// The verifier takes 10 to 50 ms for each of the larger programs, on one CPU. The largest gets its own thread.
    fn load<'h>(
        &self,
        hooks: impl Iterator<Item = &'h Hook>,
        programs: &mut HashMap<&str, &mut Program>,
    ) -> HashMap<&'static str, ProgramError> {
        const LARGEST: &str = "sched_process_fork";
        let hooks: Vec<&Hook> = hooks.collect();
        let mut wanted: Vec<(&'static str, &mut Program)> = programs
            .iter_mut()
            .filter_map(|(name, program)| {
                let hook = hooks.iter().find(|hook| hook.programs.iter().any(|(_, own)| own == name))?;
                Some((hook.name, &mut **program))
            })
            .collect();
        wanted.sort_by_key(|(hook, _)| *hook != LARGEST);
        let rest = wanted.split_off(wanted.iter().filter(|(hook, _)| *hook == LARGEST).count());
        let load = |programs: Vec<(&'static str, &mut Program)>| -> HashMap<_, _> {
            let load = |(hook, program): (&'static str, &mut Program)| {
                load_one(hook, program, &self.attach_points).err().map(|error| (hook, error))
            };
            programs.into_iter().filter_map(load).collect()
        };
        // If no thread can be started, this thread loads them afterwards.
        let wanted = Mutex::new(wanted);
        let load_wanted = || {
            let wanted = std::mem::take(&mut *wanted.lock().unwrap_or_else(PoisonError::into_inner));
            load(wanted)
        };
        thread::scope(|scope| {
            let beside = thread::Builder::new().spawn_scoped(scope, load_wanted);
            let mut refused = load(rest);
            refused.extend(match beside {
                Ok(beside) => beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => load_wanted(),
            });
            refused
        })
    }
}

/// Unloads the hooks of an incomplete group: they would cost time and report nothing.
fn take_incomplete_away(
    groups: &[Group],
    forms: &mut [(Hook, HookForm)],
    programs: &mut HashMap<&str, &mut Program>,
) {
    for (group, missing) in incomplete(forms) {
        if !groups.contains(&group) {
            continue;
        }
        for (hook, form) in forms.iter_mut().filter(|(hook, _)| hook.need == Need::Grouped(group)) {
            if matches!(form, HookForm::On(_)) {
                unload(hook, programs);
                *form = HookForm::Off(only_together_with(missing));
            }
        }
    }
}

fn load_one(hook: &str, program: &mut Program, attach_points: &aya::Btf) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => program.load(hook, attach_points),
        Program::FEntry(program) => program.load(hook, attach_points),
        Program::FExit(program) => program.load(hook, attach_points),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach(hook: &Hook, programs: &mut HashMap<&str, &mut Program>) -> Result<(), ProgramError> {
    for (_, name) in hook.programs {
        match programs.get_mut(name) {
            Some(Program::BtfTracePoint(program)) => program.attach().map(drop),
            Some(Program::FEntry(program)) => program.attach().map(drop),
            Some(Program::FExit(program)) => program.attach().map(drop),
            _ => Err(ProgramError::UnexpectedProgramType),
        }?;
    }
    Ok(())
}

/// Unloads a program, attached or not.
pub(super) fn unload_one(program: &mut Program) {
    // A program that was never loaded gives an error.
    let _ = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        _ => Ok(()),
    };
}

fn unload(hook: &Hook, programs: &mut HashMap<&str, &mut Program>) {
    for (_, name) in hook.programs {
        if let Some(program) = programs.get_mut(name) {
            unload_one(program);
        }
    }
}

/// The kernel's error in one line. It has only the last lines of the verifier's long log, which say what was refused.
fn explain(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = format!("{verifier_log}");
            let last: Vec<&str> = log
                .lines()
                .filter(|line| !line.trim().is_empty() && !line.starts_with("processed "))
                .rev()
                .take(2)
                .collect();
            if last.is_empty() {
                io_error.to_string()
            } else {
                format!("{io_error}: {}", last.into_iter().rev().collect::<Vec<_>>().join(": "))
            }
        }
        error => error.to_string(),
    }
}
