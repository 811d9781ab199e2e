//! Tests the .deb in a Debian that systemd has not booted, as in a chroot or a container: install, use, upgrade,
//! remove, purge.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    debian,
    root::{Root, free_port, metrics},
    seen,
};

/// The longest time from the downloaded package to the first metrics.
const LONGEST: Duration = Duration::from_secs(10);
/// The user and the capabilities of the unit. (`service` tests the unit itself.)
const AS_THE_SERVICE: [&str; 9] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search",
    "--ambient-caps=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search",
    "--bounding-set=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search",
    "--",
];
const DEFAULTS: &str = "etc/default/pidns-trace-agent";

pub(super) fn main(folder: &Path, deb: &Path, newer: &Path) -> Result<()> {
    let base = debian::bare(folder)?;
    let root = Root(folder.join("debian/test-deb"));
    debian::copy(&base, &root.0)?;
    for (from, to) in [(deb, "first.deb"), (newer, "newer.deb")] {
        fs::copy(from, root.0.join("tmp").join(to))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    // dpkg creates its own files at its first use (status-old, …).
    root.run(&["dpkg", "--configure", "--pending"])?;
    let before = root.files()?;

    install_and_use(&root)?;
    upgrade(&root)?;
    remove(&root)?;

    let after = root.files()?;
    let left: Vec<_> = after.keys().filter(|file| !before.contains_key(*file)).collect();
    let gone: Vec<_> = before.keys().filter(|file| !after.contains_key(*file)).collect();
    if !left.is_empty() || !gone.is_empty() {
        bail!("the purged package leaves {left:?} behind, and removes {gone:?}");
    }
    seen(&format!("after the purge nothing is left: {} files and directories as before", after.len()));
    debian::remove(&root.0)
}

fn install_and_use(root: &Root) -> Result<()> {
    let began = Instant::now();
    root.run(&["dpkg", "--install", "/tmp/first.deb"])?;
    let installed = began.elapsed();
    let tree = root.run(&["pidns-trace", "tree"])?;
    if !tree.starts_with("NAMESPACE") || tree.lines().count() < 2 {
        bail!("`pidns-trace tree` prints no namespace:\n{tree}");
    }
    let looked = began.elapsed();
    let port = free_port()?;
    let address = format!("127.0.0.1:{port}");
    let mut agent = root.command(&AS_THE_SERVICE);
    agent.args(["pidns-trace", "agent", "--web.listen-address", &address]);
    let mut agent = agent.stdout(Stdio::null()).spawn().context("cannot start the agent")?;
    let answer = metrics(port, LONGEST);
    let served = began.elapsed();
    // The shell that started the agent was replaced by it (exec).
    let pid = i32::try_from(agent.id()).context("the PID is too large")?;
    // SAFETY: kill takes two numbers. The child is ours and not reaped yet, so no other process has its PID.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    let status = agent.wait().context("cannot wait for the agent")?;
    let series = answer?.lines().filter(|line| line.starts_with("pidns_")).count();
    if !status.success() {
        bail!("the agent ends with {status} after SIGTERM");
    }
    seen(&format!(
        "installed after {:.1} s, `pidns-trace tree` after {:.1} s, {series} series served after {:.1} s",
        installed.as_secs_f64(),
        looked.as_secs_f64(),
        served.as_secs_f64()
    ));
    if served > LONGEST {
        bail!("that is more than {} s", LONGEST.as_secs());
    }
    for file in [
        "usr/share/man/man1/pidns-trace.1.gz",
        "usr/share/man/man1/pidns-trace-agent.1.gz",
        "usr/share/bash-completion/completions/pidns-trace",
        "usr/share/zsh/vendor-completions/_pidns-trace",
        "usr/share/fish/vendor_completions.d/pidns-trace.fish",
        "usr/share/doc/pidns-trace/copyright",
    ] {
        // The smallest Debian systems exclude manual pages and documents.
        if !root.0.join(file).exists() && !root.0.join("etc/dpkg/dpkg.cfg.d/excludes").exists() {
            bail!("the package does not install /{file}");
        }
    }
    Ok(())
}

/// An upgrade must keep the defaults that an administrator has changed.
fn upgrade(root: &Root) -> Result<()> {
    let defaults = root.0.join(DEFAULTS);
    let mut text =
        fs::read_to_string(&defaults).with_context(|| format!("cannot read {}", defaults.display()))?;
    text.push_str("# changed\n");
    fs::write(&defaults, &text).with_context(|| format!("cannot write {}", defaults.display()))?;
    root.run(&["dpkg", "--install", "/tmp/newer.deb"])?;
    let version = root.run(&["dpkg-query", "--show", "--showformat=${Version}", "pidns-trace"])?;
    if !version.ends_with("-2") {
        bail!("version {version} is installed instead of the newer one");
    }
    if fs::read_to_string(&defaults).ok() != Some(text) {
        bail!("the upgrade has changed /{DEFAULTS}");
    }
    root.run(&["pidns-trace", "--version"])?;
    seen("the upgrade keeps the changed defaults");
    Ok(())
}

fn remove(root: &Root) -> Result<()> {
    root.run(&["dpkg", "--remove", "pidns-trace"])?;
    if root.0.join("usr/bin/pidns-trace").exists() || !root.0.join(DEFAULTS).exists() {
        bail!("removing the package must remove the program and keep the configuration");
    }
    root.run(&["dpkg", "--purge", "pidns-trace"])?;
    let state = root.run(&["dpkg-query", "--show", "--showformat=${Package} ", "*"])?;
    if state.split_whitespace().any(|name| name == "pidns-trace") {
        bail!("dpkg still knows the purged package");
    }
    Ok(())
}
