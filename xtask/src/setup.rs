//! `cargo xtask setup`: looks at the machine, plans what it lacks, and installs that.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    linker::{self, Linker},
    packages::{self, Package, Stillness},
    shell::{self, Privilege},
    toolchain::{self, Choice, Toolchain},
    version::Version,
};

/// Install what is missing to build and test pidns-trace.
///
/// Wanted are a Rust toolchain that builds eBPF objects, bpf-linker, what the tests run, and what guests take. Whatever is
/// there already stays as it is; each command is printed before it runs. Of container runtimes, whose packages start
/// daemons, it keeps those that it installs itself from being started, now and at boot.
///
/// The toolchain is rustup's `nightly` if that has the component rust-src, else Debian's packages, which rustup then
/// knows as `pidns-bpf`. Set PIDNS_BPF_TOOLCHAIN to use another of rustup's toolchains. Setup never installs or
/// updates a toolchain through rustup: which ones you have is up to you.
///
/// build, run, test, vm and bench start with this by themselves; all but vm do without what guests take, and all but test
/// without container runtimes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only print what would be run
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let plan = plan(&Machine::look(Purpose::Everything)?)?;
    if args.dry_run {
        eprint!("{plan}");
    } else {
        plan.carry_out()?;
    }
    Ok(())
}

/// Sets up what is missing, and says what is in use.
pub(crate) fn ready() -> Result<Ready> {
    plan(&Machine::look(Purpose::Build)?)?.carry_out()
}

/// As `ready`, and the container runtimes that the tests use too.
pub(crate) fn ready_for_tests() -> Result<Ready> {
    plan(&Machine::look(Purpose::Tests)?)?.carry_out()
}

/// As `ready`, and what guests take too.
pub(crate) fn ready_for_guests() -> Result<Ready> {
    plan(&Machine::look(Purpose::Guests)?)?.carry_out()
}

/// What the machine is set up for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Building and running.
    Build,
    /// That, and testing on this kernel: who only wants to run the tool needs no Docker for it.
    Tests,
    /// Building, and testing on other kernels.
    Guests,
    /// All that a developer may need.
    Everything,
}

impl Purpose {
    fn packages(self) -> impl Iterator<Item = &'static Package> {
        let containers =
            if matches!(self, Self::Tests | Self::Everything) { packages::CONTAINERS } else { &[] };
        let guests = if matches!(self, Self::Guests | Self::Everything) { packages::GUESTS } else { &[] };
        [packages::TOOLCHAIN, packages::LINKER, packages::TESTS, containers, guests].into_iter().flatten()
    }
}

/// What the object is built with.
pub(crate) struct Ready {
    toolchain: Toolchain,
    linker: Linker,
    /// Whether the build script of pidns-user has to be told which toolchain that is.
    name_toolchain: bool,
}

impl Ready {
    /// `cargo SUBCOMMAND`, for the user-space crates and with them the eBPF object.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = shell::command("cargo");
        cargo.arg(subcommand);
        // Not always: the script runs again, and pidns-user compiles again, whenever the variable changes, as it
        // would between this and the user's own `cargo build`.
        if self.name_toolchain {
            cargo.env(toolchain::TOOLCHAIN_VAR, &self.toolchain.name);
        }
        // An object that was skipped is an empty stub, and what comes next would run it or look into it.
        cargo.env_remove("AYA_BUILD_SKIP");
        cargo
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eBPF toolchain: {}, {}", self.toolchain, self.linker)
    }
}

/// Looks again: what was installed must answer, and what was there before must not stand in its way.
fn verify(name: &str) -> Result<Ready> {
    let toolchain = toolchain::probe(name).with_context(|| {
        format!("`rustup run {name} rustc -vV` still fails: run it by hand to see why, then run this command again")
    })?;
    if name == toolchain::DEBIAN_TOOLCHAIN && toolchain.rustc.version < toolchain::DEBIAN_MINIMUM {
        bail!(
            "{toolchain} is older than rustc {}. Is another rustc than that of rustc-web in {}/bin?\nOr {}",
            toolchain::DEBIAN_MINIMUM,
            toolchain::DEBIAN_SYSROOT,
            packages::OTHER_WAY
        );
    }
    if !toolchain.has_sources {
        bail!("{toolchain} has no sources of core: lib/rustlib/src/rust/library/core is not in its sysroot");
    }
    let linker = Linker::find().context(
        "bpf-linker is not on PATH or does not run: `bpf-linker --version` by hand shows why, and \
         `cargo install --force` installs it anew",
    )?;
    if !linker.reads(toolchain.rustc.llvm) {
        bail!(
            "{linker} (LLVM {}) cannot link what {toolchain} writes. If it is not the one that `cargo install` \
             installed, take it off PATH.",
            linker.llvm.map_or_else(|| "unknown".to_owned(), |llvm| llvm.to_string())
        );
    }
    let name_toolchain = toolchain::asked_for()?.is_none() && !toolchain::is_default(name, toolchain::probe);
    Ok(Ready { toolchain, linker, name_toolchain })
}

/// What setup found.
struct Machine {
    /// Whether apt-get is there.
    apt: bool,
    /// Whether systemd runs, and so starts what packages bring.
    systemd: bool,
    privilege: Privilege,
    choice: Choice,
    linker: Option<Linker>,
    missing: Vec<&'static Package>,
}

impl Machine {
    fn look(purpose: Purpose) -> Result<Self> {
        if shell::find("rustup").is_none() {
            bail!(
                "rustup is not on PATH. The eBPF object needs another toolchain than the rest, and it is rustup that \
                 switches between them.\n\
                 Install it (https://rustup.rs says how; Debian's package rustup conflicts with rustc-web), open a new \
                 shell, and run this command again."
            );
        }
        let linker = Linker::find();
        let asked_for = toolchain::asked_for()?;
        let choice = toolchain::choose(asked_for.as_deref(), linker.as_ref(), toolchain::probe)?;
        let missing = purpose.packages().filter(|package| !package.is_present()).collect();
        Ok(Self {
            apt: shell::find("apt-get").is_some(),
            // As sd_booted(3) tells.
            systemd: Path::new("/run/systemd/system").exists(),
            privilege: Privilege::here(),
            choice,
            linker,
            missing,
        })
    }

    /// The packages of the group that are not there.
    fn missing_of(&self, group: &'static [Package]) -> Vec<&'static Package> {
        group.iter().filter(|package| self.missing.contains(package)).collect()
    }
}

/// What to do, in order.
struct Plan {
    steps: Vec<Step>,
    /// The toolchain that is there in the end.
    toolchain: String,
}

enum Step {
    /// Words for the user.
    Note(String),
    Run(Command),
    /// An installing, and what is run before, and after it even if it fails.
    Between(Box<Stillness>, Command),
    /// Are the packages there to be installed?
    CheckAvailable(Vec<&'static Package>),
}

impl Plan {
    fn carry_out(self) -> Result<Ready> {
        if self.steps.is_empty() {
            eprintln!("set-up: nothing to do");
        }
        for step in self.steps {
            match step {
                Step::Note(note) => eprintln!("{note}"),
                Step::Run(mut command) => shell::run(&mut command)?,
                Step::Between(stillness, install) => run_between(*stillness, install)?,
                Step::CheckAvailable(packages) => packages::check_available(&packages)?,
            }
        }
        let ready = verify(&self.toolchain)?;
        eprintln!("{ready}");
        Ok(ready)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            writeln!(f, "set-up: nothing to do")?;
        }
        for step in &self.steps {
            match step {
                Step::Note(note) => writeln!(f, "{note}")?,
                Step::Run(command) => writeln!(f, "$ {}", shell::describe(command))?,
                Step::Between(stillness, install) => {
                    let Stillness { before, after } = &**stillness;
                    for command in [before, install].into_iter().chain(after) {
                        writeln!(f, "$ {}", shell::describe(command))?;
                    }
                }
                Step::CheckAvailable(_) => {}
            }
        }
        Ok(())
    }
}

/// Runs what comes after whatever the installing came to: half of the packages may be there.
fn run_between(Stillness { mut before, after }: Stillness, mut install: Command) -> Result<()> {
    let installed = shell::run(&mut before).and_then(|()| shell::run(&mut install));
    // Each of them: where something is not installed one may fail.
    let undone: Vec<Result<()>> = after.into_iter().map(|mut command| shell::run(&mut command)).collect();
    installed?;
    undone.into_iter().collect()
}

fn plan(machine: &Machine) -> Result<Plan> {
    let mut steps = Vec::new();

    let (toolchain, llvm) = match &machine.choice {
        Choice::Use(toolchain) => (toolchain.name.as_str(), toolchain.rustc.llvm),
        Choice::SetUpDebian { .. } => (toolchain::DEBIAN_TOOLCHAIN, Version::new(linker::LLVM, 0, 0)),
    };
    let linker_is_needed = !machine.linker.as_ref().is_some_and(|linker| linker.reads(llvm));
    if linker_is_needed && llvm.major > linker::LLVM {
        bail!(
            "the toolchain {toolchain} writes LLVM {llvm}, and setup can install bpf-linker for LLVM {} only.\n\
             Install one for LLVM {} yourself (the README of bpf-linker says how), then run this command again.",
            linker::LLVM,
            llvm.major
        );
    }

    let mut install = Vec::new();
    if let Choice::SetUpDebian { why } = &machine.choice {
        steps.push(Step::Note(format!("eBPF toolchain: Debian's packages, since {why}")));
        install.extend(machine.missing_of(packages::TOOLCHAIN));
    }
    if linker_is_needed {
        install.extend(machine.missing_of(packages::LINKER));
    }
    install.extend(machine.missing_of(packages::TESTS));
    for group in [packages::GUESTS, packages::CONTAINERS] {
        for package in machine.missing_of(group) {
            // One is in both groups.
            if !install.contains(&package) {
                install.push(package);
            }
        }
    }

    if !install.is_empty() {
        if !machine.apt {
            let list: Vec<_> = install.iter().map(|package| format!("    {package}")).collect();
            let why = match &machine.choice {
                Choice::SetUpDebian { why } => format!("{why}, and "),
                Choice::Use(_) => String::new(),
            };
            let or = match install.iter().any(|package| package.is_for_the_object()) {
                true => format!(", or {}", packages::OTHER_WAY),
                false => ". Then run this command again.".to_owned(),
            };
            bail!(
                "{why}there is no apt-get on PATH to install what is missing (by Debian's names):\n{}\n\
                 Install the same with your distribution's own tool{or}",
                list.join("\n"),
            );
        }
        steps.extend(install.iter().map(|package| Step::Note(format!("missing: {package}"))));
        let [update, install_them] =
            machine.privilege.root([packages::update(), packages::install(&install)])?;
        let stillness = packages::keep_still(&install).filter(|_| machine.systemd);
        steps.push(Step::Run(update));
        steps.push(Step::CheckAvailable(install));
        steps.push(match stillness {
            Some(Stillness { before, after: [unmask, disable] }) => {
                let [before, unmask, disable] = machine.privilege.root([before, unmask, disable])?;
                Step::Between(Box::new(Stillness { before, after: [unmask, disable] }), install_them)
            }
            None => Step::Run(install_them),
        });
    }
    if matches!(machine.choice, Choice::SetUpDebian { .. }) {
        steps.push(Step::Run(toolchain::link_debian()));
    }
    if linker_is_needed {
        steps.push(Step::Note("bpf-linker is built from source: this takes a minute or two".to_owned()));
        steps.push(Step::Run(linker::install()));
    }
    Ok(Plan { steps, toolchain: toolchain.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{linker::tests::linker, toolchain::tests::toolchain};

    /// Debian 12 with rustup's stable, and nothing else.
    fn fresh() -> Machine {
        let groups = [packages::TOOLCHAIN, packages::LINKER];
        Machine {
            apt: true,
            systemd: true,
            privilege: Privilege::Root,
            choice: Choice::SetUpDebian { why: "rustup has no toolchain nightly".to_owned() },
            linker: None,
            missing: groups.into_iter().flatten().collect(),
        }
    }

    fn ready() -> Machine {
        Machine {
            choice: Choice::Use(toolchain("pidns-bpf", "1.96.0", "22.1.8")),
            linker: Some(linker("0.13.0", Some(22))),
            missing: Vec::new(),
            ..fresh()
        }
    }

    /// The commands of the plan, as printed.
    fn commands(machine: &Machine) -> Vec<String> {
        let plan = plan(machine).expect("a plan").to_string();
        plan.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
    }

    #[test]
    fn a_ready_machine_is_left_alone() {
        assert_eq!(plan(&ready()).expect("a plan").to_string(), "set-up: nothing to do\n");
    }

    #[test]
    fn a_fresh_debian_gets_toolchain_and_linker() {
        let commands = commands(&fresh());
        let [update, install, link, linker] = &commands[..] else {
            panic!("four commands, not {commands:#?}")
        };
        assert!(update.ends_with("DEBIAN_FRONTEND=noninteractive apt-get update"), "{update}");
        assert!(install.ends_with("--no-remove rustc-web cargo-web rust-web-src llvm-22-dev"), "{install}");
        assert!(link.ends_with("rustup toolchain link pidns-bpf /usr"), "{link}");
        assert!(linker.contains("cargo install bpf-linker --version 0.13.0 --locked"), "{linker}");
        assert!(linker.contains("LLVM_SYS_221_PREFIX=/usr/lib/llvm-22"), "{linker}");
    }

    #[test]
    fn what_guests_take_is_installed_where_it_is_missing() {
        let machine = Machine { missing: packages::GUESTS.iter().collect(), ..ready() };
        let commands = commands(&machine);
        let [_update, install] = &commands[..] else { panic!("two commands, not {commands:#?}") };
        assert!(install.ends_with("--no-remove busybox-static lz4 zstd"), "{install}");
        let error = plan(&Machine { apt: false, ..machine }).err().expect("nothing to install with");
        assert!(error.to_string().contains("lz4 (decompresses older kernels"), "{error}");
    }

    #[test]
    fn what_the_packages_of_container_runtimes_start_is_kept_from_starting() {
        let missing = packages::CONTAINERS.iter().chain(packages::GUESTS).collect();
        let machine = Machine { missing, ..ready() };
        let with_systemd = commands(&machine);
        let [_update, mask, install, unmask, disable] = &with_systemd[..] else {
            panic!("five commands, not {with_systemd:#?}")
        };
        let all = "busybox-static lz4 zstd runc podman containerd docker.io";
        assert!(install.ends_with(all), "each once: {install}");
        for (command, what) in [(mask, "mask --runtime"), (unmask, "unmask --runtime"), (disable, "disable")]
        {
            assert!(command.starts_with(&format!("systemctl {what} podman.socket ")), "{command}");
            assert!(command.ends_with(" containerd.service docker.socket docker.service"), "{command}");
        }
        let without = commands(&Machine { systemd: false, ..machine });
        assert_eq!(without.len(), 2, "nothing has started anything: {without:#?}");
    }

    #[test]
    fn what_was_there_before_is_left_as_it_is() {
        let docker = packages::CONTAINERS.last().expect("runtimes");
        let commands = commands(&Machine { missing: vec![docker], ..ready() });
        assert_eq!(
            commands.last().map(String::as_str),
            Some("systemctl disable docker.socket docker.service")
        );
    }

    #[test]
    fn what_was_held_back_is_let_go_of_after_an_install_that_failed_too() {
        let folder = std::env::temp_dir().join(format!("xtask-setup-test-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a temporary folder");
        let command = |program: &str, file: &str| {
            let mut command = Command::new(program);
            command.arg(folder.join(file));
            command
        };
        let after = [command("false", ""), command("touch", "undone")];
        let error = run_between(Stillness { before: command("true", ""), after }, command("ls", "not there"));
        let is_undone = folder.join("undone").exists();
        std::fs::remove_dir_all(&folder).expect("it is there");
        assert!(error.is_err_and(|error| error.to_string().contains("ls ")), "what failed is told");
        assert!(is_undone, "each of them was run");
    }

    #[test]
    fn only_tests_need_container_runtimes() {
        let has = |purpose: Purpose, group: &[Package]| {
            group.iter().all(|one| purpose.packages().any(|package| package == one))
        };
        let purposes = [Purpose::Build, Purpose::Tests, Purpose::Guests, Purpose::Everything];
        assert_eq!(purposes.map(|purpose| has(purpose, packages::CONTAINERS)), [false, true, false, true]);
        assert_eq!(purposes.map(|purpose| has(purpose, packages::GUESTS)), [false, false, true, true]);
    }

    #[test]
    fn debian_says_why_the_nightly_will_not_do() {
        let text = plan(&fresh()).expect("a plan").to_string();
        assert!(text.contains("since rustup has no toolchain nightly"), "{text}");
        assert!(text.contains("missing: llvm-22-dev (is the LLVM"), "{text}");
    }

    #[test]
    fn only_the_link_is_made_where_only_the_link_is_missing() {
        let machine = Machine { choice: fresh().choice, ..ready() };
        let commands = commands(&machine);
        let [link] = &commands[..] else { panic!("one command, not {commands:#?}") };
        assert!(link.ends_with("rustup toolchain link pidns-bpf /usr"), "{link}");
    }

    #[test]
    fn a_nightly_needs_no_toolchain_packages() {
        let nightly = Choice::Use(toolchain("nightly", "1.97.0-nightly", "22.1.4"));
        let commands = commands(&Machine { choice: nightly, ..fresh() });
        let [_update, install, _linker] = &commands[..] else { panic!("three commands, not {commands:#?}") };
        assert!(install.ends_with("--no-remove llvm-22-dev"), "{install}");
    }

    #[test]
    fn a_linker_that_is_too_old_is_replaced_without_packages_that_are_there() {
        for old in [linker("0.12.0", Some(22)), linker("0.13.0", Some(21))] {
            let commands = commands(&Machine { linker: Some(old), ..ready() });
            let [install] = &commands[..] else { panic!("one command, not {commands:#?}") };
            assert!(install.contains("cargo install bpf-linker"), "{install}");
        }
    }

    #[test]
    fn only_what_needs_root_goes_through_sudo() {
        let commands = commands(&Machine { privilege: Privilege::Sudo, ..fresh() });
        let with_sudo: Vec<bool> = commands.iter().map(|command| command.contains("sudo ")).collect();
        assert_eq!(with_sudo, [true, true, false, false], "{commands:#?}");
    }

    #[test]
    fn without_root_and_sudo_a_machine_that_needs_no_packages_is_still_set_up() {
        let machine = Machine { privilege: Privilege::None, choice: fresh().choice, ..ready() };
        assert_eq!(commands(&machine).len(), 1);
        let error =
            plan(&Machine { privilege: Privilege::None, ..fresh() }).err().expect("packages need root");
        assert!(error.to_string().contains("apt-get update"), "{error}");
        assert!(error.to_string().contains("llvm-22-dev"), "{error}");
    }

    #[test]
    fn without_apt_the_user_is_told_what_is_missing_and_another_way() {
        let error = plan(&Machine { apt: false, ..fresh() }).err().expect("nothing to install with");
        let message = error.to_string();
        assert!(message.contains("rust-web-src (has the sources of core"), "{message}");
        assert!(message.contains("rustup toolchain install nightly"), "{message}");
    }

    #[test]
    fn a_toolchain_that_no_linker_of_ours_reads_is_refused_before_anything_is_installed() {
        let newer = Choice::Use(toolchain("pidns-bpf", "1.99.0", "23.1.0"));
        let error = plan(&Machine { choice: newer, ..ready() }).err().expect("LLVM 23");
        assert!(error.to_string().contains("LLVM 22 only"), "{error}");
    }
}
