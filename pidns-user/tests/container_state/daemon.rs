//! Answers of a daemon through its socket.

use std::path::Path;

use pidns_user::{
    container::{Api, ContainerCache, Roots},
    event::identity::{HostPid, ProcessKey},
    text::Name,
};
use serde_json::json;

use crate::world::{DOCKER, INIT, World, id, of};

#[test]
fn a_silent_daemon_is_asked_only_once() {
    let world = World::new();
    let socket = world.path("run/docker.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let roots = Roots::below(world.base.path());
    let mut cache = ContainerCache::with_api(roots.clone(), Api::new(&roots));
    let before = std::time::Instant::now();
    let found = of(&mut cache, INIT, DOCKER).expect("the cgroup names a container");
    assert!(
        found.doubts[0].contains("no answer within 2 s: it will not be queried again"),
        "{:?}",
        found.doubts
    );
    let other = format!("/docker/{}", "f".repeat(64));
    let found =
        of(&mut cache, ProcessKey { pid: HostPid(1), ..INIT }, &other).expect("the cgroup names a container");
    assert_eq!(found.doubts, [format!("no runtime has a file about {}", "f".repeat(64))]);
    let took = before.elapsed();
    assert!(took.as_secs_f64() < 3.5, "it must wait only once: {took:?}");
}

/// A daemon that gives the same answer to every request.
pub(crate) fn server(socket: &Path, status: &'static str, body: String) {
    use std::io::{Read, Write};
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let mut request = [0; 4096];
            let _asked = connection.read(&mut request);
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nApi-Version: 1.41\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _gone_already = connection.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn a_daemons_answer_is_believed_only_for_its_own_process() {
    for (pid, status, expected, part) in [
        (INIT.pid, "200 OK", Some("web"), ""),
        (HostPid(4712), "200 OK", None, "its first process, PID 4712, is gone"),
        (HostPid(0), "200 OK", None, "it is not running"),
        (INIT.pid, "404 Not Found", None, "no runtime has a file about"),
        (INIT.pid, "500 Internal Server Error", None, "500"),
    ] {
        let world = World::new();
        let body = json!({
            "Id": id(), "Name": "/web", "State": {"Pid": pid}, "Config": {"Image": "web:2"}, "message": "no",
            "ApiVersion": "1.41",
        });
        server(&world.path("run/docker.sock"), status, body.to_string());
        let roots = Roots::below(world.base.path());
        let mut cache = ContainerCache::with_api(roots.clone(), Api::new(&roots));
        let found = of(&mut cache, INIT, DOCKER).expect("the cgroup names a container");
        assert_eq!(found.name, expected.map(Name::from), "{pid} {status}: {:?}", found.doubts);
        let doubts = found.doubts.join("\n");
        assert!(doubts.contains(part) && doubts.is_empty() == part.is_empty(), "{pid} {status}: {doubts}");
    }
}
