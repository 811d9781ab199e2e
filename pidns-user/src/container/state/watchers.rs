//! Takes facts from the command line of a process that monitors a container. They are only claims, used if no file of a
//! runtime has more.
//!
//! LXC's monitor, conmon (Podman, CRI-O) and systemd-nspawn are parents of a container's first process.

use std::{fs::File, io::Read as _, path::Path};

use super::super::{
    Roots,
    cgroup::{self, Layer, ParsedCgroup},
};
use crate::{
    event::container::{Container, Runtime},
    event::identity::{HostPid, ProcessKey},
    procfs::Procfs,
    text::Name,
};

/// Limit for reading a command line, in bytes.
const LONGEST_LINE: u64 = 16 << 10;
/// The program that is the parent of the first process of a systemd-nspawn machine. (The kernel keeps 15 bytes of a
/// name.)
const NSPAWN: &[u8] = b"systemd-nspawn";
/// Limit for ancestors that are checked: a shell may be between the first process and the requested one.
const MAX_ANCESTORS: usize = 8;

/// A claim from a monitor's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) runtime: Runtime,
    /// The container's id; absent if the command line has none.
    pub(super) id: Option<Name>,
    pub(super) name: Name,
}

/// Returns the claim of the monitor of this process. It is an ancestor outside the container's own cgroup: processes
/// inside are not trusted. While the container is being created, the runtime is between the two (conmon runs `runc
/// create`).
pub(super) fn claim(process: ProcessKey, proc: &Path, path: &[u8]) -> Option<Claim> {
    let mut pid = process.pid;
    for _ in 0..MAX_ANCESTORS {
        pid = parent(pid, proc)?;
        let text = read(proc, pid, "cgroup")?;
        let is_inside = cgroup::parse(&text)
            .is_some_and(|parsed| parsed.containers.iter().any(|layer| layer.path == path));
        if !is_inside {
            let said = |pid| parse(&read(proc, pid, "cmdline")?);
            return said(pid).or_else(|| said(parent(pid, proc)?));
        }
    }
    None
}

/// Returns the claim of conmon about the container with this id, whose first process this is. Without a cgroup of its
/// own, only the id shows that an ancestor monitors this container.
pub(super) fn claim_about(process: ProcessKey, proc: &Path, id: &str) -> Option<Claim> {
    let mut pid = process.pid;
    for _ in 0..MAX_ANCESTORS {
        pid = parent(pid, proc)?;
        let claim = read(proc, pid, "cmdline").and_then(|line| parse(&line));
        let is_about = |claim: &Claim| claim.id.as_ref().is_some_and(|of| of.as_bytes() == id.as_bytes());
        if let Some(claim) = claim.filter(is_about) {
            return Some(claim);
        }
    }
    None
}

/// Returns the claim of this parent of a first process without its own cgroup: systemd-nspawn without a unit for the
/// machine.
fn nspawn(parent: HostPid, proc: &Path) -> Option<Claim> {
    let claim = parse(&read(proc, parent, "cmdline")?)?;
    (claim.runtime == Runtime::Nspawn).then_some(claim)
}

/// Returns the name of an LXC container whose cgroup has this name. If `web` already exists with another lxcpath, the
/// next container's cgroup is `web-1` (cgfsng_payload_create, src/lxc/cgroups/cgfsng.c).
pub(super) fn lxc_name(process: ProcessKey, proc: &Path, layer: &Layer) -> Option<Name> {
    let claim = claim(process, proc, &layer.path).filter(|claim| claim.runtime == Runtime::Lxc)?;
    let number = layer.id.as_bytes().strip_prefix(claim.name.as_bytes())?.strip_prefix(b"-")?;
    number.iter().all(u8::is_ascii_digit).then_some(claim.name)
}

/// What is known about the parent of a process.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Parent<'a> {
    /// Nothing was read yet.
    Unread,
    /// Its PID, if the process has a parent that this /proc shows.
    Pid(Option<HostPid>),
    /// A snapshot has it, with this name.
    Named(HostPid, &'a Name),
}

/// Returns the systemd-nspawn machine whose first process this is, from nspawn's command line. For machines without a
/// unit of their own.
pub(in super::super) fn nspawn_machine(
    roots: &Roots,
    process: ProcessKey,
    known_parent: Parent<'_>,
    parsed: &ParsedCgroup,
) -> Option<Container> {
    let parent = match known_parent {
        Parent::Unread => parent(process.pid, &roots.proc)?,
        Parent::Pid(parent) => parent?,
        // Every process has a parent. Their command lines need not be read to see that they are other programs.
        Parent::Named(parent, comm) if comm.as_bytes() == NSPAWN => parent,
        Parent::Named(..) => return None,
    };
    let Claim { runtime, id: _, name } = nspawn(parent, &roots.proc)?;
    Some(Container {
        runtime: Some(runtime),
        id: Some(name.clone()),
        name: Some(name),
        unit: parsed.unit.clone(),
        user: parsed.user,
        by_cgroup_alone: true,
        doubts: vec!["it is only known from the command line of systemd-nspawn".to_owned()],
        ..Container::default()
    })
}

fn parent(pid: HostPid, proc: &Path) -> Option<HostPid> {
    Procfs::at(proc).parent(pid)
}

fn read(proc: &Path, pid: HostPid, file: &str) -> Option<Vec<u8>> {
    // Otherwise reading starts with 32 bytes at a time.
    let mut text = Vec::with_capacity(1 << 10);
    File::open(proc.join(format!("{pid}/{file}"))).ok()?.take(LONGEST_LINE).read_to_end(&mut text).ok()?;
    Some(text)
}

/// Parses a command line, if its form is known.
fn parse(line: &[u8]) -> Option<Claim> {
    // setproctitle in lxc_monitor's process, src/lxc/lxccontainer.c: `[lxc monitor] LXCPATH NAME`.
    if let Some(title) = line.strip_prefix(b"[lxc monitor] ") {
        let title = title.split(|&byte| byte == 0).next()?;
        let name = title.rsplit(|&byte| byte == b' ').next().filter(|name| !name.is_empty())?;
        return Some(Claim { runtime: Runtime::Lxc, id: None, name: Name::from(name) });
    }
    let mut words = line.split(|&byte| byte == 0);
    let program = words.next()?.rsplit(|&byte| byte == b'/').next()?;
    let words: Vec<&[u8]> = words.collect();
    let after = |options: &[&[u8]]| {
        let at = words.iter().position(|word| options.contains(word))?;
        words.get(at + 1).copied().filter(|word| !word.is_empty())
    };
    match program {
        // `-c ID` and `-n NAME`: libpod/oci_conmon_common.go, CRI-O's internal/oci/runtime_oci.go.
        b"conmon" => Some(Claim {
            runtime: Runtime::Podman,
            id: Some(Name::from(after(&[b"-c", b"--cid"])?)),
            name: Name::from(after(&[b"-n", b"--name"])?),
        }),
        // Without these options, its name is that of its directory (src/nspawn/nspawn.c, determine_names).
        b"systemd-nspawn" => {
            let long = |option: &[u8]| words.iter().find_map(|word| word.strip_prefix(option));
            let directory = || after(&[b"-D", b"--directory"]).or_else(|| long(b"--directory="));
            let last = |path: &'_ [u8]| {
                path.split(|&byte| byte == b'/').rfind(|part| !part.is_empty()).map(Name::from)
            };
            let name = after(&[b"-M", b"--machine"]).or_else(|| long(b"--machine=")).map(Name::from);
            let name = name.or_else(|| last(directory()?))?;
            Some(Claim { runtime: Runtime::Nspawn, id: None, name })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::event::identity::BootNs;

    #[test]
    fn command_lines_of_monitors_are_parsed() {
        let of = |words: &[&str]| parse(words.join("\0").as_bytes());
        let claim = |runtime, id: Option<&str>, name: &str| {
            Some(Claim { runtime, id: id.map(Name::from), name: Name::from(name) })
        };
        assert_eq!(of(&["[lxc monitor] /srv/other path web", ""]), claim(Runtime::Lxc, None, "web"));
        assert_eq!(
            of(&[
                "/usr/bin/conmon",
                "--api-version",
                "1",
                "-c",
                "c0ffee",
                "-u",
                "c0ffee",
                "-n",
                "front",
                "-s"
            ]),
            claim(Runtime::Podman, Some("c0ffee"), "front")
        );
        assert_eq!(of(&["systemd-nspawn", "-D", "/srv/machines/db/"]), claim(Runtime::Nspawn, None, "db"));
        assert_eq!(
            of(&["/bin/systemd-nspawn", "--directory=/x", "--machine=web"]),
            claim(Runtime::Nspawn, None, "web")
        );
        for other in
            [&["bash", "-c", "conmon", "-n", "x"][..], &["conmon", "-n", "x"], &["systemd-nspawn"], &[""]]
        {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    #[test]
    fn only_processes_outside_the_container_are_believed() {
        let proc = tempfile::tempdir().expect("a temporary directory");
        let put = |pid: u32, parent: u32, cgroup: &str, line: &str| {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir_all(&folder).expect("create a directory");
            let zeros = "0 ".repeat(17);
            fs::write(folder.join("stat"), format!("{pid} (x) S {parent} {zeros}500 1\n"))
                .expect("write a file");
            fs::write(folder.join("cgroup"), format!("0::{cgroup}\n")).expect("write a file");
            fs::write(folder.join("cmdline"), line).expect("write a file");
        };
        put(10, 1, "/lxc.monitor.web-1", "[lxc monitor] /srv/lxc web\0");
        put(11, 10, "/lxc.payload.web-1", "/sbin/init\0");
        put(12, 11, "/lxc.payload.web-1/x", "[lxc monitor] /srv/lxc db\0");
        put(13, 12, "/lxc.payload.web-1/x", "sh\0");
        let of = |pid| {
            let process = ProcessKey::new(HostPid(pid), BootNs::from_ticks(500));
            claim(process, proc.path(), b"/lxc.payload.web-1").map(|claim| claim.name)
        };
        assert_eq!((of(11), of(13)), (Some(Name::from("web")), Some(Name::from("web"))));
        // The runtime is still between the two, and its monitor is further up.
        put(20, 1, "/", "/usr/bin/conmon\0-c\0abc\0-n\0db\0");
        put(21, 20, "/", "/usr/bin/runc\0create\0abc\0");
        put(22, 21, "/lxc.payload.web-1", "runc\0init\0");
        put(30, 20, "/", "sh\0");
        put(31, 30, "/", "sh\0");
        put(32, 31, "/lxc.payload.web-1", "sh\0");
        assert_eq!((of(22), of(32)), (Some(Name::from("db")), None));
    }
}
