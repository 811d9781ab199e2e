//! Limits all threads to the system calls that the program needs (seccomp(2)).

use std::{collections::BTreeMap, env::consts::ARCH};

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen as Size, SeccompCmpOp as Comparison, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::{
    Protection,
    calls::{Call, GROUPS, When},
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Limits all threads of this process, and those that they start, to the calls in `sandbox/calls.rs`. All other calls
/// fail with EPERM, including those of another architecture (32-bit).
///
/// Sets no_new_privs for all threads. If the kernel has no seccomp, or refuses it, nothing changes.
pub fn restrict_system_calls() -> Protection {
    match restrict() {
        Ok(count) => Protection::On(format!("{count} system calls are allowed, for all threads")),
        Err(error) => Protection::Off(format!("seccomp: {error}")),
    }
}

/// Limits the threads. Returns the number of allowed calls.
fn restrict() -> Result<usize, Error> {
    let arch = TargetArch::try_from(ARCH)?;
    let (allowed, count) = allow_list(arch, std::process::id())?;
    // This order is needed: the second filter forbids seccomp(2). If two filters disagree, the kernel takes the
    // stricter result, so the refusal wins.
    let hides_clone3 = hide_clone3(arch)?;
    apply_filter_all_threads(&hides_clone3)?;
    apply_filter_all_threads(&allowed)?;
    Ok(count)
}

/// The filter that allows only the listed calls, and the number of those.
fn allow_list(arch: TargetArch, own_pid: u32) -> Result<(BpfProgram, usize), Error> {
    let mut rules = Rules::new();
    for Call(number, when) in GROUPS.iter().flat_map(|group| group.calls) {
        rules.insert(*number, rules_of(when, own_pid)?);
    }
    let count = rules.len();
    let filter = SeccompFilter::new(rules, refuse(libc::EPERM), SeccompAction::Allow, arch)?;
    Ok((without_killing(filter.try_into()?), count))
}

/// A filter that makes clone3 fail as on a kernel without it.
fn hide_clone3(arch: TargetArch) -> Result<BpfProgram, Error> {
    let rules = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse(libc::ENOSYS), arch)?;
    Ok(without_killing(filter.try_into()?))
}

fn refuse(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.cast_unsigned())
}

/// The rules for a call. No rule means that it is always allowed.
fn rules_of(when: &When, own_pid: u32) -> Result<Vec<SeccompRule>, Error> {
    let rule = |argument, size, comparison, value| {
        Ok(SeccompRule::new(vec![SeccompCondition::new(argument, size, comparison, value)?])?)
    };
    match *when {
        When::Always => Ok(Vec::new()),
        When::Is(argument, values) => {
            let rules = values.iter().map(|&value| rule(argument, Size::Dword, Comparison::Eq, value.into()));
            rules.collect()
        }
        When::Bits { argument, mask, value } => {
            Ok(vec![rule(argument, Size::Qword, Comparison::MaskedEq(mask), value)?])
        }
        When::IsOwnPid(argument) => Ok(vec![rule(argument, Size::Dword, Comparison::Eq, own_pid.into())?]),
    }
}

/// seccompiler's filters kill the process when it makes a call of another architecture. This makes the call fail with
/// EPERM instead.
fn without_killing(mut program: BpfProgram) -> BpfProgram {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    for instruction in &mut program {
        if instruction.code == RETURN && instruction.k == libc::SECCOMP_RET_KILL_PROCESS {
            instruction.k = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_listed_twice() {
        let mut numbers = BTreeSet::new();
        for Call(number, _) in GROUPS.iter().flat_map(|group| group.calls) {
            assert!(numbers.insert(*number), "system call {number} has two rules");
        }
    }

    #[test]
    fn calls_that_run_programs_or_change_namespaces_are_not_allowed() {
        let refused = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_open_tree,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            libc::SYS_perf_event_open,
            libc::SYS_seccomp,
            libc::SYS_setuid,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_memfd_create,
            libc::SYS_open_by_handle_at,
        ];
        for Call(number, _) in GROUPS.iter().flat_map(|group| group.calls) {
            assert!(!refused.contains(number), "system call {number} is listed");
        }
    }

    #[test]
    fn filters_never_kill_and_stay_below_the_size_limit() {
        let arch = TargetArch::try_from(ARCH).expect("a known architecture");
        let (allowed, count) = allow_list(arch, 77).expect("a filter");
        assert!(count > 100 && allowed.len() < 2_000, "{count} calls, {} instructions", allowed.len());
        for program in [allowed, hide_clone3(arch).expect("a filter")] {
            assert!(program.iter().all(|step| step.k != libc::SECCOMP_RET_KILL_PROCESS));
            let eperm = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
            assert_eq!(program[2].k, eperm, "the third instruction answers other architectures");
        }
    }
}
