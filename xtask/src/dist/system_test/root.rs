//! A file system to run programs in as if it were the machine's own, and what its agent answers.

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

/// What a chroot needs beside its files, in a mount namespace of its own: nothing of it is left when the command has ended.
const ENTER: &str = r#"
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"#;

/// The folder that programs take for `/`.
pub(super) struct Root(pub(super) PathBuf);

impl Root {
    /// The command that runs this in it.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-ec", ENTER, "sh"]).arg(&self.0).args(args);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// What it prints; fails if it does.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        output(&mut self.command(args))
    }

    /// Each file and folder with its size, but for what is not of a package: mounts and temporary files.
    pub(super) fn files(&self) -> Result<BTreeMap<PathBuf, u64>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.0.clone()];
        while let Some(folder) = todo.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let entry = entry.context("a folder cannot be read to its end")?;
                let path = entry.path();
                let name = path.strip_prefix(&self.0).context("it is below the root")?.to_owned();
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

/// What the command prints on stdout; fails, with what it prints on stderr, if it does.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let args: Vec<_> = command.get_args().collect();
        bail!("{args:?} ends with {}:\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// A port of the loopback interface that nothing listens on.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr().context("a listener has an address")?.port())
}

/// The agent's metrics, as soon as it has any.
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
