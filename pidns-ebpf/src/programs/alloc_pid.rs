//! `struct pid *alloc_pid(struct pid_namespace *ns, pid_t *set_tid, size_t set_tid_size)`
//! <https://github.com/torvalds/linux/blob/v6.18/kernel/pid.c#L162>
//!
//! Called by copy_process() in the forking thread. It is what refuses a fork into a dead namespace (ENOMEM), or into
//! one that has no PID left, at whatever level (EAGAIN).

use aya_ebpf::{macros::fexit, programs::FExitContext};

use crate::{
    call::{Call, pointer_errno, word},
    undisturbed::undisturbed,
};

#[fexit(function = "alloc_pid")]
fn pid_allocated(ctx: FExitContext) -> i32 {
    let chosen_pids: u64 = ctx.arg(2);
    let pid: u64 = ctx.arg(3);
    // No address is above; with a pointer the verifier allows a comparison with a constant, and no arithmetic.
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
