//! `struct pid_namespace *copy_pid_ns(u64 flags, struct user_namespace *user_ns, struct pid_namespace *old_ns)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/pid_namespace.c#L162>
//!
//! Called by create_new_namespaces() in the creator, for every clone and unshare that asks for a namespace of any type.
//! Without CLONE_NEWPID it returns the old PID namespace. A new one belongs to no process yet: the call can still fail.

use aya_ebpf::{macros::fexit, programs::FExitContext};

use crate::{
    call::{Call, pointer_errno, word},
    syscall::CLONE_NEWPID,
    undisturbed::undisturbed,
};

#[fexit(function = "copy_pid_ns")]
fn namespace_copied(ctx: FExitContext) -> i32 {
    undisturbed(|| copied(&ctx))
}

#[inline(always)]
fn copied(ctx: &FExitContext) {
    let flags: u64 = ctx.arg(0);
    if flags & CLONE_NEWPID == 0 {
        return;
    }
    let created = word(ctx, 3);
    let errno = pointer_errno(created);
    Call::begin(|call| {
        if errno == 0 {
            call.created = created;
        } else {
            call.create_errno = errno;
        }
    });
}
