//! The program in a container of its own, with the rights that docs/install.md names, beside containers of Docker, Podman and
//! containerd.
//!
//! Podman makes the image, without a registry, and runs it: Debian 12's Docker knows no CAP_BPF yet. Where the program under test is not
//! the static one that packaging/image/Dockerfile is for (`cargo xtask dist test` has that one tested), its libraries are put beside it.

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
    scratch::{SLEEP, output, run},
};

const IMAGE: &str = "pidns-trace:test";
/// Raising a limit takes a capability that not every machine gives.
const LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"];

/// The options of docs/install.md, without its mounts.
const RIGHTS: [&str; 12] = [
    "--pid=host",
    // As in a pod, where nothing else can be asked for.
    "--cgroupns=private",
    "--network=host",
    "--read-only",
    "--security-opt=no-new-privileges",
    "--security-opt=seccomp=unconfined",
    "--cap-drop=ALL",
    "--cap-add=BPF",
    "--cap-add=PERFMON",
    "--cap-add=SYS_PTRACE",
    "--cap-add=DAC_READ_SEARCH",
    "--memory=256m",
];

/// Makes the image: by its Dockerfile, if the program is static, else of the program and its libraries.
fn make_image(podman: &Podman) {
    let program = program::path();
    // Nothing is listed of a static program.
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
    fs::create_dir_all(&root).expect("a folder");
    fs::copy(program, root.join("pidns-trace")).expect("the program can be copied");
    for library in libraries {
        let copy = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().expect("a folder of its own")).expect("a folder");
        fs::copy(library, copy).expect("the library can be copied");
    }
    let archive = scratch.arg("image-of-program.tar");
    run(Command::new("tar").arg("-C").arg(&root).args(["-cf", &archive, "."]));
    podman.run(&["import", "--change", "ENTRYPOINT [\"/pidns-trace\"]", &archive, IMAGE]);
}

/// The mounts of docs/install.md: the runtimes' state, where it is by default. The runtimes of the test keep theirs elsewhere.
fn mounts(docker: &Docker, podman: &Podman) -> Vec<String> {
    let (docker, podman) = (&docker.scratch, &podman.scratch);
    [
        (PathBuf::from("/run/runc"), "/run/runc"),
        (docker.path("containerd-runc"), "/run/containerd/runc"),
        (
            docker.path("containerd/io.containerd.runtime.v2.task"),
            "/run/containerd/io.containerd.runtime.v2.task",
        ),
        (docker.path("docker-run"), "/run/docker"),
        (docker.path("docker-data"), "/var/lib/docker"),
        (podman.path("run"), "/run/containers/storage"),
        (podman.path("data"), "/var/lib/containers/storage"),
    ]
    .map(|(from, to)| {
        format!("--mount=type=bind,src={},dst={to},ro=true,bind-nonrecursive=true", from.display())
    })
    .to_vec()
}

/// The program's output in a container.
#[track_caller]
fn traced(podman: &Podman, mounts: &[String], args: &[&str]) -> String {
    let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
    podman.run(&[&["run", "--rm"], &LIMITS[..], &RIGHTS, &mounts, &[IMAGE], args].concat())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Runtime and name of each container in a tree, at all depths.
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
fn the_image_traces_the_host_and_names_the_containers_beside_it() {
    let docker = Docker::with_image();
    let front = ["run", "--detach", "--name", "pidns-front", "--network", "none", "pidns-busybox:1"];
    docker.run(&[&front[..], &SLEEP].concat());
    let podman = Podman::with_image();
    let side = ["run", "--detach", "--name", "pidns-side", "--network", "none"];
    podman.run(&[&side[..], &LIMITS, &["pidns-busybox:1"], &SLEEP].concat());
    make_image(&podman);
    let plain = Running::start_program(&docker.scratch, "pidns-test", "pidns-plain", &[], &SLEEP);
    fs::create_dir_all("/run/runc").expect("a folder");
    let mounts = mounts(&docker, &podman);

    let tree = json(&traced(&podman, &mounts, &["tree", "-o", "json"]));
    let mut found = Vec::new();
    containers_of(&tree, &mut found);
    for (runtime, name) in
        [("docker", "pidns-front"), ("podman", "pidns-side"), ("containerd", "pidns-plain")]
    {
        assert!(found.contains(&(runtime.to_owned(), name.to_owned())), "{runtime}/{name}: {found:?}");
    }

    // PIDs are those of the host: this very test is a process of it.
    let own = std::process::id().to_string();
    let explained = traced(&podman, &mounts, &["explain", &own]);
    assert!(explained.contains("containers-"), "the test program by its name: {explained}");

    let check = traced(&podman, &mounts, &["check"]);
    for ok in ["sched_process_fork", "sched_process_exit", "snapshots", "holders", "PID namespace"] {
        let is_ok =
            |line: &str| line.strip_prefix(ok).is_some_and(|rest| rest.trim_start().starts_with("ok"));
        assert!(check.lines().any(is_ok), "{ok}: {check}");
    }

    served(&podman, &mounts);
    assert!(Path::new(&format!("/proc/{}", plain.pid)).exists(), "it has lived to the end");
}

/// The agent serves metrics that name the containers, and ends by SIGTERM.
fn served(podman: &Podman, mounts: &[String]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    // The agent's from now on.
    drop(listener);
    let address = format!("127.0.0.1:{port}");
    let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
    let agent = ["agent", "--web.listen-address", &address];
    let run = ["run", "--detach", "--name", "pidns-agent"];
    podman.run(&[&run[..], &LIMITS, &RIGHTS, &mounts, &[IMAGE], &agent].concat());
    // What a program wrote to stderr comes on stderr.
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
    assert_eq!(code, "0", "it ends by SIGTERM: {}", logs());
}

/// The whole answer.
fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
