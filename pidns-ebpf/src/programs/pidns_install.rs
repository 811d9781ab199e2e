//! `int pidns_install(struct nsset *nsset, struct ns_common *ns)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/pid_namespace.c#L393>
//!
//! Called by setns(2) if a PID namespace is among those to join, whatever file names it. If the call joins several
//! namespaces, the kernel can still refuse another one afterwards.

use aya_ebpf::{macros::fexit, programs::FExitContext};

use crate::{
    call::{Call, word},
    kernel::{NsCommon, Probed, Task},
    undisturbed::undisturbed,
};

#[fexit(function = "pidns_install")]
fn namespace_installed(ctx: FExitContext) -> i32 {
    undisturbed(|| installed(&ctx))
}

#[inline(always)]
fn installed(ctx: &FExitContext) {
    if Task::current().in_compat_syscall() {
        // No hook sees a 32-bit call return, so what is noted here would be taken for a part of the next call.
        return;
    }
    let common = NsCommon::<Probed>::at(word(ctx, 1) as *const u8);
    let result: i32 = ctx.arg(2);
    let errno = if result < 0 { -result as u32 } else { 0 };
    let target = common.container().address();
    Call::begin(|call| {
        call.target = target;
        call.join_errno = errno;
    });
}
