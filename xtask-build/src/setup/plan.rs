//! Plans how to install what is missing.

use std::{fmt, process::Command};

use anyhow::{Result, bail};

use super::{Ready, machine::Machine, verify};
use crate::{
    linker,
    packages::{self, Package, ServiceMask},
    shell,
    toolchain::{self, Choice},
    version::Version,
};

/// Steps in the order in which they run.
pub(super) struct Plan {
    steps: Vec<Step>,
    /// The toolchain that is in use afterwards.
    toolchain: String,
}

enum Step {
    /// A message for the user.
    Note(String),
    Run(Command),
    /// An installation, with commands that run before it and commands that run after it even if it fails.
    Between(Box<ServiceMask>, Command),
    /// Checks that the packages are available.
    CheckAvailable(Vec<&'static Package>),
}

impl Plan {
    pub(super) fn carry_out(self) -> Result<Ready> {
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
                    let ServiceMask { before, after } = &**stillness;
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

/// Runs the `after` commands even if the installation fails, because some of the packages may be installed then.
fn run_between(ServiceMask { mut before, after }: ServiceMask, mut install: Command) -> Result<()> {
    let installed = shell::run(&mut before).and_then(|()| shell::run(&mut install));
    // Run all of them, because the command for a package that is not installed may fail.
    let undone: Vec<Result<()>> = after.into_iter().map(|mut command| shell::run(&mut command)).collect();
    installed?;
    undone.into_iter().collect()
}

pub(super) fn plan(machine: &Machine) -> Result<Plan> {
    let mut steps = Vec::new();

    let (toolchain, llvm) = match &machine.choice {
        Choice::Use(toolchain) => (toolchain.name.as_str(), toolchain.rustc.llvm),
        Choice::SetUpDebian { .. } => (toolchain::DEBIAN_TOOLCHAIN, Version::new(linker::LLVM, 0, 0)),
    };
    let linker_is_needed = !machine.linker.as_ref().is_some_and(|linker| linker.reads(llvm));
    if linker_is_needed && llvm.major > linker::LLVM {
        bail!(
            "the toolchain {toolchain} writes LLVM {llvm}, and setup can install bpf-linker for LLVM {} only.\n\
             Install one for LLVM {} yourself (the README of bpf-linker explains how), then run this command again.",
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
    for group in [packages::GUESTS, packages::CONTAINERS, packages::DASHBOARDS, packages::PACKAGES] {
        for package in machine.missing_of(group) {
            // One package is in both groups.
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
            Some(ServiceMask { before, after: [unmask, disable] }) => {
                let [before, unmask, disable] = machine.privilege.root([before, unmask, disable])?;
                Step::Between(Box::new(ServiceMask { before, after: [unmask, disable] }), install_them)
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
    use std::collections::BTreeSet;

    use super::*;
    use crate::{linker::tests::linker, shell::Privilege, toolchain::tests::toolchain};

    /// Debian 12 with only rustup's stable toolchain.
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

    /// The commands of the plan as they are printed.
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
    fn missing_packages_for_guests_are_installed() {
        let machine = Machine { missing: packages::GUESTS.iter().collect(), ..ready() };
        let commands = commands(&machine);
        let [_update, install] = &commands[..] else { panic!("two commands, not {commands:#?}") };
        assert!(install.ends_with("--no-remove busybox-static lz4 zstd"), "{install}");
        let error = plan(&Machine { apt: false, ..machine }).err().expect("nothing to install with");
        assert!(error.to_string().contains("lz4 (decompresses older kernels"), "{error}");
    }

    #[test]
    fn services_of_container_runtimes_are_kept_from_starting() {
        let missing = packages::CONTAINERS.iter().chain(packages::GUESTS).collect();
        let machine = Machine { missing, ..ready() };
        let with_systemd = commands(&machine);
        let [_update, mask, install, unmask, disable] = &with_systemd[..] else {
            panic!("five commands, not {with_systemd:#?}")
        };
        let (_, names) = install.split_once("--no-remove ").expect("a list of packages");
        let names: Vec<&str> = names.split(' ').collect();
        let different: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), different.len(), "each once: {install}");
        assert!(different.is_superset(&BTreeSet::from(["docker.io", "lxc", "zstd"])), "{install}");
        for (command, verb) in [(mask, "mask --runtime"), (unmask, "unmask --runtime"), (disable, "disable")]
        {
            assert!(command.starts_with(&format!("systemctl {verb} podman.socket ")), "{command}");
            assert!(command.contains(" containerd.service docker.socket docker.service"), "{command}");
            assert!(command.ends_with(" lxc.service lxc-net.service lxc-monitord.service"), "{command}");
        }
        let without = commands(&Machine { systemd: false, ..machine });
        assert_eq!(without.len(), 2, "nothing has started anything: {without:#?}");
    }

    #[test]
    fn prometheus_is_kept_from_starting_too() {
        let machine = Machine { missing: packages::DASHBOARDS.iter().collect(), ..ready() };
        let commands = commands(&machine);
        let [_update, mask, install, _unmask, disable] = &commands[..] else {
            panic!("five commands, not {commands:#?}")
        };
        const UNITS: &str = "prometheus.service prometheus-alertmanager.service victoria-metrics.service";
        assert_eq!(*mask, format!("systemctl mask --runtime {UNITS}"));
        assert!(
            install.ends_with(
                "--no-remove prometheus prometheus-alertmanager victoria-metrics iproute2 nodejs npm python3-venv"
            ),
            "{install}"
        );
        assert_eq!(*disable, format!("systemctl disable {UNITS}"));
    }

    #[test]
    fn existing_files_are_left_alone() {
        let is_docker = |package: &&Package| package.to_string().starts_with("docker.io ");
        let docker = packages::CONTAINERS.iter().find(is_docker).expect("tests run Docker");
        let commands = commands(&Machine { missing: vec![docker], ..ready() });
        assert_eq!(
            commands.last().map(String::as_str),
            Some("systemctl disable docker.socket docker.service")
        );
    }

    #[test]
    fn held_services_are_released_after_a_failed_install_too() {
        let folder = std::env::temp_dir().join(format!("xtask-setup-test-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a temporary folder");
        let command = |program: &str, file: &str| {
            let mut command = Command::new(program);
            command.arg(folder.join(file));
            command
        };
        let after = [command("false", ""), command("touch", "undone")];
        let error =
            run_between(ServiceMask { before: command("true", ""), after }, command("ls", "nonexistent"));
        let is_undone = folder.join("undone").exists();
        std::fs::remove_dir_all(&folder).expect("remove the directory");
        assert!(error.is_err_and(|error| error.to_string().contains("ls ")), "the failed command is named");
        assert!(is_undone, "all commands afterwards ran");
    }

    #[test]
    fn debians_toolchain_is_explained_by_the_fault_of_the_nightly() {
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
    fn an_old_linker_is_replaced_without_installing_packages_again() {
        for old in [linker("0.12.0", Some(22)), linker("0.13.0", Some(21))] {
            let commands = commands(&Machine { linker: Some(old), ..ready() });
            let [install] = &commands[..] else { panic!("one command, not {commands:#?}") };
            assert!(install.contains("cargo install bpf-linker"), "{install}");
        }
    }

    #[test]
    fn only_steps_that_need_root_use_sudo() {
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
    fn without_apt_the_missing_packages_and_an_alternative_are_printed() {
        let error = plan(&Machine { apt: false, ..fresh() }).err().expect("nothing to install with");
        let message = error.to_string();
        assert!(message.contains("rust-web-src (has the sources of core"), "{message}");
        assert!(message.contains("rustup toolchain install nightly"), "{message}");
    }

    #[test]
    fn a_toolchain_newer_than_any_available_linker_is_refused_first() {
        let newer = Choice::Use(toolchain("pidns-bpf", "1.99.0", "23.1.0"));
        let error = plan(&Machine { choice: newer, ..ready() }).err().expect("LLVM 23");
        assert!(error.to_string().contains("LLVM 22 only"), "{error}");
    }
}
