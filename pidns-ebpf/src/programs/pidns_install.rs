//! `int pidns_install(struct nsset *nsset, struct ns_common *ns)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/pid_namespace.c#L393>
//!
//! Called by setns(2) for the PID namespace among those that it is to join, by whatever file it was named. Where
//! several are to be joined, another one can still be refused after it.

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
        // The return of a 32-bit call is not seen: its note would be taken for that of the next one.
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
