//! Runs the program in a container with the rights that docs/install.md names, next to containers of Docker, Podman
//! and containerd.
//!
//! Podman makes and runs the image without a registry, because Docker in Debian 12 does not know CAP_BPF.
//! packaging/image/Dockerfile is for the static program, which `cargo xtask dist test` tests. If the program under
//! test is dynamic, its libraries are added to the image.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    containerd::Running,
    docker::Docker,
    podman::Podman,
    program,
    scratch::{SLEEP, output, run, wait_until},
    stream::{Stream, lines, of_event},
};

const IMAGE: &str = "pidns-trace:test";
/// Raising a limit needs a capability that not every machine grants.
const LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"];

/// Added to the options in docs/install.md: the limits of a pod.
const AS_A_POD: [&str; 2] = ["--cgroupns=private", "--memory=256m"];

/// Options and mounts of the container, as docs/install.md shows them.
struct Shown {
    /// Without the mounts.
    options: Vec<String>,
    /// The values of `--mount`.
    mounts: Vec<String>,
    /// All directories of runtimes in the table of the page.
    folders: Vec<PathBuf>,
}

impl Shown {
    fn read() -> Self {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/install.md");
        let page = fs::read_to_string(page).expect("read docs/install.md");
        let command = page.split_once("\ndocker run --rm ").expect("the page shows `docker run --rm`").1;
        let command = command.split_once("pidns-trace tree\n").expect("it runs `pidns-trace tree`").0;
        let mut shown = Self { options: Vec::new(), mounts: Vec::new(), folders: Vec::new() };
        let mut words = command.split_whitespace().filter(|word| *word != "\\").map(str::to_owned);
        while let Some(word) = words.next() {
            if word == "--mount" {
                shown.mounts.push(words.next().expect("a mount"));
            } else {
                shown.options.push(word);
            }
        }
        let first_cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let quoted = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let is_folder = |path: &&str| path.starts_with("/run/") || path.starts_with("/var/");
        shown.folders = quoted.filter(is_folder).map(PathBuf::from).collect();
        shown
    }
}

/// Makes the image: with the Dockerfile if the program is static, else from the program and its libraries.
fn make_image(podman: &Podman) {
    let program = program::path();
    // ldd lists nothing for a static program.
    let listed = output(Command::new("ldd").arg(&program)).stdout;
    let listed = String::from_utf8_lossy(&listed);
    let libraries: Vec<&str> = listed.split_whitespace().filter(|word| word.starts_with('/')).collect();
    if libraries.is_empty() {
        let context = program.parent().and_then(Path::to_str).expect("a plain name");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/image/Dockerfile");
        podman.run(&["build", "--file", file, "--tag", IMAGE, context]);
        return;
    }
    let scratch = &podman.scratch;
    let root = scratch.path("image");
    fs::create_dir_all(&root).expect("create the directory");
    fs::copy(program, root.join("pidns-trace")).expect("copy the program");
    for library in libraries {
        let copy = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().expect("the library has a directory"))
            .expect("create the directory");
        fs::copy(library, copy).expect("copy the library");
    }
    let archive = scratch.arg("image-of-program.tar");
    run(Command::new("tar").arg("-C").arg(&root).args(["-cf", &archive, "."]));
    podman.run(&["import", "--change", "ENTRYPOINT [\"/pidns-trace\"]", &archive, IMAGE]);
}

/// The options of the container: those in docs/install.md, with a mount for each directory in its table. The test's
/// runtimes keep their state in other directories, which are mounted at the default paths.
fn options(docker: &Docker, podman: &Podman) -> Vec<String> {
    let Shown { options, mounts, folders } = Shown::read();
    let (docker, podman) = (&docker.scratch, &podman.scratch);
    let here = |path: &Path| match path.to_str() {
        Some("/run/runc") => path.to_owned(),
        Some("/run/crun") => podman.path("crun"),
        Some("/run/containerd/runc") => docker.path("containerd-runc"),
        Some("/run/containerd/io.containerd.runtime.v2.task") => {
            docker.path("containerd/io.containerd.runtime.v2.task")
        }
        Some("/run/docker/runtime-runc") => docker.path("docker-run/runtime-runc"),
        Some("/var/lib/docker") => docker.path("docker-data"),
        Some("/run/containers/storage") => podman.path("run"),
        Some("/var/lib/containers/storage") => podman.path("data"),
        _ => panic!("docs/install.md names {}, which no runtime of this test has", path.display()),
    };
    let mount = |from: &Path, to: &Path| {
        format!("type=bind,src={},dst={},readonly,bind-nonrecursive", from.display(), to.display())
    };
    for shown in &mounts {
        let folder = folders.iter().find(|folder| mount(folder, folder) == *shown);
        assert!(folder.is_some(), "the mount {shown} is none of {folders:?}, or has other options");
    }
    let mut all = options;
    all.extend(AS_A_POD.map(str::to_owned));
    for folder in &folders {
        let from = here(folder);
        fs::create_dir_all(&from).expect("create the directory");
        all.extend(["--mount".to_owned(), mount(&from, folder)]);
    }
    all
}

/// Runs the program in a container, and returns its output.
#[track_caller]
fn traced(podman: &Podman, options: &[String], args: &[&str]) -> String {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    podman.run(&[&["run", "--rm"], &LIMITS[..], &options, &[IMAGE], args].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Collects runtime and name of each container in a tree, at all depths.
fn containers_of(tree: &Value, found: &mut Vec<(String, String)>) {
    match tree {
        Value::Object(fields) => {
            if let Some(container) = fields.get("container") {
                let text = |field: &str| container[field].as_str().unwrap_or_default().to_owned();
                let name = if text("name").is_empty() { text("id") } else { text("name") };
                found.push((text("runtime"), name));
            }
            fields.values().for_each(|value| containers_of(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| containers_of(value, found)),
        _ => {}
    }
}

#[test]
fn the_image_traces_the_host_and_names_other_containers() {
    let docker = Docker::with_image();
    let front = ["run", "--detach", "--name", "pidns-front", "--network", "none", "pidns-busybox:1"];
    let front = docker.pid(&docker.run(&[&front[..], &SLEEP].concat())).to_string();
    let podman = Podman::with_image();
    let side = ["run", "--detach", "--name", "pidns-side", "--network", "none"];
    podman.run(&[&side[..], &LIMITS, &["pidns-busybox:1"], &SLEEP].concat());
    make_image(&podman);
    let plain = Running::start_program(&docker.scratch, "pidns-test", "pidns-plain", &[], &SLEEP);
    let options = options(&docker, &podman);

    let tree = json(&traced(&podman, &options, &["tree", "-o", "json"]));
    let mut found = Vec::new();
    containers_of(&tree, &mut found);
    for (runtime, name) in
        [("docker", "pidns-front"), ("podman", "pidns-side"), ("containerd", "pidns-plain")]
    {
        assert!(found.contains(&(runtime.to_owned(), name.to_owned())), "{runtime}/{name}: {found:?}");
    }

    // PIDs are those of the host, so this test's own process is known.
    let own = std::process::id().to_string();
    let explained = traced(&podman, &options, &["explain", &own]);
    assert!(explained.contains("containers-"), "expected the name of the test program: {explained}");

    // A directory that cannot be read causes a doubt.
    let explained = traced(&podman, &options, &["explain", &front]);
    assert!(explained.contains("pidns-front") && !explained.contains("doubt"), "{explained}");

    let check = traced(&podman, &options, &["check"]);
    for ok in ["sched_process_fork", "sched_process_exit", "snapshots", "holders", "PID namespace"] {
        let is_ok =
            |line: &str| line.strip_prefix(ok).is_some_and(|rest| rest.trim_start().starts_with("ok"));
        assert!(check.lines().any(is_ok), "{ok}: {check}");
    }

    served(&podman, &options);
    assert!(Path::new(&format!("/proc/{}", plain.pid)).exists(), "the container must live until the end");
}

/// The agent must serve metrics that name the containers, and end on SIGTERM.
fn served(podman: &Podman, options: &[String]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    // The agent gets this port.
    drop(listener);
    let address = format!("127.0.0.1:{port}");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let agent = ["agent", "--web.listen-address", &address];
    let run = ["run", "--detach", "--name", "pidns-agent"];
    podman.run(&[&run[..], &LIMITS, &options, &[IMAGE], &agent].concat());
    // podman writes the container's stderr to stderr.
    let logs = || {
        let output = output(&mut podman.command(&["logs", "pidns-agent"]));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let named = |answer: &str| answer.lines().any(|line| line.starts_with("pidns_namespace_info{"));
    while !get(port, "/metrics").is_ok_and(|answer| named(&answer)) {
        assert!(
            Instant::now() < deadline,
            "no namespace in the metrics: {:?}\n{}\n{}",
            get(port, "/metrics"),
            logs(),
            podman.run(&["ps", "--all"])
        );
        thread::sleep(Duration::from_millis(100));
    }
    let metrics = get(port, "/metrics").unwrap_or_default();
    for name in ["pidns-front", "pidns-side"] {
        assert!(metrics.contains(&format!("\"{name}\"")), "{name}: {}\n{metrics}", logs());
    }
    let status = get(port, "/status").expect("the agent still answers");
    let (_, body) = status.split_once("\r\n\r\n").expect("a body");
    let status = json(body);
    assert_eq!(status["ready"], true, "{status:#}");
    let mut left: Vec<&str> =
        status["capabilities"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_PERFMON", "CAP_SYS_PTRACE"], "{status:#}");
    podman.run(&["stop", "--time", "10", "pidns-agent"]);
    let code = podman.run(&["inspect", "--format", "{{.State.ExitCode}}", "pidns-agent"]);
    assert_eq!(code, "0", "the agent must exit on SIGTERM: {}", logs());
}

/// Reads the whole answer.
fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The profile allows unshare, and the kernel refuses it for lack of a capability. Some versions of the profile answer
/// clone3 with ENOSYS: then the C library uses clone for its threads, and nothing was refused.
#[test]
fn under_podmans_default_profile_the_kernel_refuses_a_namespace_and_no_thread_is_refused() {
    let podman = Podman::with_image();
    make_image(&podman);
    let file = podman.scratch.path("refusals");
    let stream =
        Stream::start(&["-o", "json", "-e", "fork.failed,namespace.create_failed,process.exec"], &file);
    let run_with = |options: &[&str], program: &[&str]| {
        let run = [&["run", "--network", "none"], &LIMITS[..], options, program].concat();
        output(&mut podman.command(&run))
    };
    let refused = run_with(&["--rm", "pidns-busybox:1"], &["/bin/busybox", "unshare", "-p", "true"]);
    assert!(!refused.status.success(), "it has no capability for a namespace");
    // A slow replay has a thread that waits for signals.
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/web.ndjson:/web.ndjson:ro");
    let replay = ["replay", "/web.ndjson", "--speed", "0.01"];
    let started = run_with(&["--detach", "--volume", recording, IMAGE], &replay);
    let id = String::from_utf8(started.stdout).expect("UTF-8").trim().to_owned();
    let pid = podman.pid(&id, "Pid");
    wait_until("its second thread", || {
        fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
    });
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status");
    assert!(status.lines().any(|line| line == "Seccomp:\t2"), "it must run with a filter: {status}");
    podman.run(&["rm", "--force", "--time", "0", &id]);
    stream.end();

    let lines = lines(&file);
    let execs = of_event(&lines, "process.exec");
    assert!(execs.iter().any(|event| event["process"]["pid"] == pid), "expected the program: {execs:#?}");
    let refusals = of_event(&lines, "namespace.create_failed");
    let refusal = refusals.iter().find(|event| event["creator"]["comm"] == "busybox");
    let refusal = refusal.unwrap_or_else(|| panic!("no refusal of busybox: {refusals:#?}"));
    assert_eq!(
        (&refusal["errno"], &refusal["reason"]),
        (&"EPERM".into(), &"permission".into()),
        "{refusal:#}"
    );
    let forks = of_event(&lines, "fork.failed");
    assert!(forks.iter().all(|event| event["process"]["pid"] != pid), "no fork was refused: {forks:#?}");
}
