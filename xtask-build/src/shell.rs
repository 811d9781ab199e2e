//! Commands: printed as a user would type them, then run.

use std::{
    borrow::Cow,
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::LazyLock,
};

use anyhow::{Context as _, Result, bail};

/// `PATH`, extended by the directory of `cargo install`. Setup puts bpf-linker there, and a fresh rustup may not have
/// it on `PATH` yet.
static SEARCH_PATH: LazyLock<OsString> = LazyLock::new(|| {
    let path = env::var_os("PATH").unwrap_or_default();
    match cargo_bin() {
        Some(bin) if env::split_paths(&path).all(|dir| dir != bin) => prepend(bin.as_os_str(), &path),
        _ => path,
    }
});

/// The directory that `cargo install` installs into.
pub fn cargo_bin() -> Option<PathBuf> {
    Some(cargo_home()?.join("bin"))
}

/// The directory of cargo's downloads and installations.
pub fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    home.or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// `dir` in front of `path`.
fn prepend(dir: &OsStr, path: &OsStr) -> OsString {
    let mut joined = dir.to_os_string();
    if !path.is_empty() {
        joined.push(":");
        joined.push(path);
    }
    joined
}

/// A `PATH` for a command that must find the programs of `dir` before all others.
pub fn path_with(dir: &str) -> OsString {
    prepend(OsStr::new(dir), &SEARCH_PATH)
}

/// A command that searches for its program on the search path. Its own child processes do the same.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    if env::var_os("PATH").as_ref() != Some(&*SEARCH_PATH) {
        command.env("PATH", &*SEARCH_PATH);
    }
    command
}

/// The program's file, if it is on the search path.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&*SEARCH_PATH).map(|dir| dir.join(program)).find(|file| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    })
}

/// How this process can run commands as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The user is root.
    Root,
    /// The user becomes root through sudo.
    Sudo,
    /// The user is not root, and sudo is missing.
    None,
}

impl Privilege {
    /// The privilege of this process.
    pub fn here() -> Self {
        // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            Self::Root
        } else if find("sudo").is_some() {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// Makes the commands run as root: unchanged for root, else through `sudo`.
    pub fn root<const N: usize>(self, commands: [Command; N]) -> Result<[Command; N]> {
        match self {
            Self::Root => Ok(commands),
            Self::Sudo => Ok(commands.map(|command| sudo(&command))),
            Self::None => {
                let list: Vec<_> =
                    commands.iter().map(|command| format!("    {}", describe(command))).collect();
                bail!("this needs root, and there is no sudo on PATH. As root, run:\n{}", list.join("\n"))
            }
        }
    }
}

/// Runs the command through `sudo`. A command that sets variables gets only those. Any other gets the user's
/// environment (`RUST_LOG`, …). apt-get must not: sudo's rules may allow apt-get but refuse `-E`.
fn sudo(command: &Command) -> Command {
    let mut sudo = Command::new("sudo");
    let mut assignments = assignments(command).peekable();
    sudo.arg(if assignments.peek().is_some() { "env" } else { "-E" });
    for (name, value) in assignments {
        let mut assignment = name.to_os_string();
        assignment.push("=");
        assignment.push(value);
        sudo.arg(assignment);
    }
    sudo.arg(command.get_program()).args(command.get_args());
    sudo
}

/// The variables that the command adds to the environment.
fn assignments(command: &Command) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    command.get_envs().filter_map(|(name, value)| Some((name, value?)))
}

/// The command as a user would type it.
pub fn describe(command: &Command) -> String {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let mut words = Vec::new();
    for (name, value) in assignments(command) {
        // The user's own shell has the rest of PATH already.
        let before = value.as_bytes().strip_suffix(inherited.as_bytes()).filter(|_| !inherited.is_empty());
        let value = match before {
            Some(before) if name == "PATH" => {
                format!("{}$PATH", quote(&String::from_utf8_lossy(before)))
            }
            _ => quote(&value.to_string_lossy()).into_owned(),
        };
        words.push(format!("{}={value}", name.display()));
    }
    words.push(quote(&command.get_program().to_string_lossy()).into_owned());
    words.extend(command.get_args().map(|arg| quote(&arg.to_string_lossy()).into_owned()));
    words.join(" ")
}

/// Quotes a word for a POSIX shell if that is necessary.
fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "-_=+:,./@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

fn print(command: &Command) {
    eprintln!("$ {}", describe(command));
}

/// Prints the command and runs it. Returns an error if the command fails. Its stdout goes to stderr.
pub fn run(command: &mut Command) -> Result<()> {
    print(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", describe(command));
    }
    Ok(())
}

/// Prints the command and replaces this process with it, so output, signals and exit code are the command's. Returns
/// only if the command cannot be started.
pub fn exec(command: &mut Command) -> Result<()> {
    print(command);
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", describe(command)))
}

/// The command's stdout. `None` if it cannot be started or fails. The command is not printed, because it changes
/// nothing.
pub fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt() -> Command {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "rustc-web"]);
        apt
    }

    #[test]
    fn a_command_is_printed_the_way_it_is_typed() {
        assert_eq!(describe(&apt()), "DEBIAN_FRONTEND=noninteractive apt-get install -y rustc-web");
        assert_eq!(
            describe(Command::new("echo").args(["two words", "it's", ""])),
            r"echo 'two words' 'it'\''s' ''"
        );
    }

    #[test]
    fn only_additions_to_path_are_printed() {
        let mut command = Command::new("cargo");
        command.env(
            "PATH",
            prepend(OsStr::new("/usr/lib/llvm-22/bin"), &env::var_os("PATH").unwrap_or_default()),
        );
        assert_eq!(describe(&command), "PATH=/usr/lib/llvm-22/bin:$PATH cargo");
    }

    #[test]
    fn root_runs_commands_as_they_are() {
        let [command] = Privilege::Root.root([apt()]).expect("root needs nothing");
        assert_eq!(describe(&command), describe(&apt()));
    }

    #[test]
    fn sudo_keeps_the_commands_environment_or_else_the_users() {
        let commands = Privilege::Sudo.root([apt(), Command::new("target/release/pidns-trace")]);
        assert_eq!(
            commands.expect("sudo is there").map(|command| describe(&command)),
            [
                "sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y rustc-web",
                "sudo -E target/release/pidns-trace"
            ]
        );
    }

    #[test]
    fn without_root_and_sudo_all_commands_are_printed() {
        let error = Privilege::None.root([Command::new("first"), apt()]).expect_err("no way to become root");
        assert_eq!(
            error.to_string(),
            "this needs root, and there is no sudo on PATH. As root, run:\n    first\n    \
             DEBIAN_FRONTEND=noninteractive apt-get install -y rustc-web"
        );
    }

    #[test]
    fn asking_a_missing_program_gives_none() {
        assert_eq!(ask(&mut Command::new("/nonexistent/program")), None);
        assert_eq!(ask(&mut Command::new("false")), None);
        assert_eq!(ask(Command::new("echo").arg("yes")).as_deref(), Some("yes\n"));
    }

    #[test]
    fn only_programs_are_found_on_the_search_path() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
