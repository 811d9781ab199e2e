//! `cargo xtask bench`: measures the cost of the hooks, of snapshots and of the agent.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{setup, shell, vm, vm::KernelName, workspace};

/// Measure the cost of the hooks, set-up included: on this machine, or with --vm in a qemu guest.
///
/// `snapshot` measures a snapshot of all processes instead, and compares it with lsns, ps, and a reader of all of
/// /proc. `agent` measures the agent.
///
/// Arguments after `--` are passed to the benchmark. It loads eBPF programs, so it runs through sudo unless you are
/// root. For numbers worth keeping, run it on an idle machine.
///
/// A guest without KVM is emulated, and its clock counts instructions (1 ns each). Nothing else on the machine
/// disturbs that clock: the ratio of two times shows how much more work there is, but not the effect of a real CPU's
/// caches. A guest has one CPU, and by default does less work (--lives 2000 --calls 100000 --rounds 2). It takes the
/// same kernels as `cargo xtask vm`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                   everything, compared with empty programs on the same hooks
  cargo xtask bench -- --only storm --rounds 10       only the slowdown of forks and exits
  cargo xtask bench -- --hooks tracepoint,function    compares both sets of hooks with no hooks
  cargo xtask bench --vm 6.1 --vm newest -- --only storm,calls --hooks tracepoint,function
                                                      the same on kernels that accept both sets
  cargo xtask bench agent                             the agent, compared with bpftrace's count() and a bare machine
  cargo xtask bench snapshot                          100 to 18,000 processes, compared with other tools
  cargo xtask bench -- --help                         the benchmark's own options")]
pub(crate) struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "hooks")]
    what: What,

    #[expect(
        rustdoc::broken_intra_doc_links,
        reason = "clap prints this comment as help: [repeatable] is no link"
    )]
    /// Measure in a guest with this kernel: newest, or two numbers of a version, as for `cargo xtask vm` [repeatable]
    #[arg(long, value_name = "KERNEL")]
    vm: Vec<KernelName>,

    /// Minutes before a guest counts as hung
    #[arg(long, value_name = "MINUTES", default_value_t = 60, requires = "vm")]
    timeout: u64,

    /// Arguments of the benchmark
    #[arg(last = true)]
    args: Vec<String>,
}

/// The benchmarks, which are the `[[bench]]` targets of pidns-user.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Cost of the hooks
    Hooks,
    /// Duration of a snapshot of all processes
    Snapshot,
    /// Cost of the agent
    Agent,
}

pub(crate) fn main(args: Args) -> Result<()> {
    if !args.vm.is_empty() {
        if args.what != What::Hooks {
            bail!("--vm measures only the hooks: a guest is too small for a meaningful snapshot");
        }
        return vm::bench::main(&args.vm, &args.args, Duration::from_secs(args.timeout * 60));
    }
    let bench = match args.what {
        What::Hooks => "hooks",
        What::Snapshot => "snapshot",
        What::Agent => "agent",
    };
    let ready = setup::ready()?;
    let mut cargo = ready.cargo("bench");
    cargo.args(["--package", "pidns-user", "--bench", bench, "--"]).args(args.args);
    workspace::run_as_root(&mut cargo)?;
    shell::exec(&mut cargo)
}
