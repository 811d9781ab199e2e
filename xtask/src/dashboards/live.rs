//! Runs agent, Prometheus and example namespaces on this machine, until Ctrl-C.

use std::{
    env, fs,
    io::{Error, ErrorKind},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use pidns_monitoring::{Job, Prometheus, Setup, server};

use super::files;
use crate::{
    build,
    program::PROGRAM_VAR,
    shell::{self, Privilege},
    workspace,
};

/// The longest time until the agent answers.
const READY: Duration = Duration::from_secs(20);

/// The script that makes namespaces.
const SCENES: &str = include_str!("scenes.sh");

/// Runs its arguments, and kills them when its standard input ends. That happens whenever xtask ends, for whatever
/// reason. The script writes the PID to the file in `$0`.
const GUARD: &str =
    r#""$@" & child=$!; echo "$child" >"$0"; cat >/dev/null; kill "$child" 2>/dev/null; wait "$child""#;

/// See `cargo xtask dashboards`.
#[derive(clap::Args)]
pub(crate) struct LiveArgs {
    /// Minutes until it stops by itself
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: u32,
    /// Seconds between two scrapes of Prometheus
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    scrape_interval: u64,
    /// Make no namespaces: show the existing ones
    #[arg(long)]
    no_scenes: bool,
}

pub(crate) fn main(args: &LiveArgs) -> Result<()> {
    let program = match env::var_os(PROGRAM_VAR) {
        Some(program) => PathBuf::from(program),
        None => build::build()?.binary,
    };
    let folder = workspace::target_dir()?.join("dashboards-live");
    // Remove the data of an earlier run.
    match fs::remove_dir_all(folder.join("data")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).context("cannot remove old data");
        }
        _ => fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create the directory {}", folder.display()))?,
    }
    if Privilege::here() == Privilege::Sudo {
        // Ask for the password now: the later calls of sudo run in the background and cannot ask.
        shell::run(Command::new("sudo").arg("-v"))?;
    }
    let address = server::free_address().context("no free port")?;
    let mut command = Command::new(&program);
    // Refusals should be visible too. If function hooks run, this option changes nothing.
    command.args(["agent", "--syscall-hooks", "--web.listen-address"]).arg(address.to_string());
    let mut agent = Guarded::start(&command, &folder.join("agent.log"))?;
    agent.wait_for(address)?;
    let rules = ["rules.yml", "alerts.yml"].map(|name| files::folder().join(name)).to_vec();
    let interval = Duration::from_secs(args.scrape_interval);
    let jobs = vec![Job::new("pidns-trace", [address.to_string()])];
    let prometheus = Prometheus::start(&Setup { jobs, rules, interval, ..Setup::in_folder(&folder) })?;
    let scenes = (!args.no_scenes).then(|| scenes(&folder, args.minutes * 60)).transpose()?;
    eprintln!(
        "agent: http://{address}/metrics\nPrometheus: http://{}/graph and /alerts\nfiles and logs: {}\n\
         pictures: cargo xtask dashboards draw --prometheus {} --scrape-interval {} --minutes 5 --out FOLDER\n\
         It ends with Ctrl-C, or after {} minutes.",
        prometheus.address(),
        folder.display(),
        prometheus.address(),
        args.scrape_interval,
        args.minutes
    );
    wait_for_the_end(args.minutes)?;
    drop((scenes, prometheus, agent));
    Ok(())
}

/// Starts the script that makes namespaces, for this number of seconds.
fn scenes(folder: &Path, seconds: u32) -> Result<Guarded> {
    let mut command = Command::new("sh");
    command.args(["-c", SCENES, "scenes", &seconds.to_string()]);
    Guarded::spawn(command, &folder.join("scenes.log"))
}

/// A program that runs as root in a separate process group. Stopped on drop.
struct Guarded {
    child: Child,
    log: PathBuf,
}

impl Guarded {
    /// Starts a program that needs no changes for this.
    fn start(program: &Command, log: &Path) -> Result<Self> {
        let mut guard = Command::new("sh");
        guard
            .args(["-c", GUARD])
            .arg(log.with_extension("pid"))
            .arg(program.get_program())
            .args(program.get_args());
        Self::spawn(guard, log)
    }

    /// Starts a shell that ends with its standard input.
    fn spawn(command: Command, log: &Path) -> Result<Self> {
        let _ = fs::remove_file(log.with_extension("pid"));
        let output = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let [mut command] = Privilege::here().root([command])?;
        // Only xtask handles Ctrl-C of the terminal. It then stops the others in order.
        command.process_group(0).stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let child =
            command.spawn().with_context(|| format!("cannot start `{}`", shell::describe(&command)))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until a server listens at this address.
    fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > READY {
                bail!("no server listened at {address} after {READY:?}; the log:\n{}", self.log());
            }
            if self.child_has_ended() {
                bail!("the agent ended at once; its log:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Whether the program has ended. The guard itself waits for its standard input, so it does not show that.
    fn child_has_ended(&self) -> bool {
        let pid = fs::read_to_string(self.log.with_extension("pid")).unwrap_or_default();
        pid.ends_with('\n') && !Path::new("/proc").join(pid.trim_end()).exists()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_else(|error| format!("(cannot be read: {error})"))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Waits for Ctrl-C or SIGTERM, or until the time is up.
fn wait_for_the_end(minutes: u32) -> Result<()> {
    // SAFETY: sigemptyset and sigaddset write to a local set. pthread_sigmask and sigtimedwait read it and a local
    // time. The signals are blocked first, as sigtimedwait requires.
    let waited = unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let time = libc::timespec { tv_sec: libc::time_t::from(minutes) * 60, tv_nsec: 0 };
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const time)
    };
    if waited < 0 {
        let error = Error::last_os_error();
        if error.kind() != ErrorKind::WouldBlock {
            return Err(error).context("cannot wait for a signal");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("xtask-live-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        folder
    }

    /// The processes that have this marker in their environment, without zombies.
    fn marked(marker: &str) -> Vec<String> {
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let is_marked = |path: &Path| {
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
        };
        let paths = processes.map(|entry| entry.path());
        let of_others = |path: &PathBuf| {
            path.file_name().is_none_or(|name| name != std::process::id().to_string().as_str())
        };
        paths
            .filter(|path| of_others(path) && is_marked(path))
            .map(|path| fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned())
            .collect()
    }

    #[test]
    fn a_guarded_program_ends_on_drop() {
        let folder = folder("guard");
        let marker = format!("XTASK_GUARD_TEST={}", std::process::id());
        let mut program = Command::new("env");
        program.args([&marker, "sleep", "100"]);
        let guarded = Guarded::start(&program, &folder.join("log")).expect("start the program");
        let start = Instant::now();
        while marked(&marker) != ["sleep"] {
            assert!(start.elapsed() < READY, "the program did not start in time");
            thread::sleep(Duration::from_millis(10));
        }
        drop(guarded);
        assert_eq!(marked(&marker), [""; 0]);
        fs::remove_dir_all(folder).expect("remove the directory");
    }

    #[test]
    fn waiting_stops_when_the_program_has_ended() {
        let folder = folder("ends");
        let mut program = Command::new("sh");
        program.args(["-c", "echo no such option; exit 2"]);
        let mut guarded = Guarded::start(&program, &folder.join("log")).expect("start the program");
        let unused = server::free_address().expect("a port");
        let error = guarded.wait_for(unused).expect_err("no server listens").to_string();
        assert!(error.contains("ended at once") && error.contains("no such option"), "{error}");
        drop(guarded);
        fs::remove_dir_all(folder).expect("remove the directory");
    }

    #[test]
    fn scenes_make_namespaces_and_leave_nothing_behind() {
        assert_eq!(
            Privilege::here(),
            Privilege::Root,
            "making namespaces needs root: `cargo xtask test` runs the tests as root"
        );
        let folder = folder("scenes");
        let marker = format!("XTASK_SCENES_TEST={}", std::process::id());
        let mut command = Command::new("env");
        command.args([&marker, "sh", "-c", SCENES, "scenes", "60"]);
        let scenes = Guarded::spawn(command, &folder.join("log")).expect("start the scenes");
        let namespaces = || {
            let processes = fs::read_dir("/proc").expect("/proc").flatten();
            let links = processes.filter_map(|entry| fs::read_link(entry.path().join("ns/pid")).ok());
            links.collect::<std::collections::BTreeSet<_>>().len()
        };
        let start = Instant::now();
        // Eight namespaces: the host's, three that live, two nested ones, one with zombies, one that a process
        // joined.
        while namespaces() < 8 {
            assert!(start.elapsed() < READY, "{} namespaces; {}", namespaces(), scenes.log());
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_secs(3));
        drop(scenes);
        let start = Instant::now();
        // The kernel needs a moment to kill the members of namespaces.
        while !marked(&marker).is_empty() {
            assert!(start.elapsed() < READY, "still there: {:?}", marked(&marker));
            thread::sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(folder.join("log")).expect("a log");
        for complaint in ["not found", "yntax", "failed", "No such"] {
            assert!(!log.contains(complaint), "{log}");
        }
        fs::remove_dir_all(folder).expect("remove the directory");
    }
}
