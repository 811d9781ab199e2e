//! Runs programs in a directory as if it were the root file system, and reads the metrics of an agent there.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Mounts the file systems that a chroot needs. It runs in a separate mount namespace, so that no mount is left when
/// the command ends.
const ENTER: &str = r#"
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"#;

/// The directory that programs see as `/`.
pub(super) struct Root(pub(super) PathBuf);

impl Root {
    /// A command that runs in this root.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-ec", ENTER, "sh"]).arg(&self.0).args(args);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// Runs it. Returns its stdout, or an error if it fails.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        output(&mut self.command(args))
    }

    /// Each file and directory with its size. Omits mounts and temporary files, which belong to no package.
    pub(super) fn files(&self) -> Result<BTreeMap<PathBuf, u64>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.0.clone()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let entry = entry.context("cannot read a directory to its end")?;
                let path = entry.path();
                let name = path.strip_prefix(&self.0).context("a path is outside of the root")?.to_owned();
                if ["proc", "sys", "dev", "run", "tmp"].iter().any(|mount| name == Path::new(mount)) {
                    continue;
                }
                let metadata = entry.metadata().with_context(|| format!("cannot read {}", path.display()))?;
                if metadata.is_dir() {
                    todo.push(path);
                    found.insert(name, 0);
                } else {
                    found.insert(name, metadata.size());
                }
            }
        }
        Ok(found)
    }
}

/// Runs the command. Returns its stdout, or an error with its stderr if it fails.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let args: Vec<_> = command.get_args().collect();
        bail!("{args:?} ends with {}:\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// A free port of the loopback interface.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr().context("the listener has no address")?.port())
}

/// Waits for the agent's first metrics, and returns them.
pub(super) fn metrics(port: u16, patience: Duration) -> Result<String> {
    let end = Instant::now() + patience;
    loop {
        match get(port, "/metrics") {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") && answer.contains("\npidns_") => {
                return Ok(answer);
            }
            Ok(answer) if Instant::now() > end => {
                bail!("no metrics: {}", answer.lines().next().unwrap_or_default())
            }
            Err(error) if Instant::now() > end => return Err(error.context("the agent does not answer")),
            _ => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn get(port: u16, path: &str) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
