//! `int reboot_pid_ns(struct pid_namespace *pid_ns, int cmd)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/pid_namespace.c#L329>
//!
//! Called by reboot(2) in a namespace. It kills the init and does not return, so only its entry is hooked. The kernel
//! stores only SIGHUP or SIGINT, each of which stands for two commands, so this hook stores the command.

use aya_ebpf::{macros::fentry, programs::FEntryContext};

use crate::{
    kernel::{Direct, PidNamespace},
    maps::REBOOTS,
    undisturbed::undisturbed,
};

#[fentry(function = "reboot_pid_ns")]
fn namespace_reboots(ctx: FEntryContext) -> i32 {
    undisturbed(|| reboots(&ctx))
}

#[inline(always)]
fn reboots(ctx: &FEntryContext) {
    let ns = PidNamespace::<Direct>::of(ctx.arg(0));
    let command: i32 = ctx.arg(1);
    if ns.level() > 0 {
        // An LRU map always has room. If the kernel refuses the command, the namespace has no reboot signal and the
        // exit hook ignores this entry.
        let _ = REBOOTS.insert(&ns.inum(), &(command as u32), 0);
    }
}
