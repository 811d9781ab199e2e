//! `fuzz SECONDS [TARGET]`: gives damaged input to each parser of untrusted data, for this time. `cargo xtask fuzz`
//! calls it.
//!
//! The inputs are random changes of committed seeds. The random generator always starts with the same number, so a
//! failure can be reproduced. (Fuzzers that are guided by coverage need a nightly toolchain.)

use std::{
    env, fs,
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use pidns_ebpf::abi::decode;
use pidns_user::{
    container::{ContainerCache, Roots, cgroup},
    event::identity::{BootNs, HostPid, ProcessKey},
    kernel::{btf::Btf, layout::Layout},
    model::{Forest, World},
    source::recording::Recording,
};

/// Maximum size of an input, in bytes.
const LONGEST: usize = 64 << 10;
/// Time limit for one input.
const SLOW: Duration = Duration::from_secs(2);

/// A parser to test: its name, the folder and extension of its seeds (each file, or each line of a file), and its
/// function.
struct Target {
    name: &'static str,
    seeds: &'static str,
    extension: &'static str,
    by_line: bool,
    /// Parses an input. Returns whether it accepted anything in it.
    read: fn(&mut Workspace, &[u8]) -> bool,
}

const TARGETS: &[Target] = &[
    Target { name: "records", seeds: "tests/fuzz/records", extension: "bin", by_line: false, read: records },
    Target { name: "btf", seeds: "tests/btf", extension: "btf", by_line: false, read: btf },
    Target { name: "cgroups", seeds: "tests/cgroups", extension: "txt", by_line: true, read: cgroups },
    Target { name: "state", seeds: "tests/fuzz/state", extension: "json", by_line: false, read: state },
    Target {
        name: "recordings",
        seeds: "tests/recordings",
        extension: "ndjson",
        by_line: false,
        read: recordings,
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If main returned the error, RUST_BACKTRACE would add a backtrace.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let (seconds, wanted) = match &args[..] {
        [seconds] => (seconds, None),
        [seconds, target] => (seconds, Some(target)),
        _ => bail!("usage: fuzz SECONDS [TARGET]"),
    };
    let time = Duration::from_secs(seconds.parse().context("SECONDS is no number")?);
    let targets: Vec<_> =
        TARGETS.iter().filter(|target| wanted.is_none_or(|wanted| wanted == target.name)).collect();
    if targets.is_empty() {
        bail!(
            "no such target: there are {}",
            TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ")
        );
    }
    for target in targets {
        fuzz(target, time)?;
    }
    Ok(())
}

fn fuzz(target: &Target, time: Duration) -> anyhow::Result<()> {
    let seeds = seeds(target)?;
    let mut workspace = Workspace::new()?;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (began, mut runs, mut found) = (Instant::now(), 0_u64, 0_u64);
    let mut slowest = Duration::ZERO;
    // Start with the unchanged seeds.
    let mut inputs = seeds.clone();
    while began.elapsed() < time {
        let input = inputs.pop().unwrap_or_else(|| numbers.damaged(&seeds));
        let before = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.read)(&mut workspace, &input)));
        let took = before.elapsed();
        slowest = slowest.max(took);
        runs += 1;
        found += u64::from(matches!(outcome, Ok(true)));
        if outcome.is_err() || took > SLOW {
            let file = env::temp_dir().join(format!("pidns-trace-fuzz-{}-{runs}", target.name));
            fs::write(&file, &input)?;
            let what = if outcome.is_err() { "a panic" } else { "it took too long" };
            bail!("{}, run {runs}: {what} ({took:?}): the input is in {}", target.name, file.display());
        }
    }
    if found == 0 {
        bail!("{}: none of {runs} inputs was accepted, not even a seed", target.name);
    }
    let (name, count) = (target.name, seeds.len());
    eprintln!(
        "{name}: {runs} runs from {count} seeds, {found} inputs were accepted, the slowest took {slowest:?}"
    );
    Ok(())
}

/// Reads all seeds of a target.
fn seeds(target: &Target) -> anyhow::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(target.seeds);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == target.extension));
    files.sort();
    let mut seeds = Vec::new();
    for file in files {
        let bytes = fs::read(file)?;
        match target.by_line {
            true => seeds.extend(bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec)),
            false => seeds.push(bytes),
        }
    }
    if seeds.is_empty() {
        bail!("there are no seeds in {}", folder.display());
    }
    Ok(seeds)
}

/// Pseudo-random numbers (xorshift64*), the same sequence in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 if `limit` is 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit as u64).max(1)) as usize
    }

    /// One of the seeds, with one to eight changes.
    fn damaged(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        const NUMBERS: [&[u8]; 8] = [
            b"0",
            b"-1",
            b"4294967295",
            b"18446744073709551616",
            b"1e999",
            &[0xff; 4],
            &[0; 8],
            &[0x7f, 0xff],
        ];
        const WORDS: [&[u8]; 8] = [b"\"", b"\\", b"{", b"[", b"null", b"/../", b"\xf0\x9f", b"\n"];
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(8) {
            let (at, length) = (self.below(bytes.len()), 1 + self.below(32));
            let end = (at + length).min(bytes.len());
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 => drop(bytes.drain(at..end)),
                3 => bytes.truncate(at),
                4 => drop(bytes.splice(at..at, NUMBERS[self.below(NUMBERS.len())].iter().copied())),
                5 => drop(bytes.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
                6 => {
                    let piece = bytes[at..end].repeat(1 + self.below(64));
                    drop(bytes.splice(at..at, piece));
                }
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }
}

/// An invented root directory, for parsers that read files.
struct Workspace {
    base: tempfile::TempDir,
}

impl Workspace {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { base: tempfile::tempdir()? })
    }

    fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let file = self.base.path().join(path);
        fs::create_dir_all(file.parent().expect("it is below the base")).expect("a folder");
        fs::write(&file, bytes).expect("a file");
        file
    }
}

fn records(_: &mut Workspace, input: &[u8]) -> bool {
    let is_one = |input: &[u8]| decode(input).is_ok_and(|found| !format!("{found:?}").is_empty());
    // Most changes make the size in the header wrong, so that the record is refused early. Try the right size too.
    let mut sized = input.to_vec();
    let size = (input.len() as u32).to_ne_bytes();
    if let Some(at) = sized.get_mut(8..12) {
        at.copy_from_slice(&size);
    }
    is_one(input) | is_one(&sized)
}

fn btf(_: &mut Workspace, input: &[u8]) -> bool {
    Btf::parse(input).is_ok_and(|btf| Layout::look_up(&btf).1.is_empty())
}

fn cgroups(_: &mut Workspace, input: &[u8]) -> bool {
    cgroup::parse(input).is_some() | cgroup::parse(&[b"0::/", input].concat()).is_some()
}

fn state(workspace: &mut Workspace, input: &[u8]) -> bool {
    let id = "0123456789abcdef".repeat(4);
    // The first process of the seeds' containers.
    let process = ProcessKey::new(HostPid(4711), BootNs(5_000_000_000));
    let pod = "kubepods/besteffort/pod8b2d1c5e-6a7f-4d3b-9c0e-1f2a3b4c5d6e";
    let mut is_found = false;
    for (file, folder) in [
        (format!("run/docker/runtime-runc/moby/{id}/state.json"), "docker"),
        (format!("var/lib/docker/containers/{id}/config.v2.json"), "docker"),
        (format!("run/crun/{id}/status"), "libpod_parent/libpod"),
        (format!("run/containerd/runc/k8s.io/{id}/state.json"), pod),
        (format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json"), pod),
        ("run/containers/storage/overlay-containers/containers.json".to_owned(), "libpod_parent/libpod"),
    ] {
        // Write only one file at a time: if two contradict each other, neither is used.
        let file = workspace.write(&file, input);
        let mut cache = ContainerCache::new(Roots::below(workspace.base.path()));
        let found = cache.find_by_cgroup(process, format!("0::/{folder}/{id}\n").as_bytes());
        is_found |= found.is_some_and(|found| !found.by_cgroup_alone || found.name.is_some());
        fs::remove_file(file).expect("it was written");
    }
    is_found
}

fn recordings(_: &mut Workspace, input: &[u8]) -> bool {
    let Ok(recording) = Recording::read(Cursor::new(input.to_vec())) else { return false };
    let mut world = World::default();
    for event in recording.map_while(Result::ok) {
        world.apply(&event);
    }
    let snapshot = world.snapshot();
    let forest = Forest::new(&snapshot).with_entries(&world);
    for process in &snapshot.processes {
        forest.levels(process);
        forest.entry(process);
    }
    !forest.walk(None).is_empty()
}
