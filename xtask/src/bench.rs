//! `cargo xtask bench`: what the hooks cost, on this machine or in a guest with another kernel; and what snapshots do.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{setup, shell, vm, vm::KernelName, workspace};

/// Measure what the hooks cost, set-up included: on this machine, or with --vm in a guest of qemu.
///
/// `snapshot` measures a snapshot of all processes instead: ours, and those of lsns, ps, and a reader of all of /proc. `agent`
/// measures the agent.
///
/// What comes after `--` is for the benchmark. It loads eBPF programs, so it runs through sudo unless you are root.
/// For numbers worth keeping, run it on an idle machine.
///
/// A guest without KVM is emulated, and its clock counts instructions (1 ns each), which nothing else on the machine
/// disturbs: ratios of two times show how much more there is to do, not what a real CPU's caches make of it. A guest has
/// one CPU, and does less by default (--lives 2000 --calls 100000 --rounds 2); kernels come as for `cargo xtask vm`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench                                   everything, against empty programs on the same hooks
  cargo xtask bench -- --only storm --rounds 10       how much slower forks and exits are
  cargo xtask bench -- --hooks tracepoint,function    both sets of hooks and none, side by side
  cargo xtask bench --vm 6.1 --vm newest -- --only storm,calls --hooks tracepoint,function
                                                      the same on kernels that take both, as this one may not
  cargo xtask bench agent                             the agent, beside bpftrace's count() and a bare machine
  cargo xtask bench snapshot                          with 100 to 18,000 processes, side by side with other tools
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

    /// Minutes after which a guest is taken to hang
    #[arg(long, value_name = "MINUTES", default_value_t = 60, requires = "vm")]
    timeout: u64,

    /// Arguments of the benchmark
    #[arg(last = true)]
    args: Vec<String>,
}

/// The benchmarks: `[[bench]]` of pidns-user.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// What the hooks cost
    Hooks,
    /// How long a snapshot of all processes takes
    Snapshot,
    /// What the agent costs
    Agent,
}

pub(crate) fn main(args: Args) -> Result<()> {
    if !args.vm.is_empty() {
        if args.what != What::Hooks {
            bail!("--vm measures the hooks alone: a guest is too small for a snapshot that is meaningful");
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
