//! `struct pid *alloc_pid(struct pid_namespace *ns, pid_t *set_tid, size_t set_tid_size)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/pid.c#L162>
//!
//! Called by copy_process() in the forking thread. It refuses a fork into a dead namespace (ENOMEM), and a fork that
//! needs a PID at a level where none is left (EAGAIN).

use aya_ebpf::{macros::fexit, programs::FExitContext};

use crate::{
    call::{Call, pointer_errno, word},
    undisturbed::undisturbed,
};

#[fexit(function = "alloc_pid")]
fn pid_allocated(ctx: FExitContext) -> i32 {
    let chosen_pids: u64 = ctx.arg(2);
    let pid: u64 = ctx.arg(3);
    // Values above this are errors, not addresses. The verifier lets a program compare a pointer with a constant, but
    // not calculate with it.
    let refused = pid > (-4_096i64) as u64;
    if !refused && chosen_pids == 0 {
        return 0;
    }
    undisturbed(|| {
        let errno = pointer_errno(word(&ctx, 3));
        Call::note(|call| {
            call.pid_errno = errno;
            call.chosen_pids = chosen_pids as u32;
        });
    })
}
