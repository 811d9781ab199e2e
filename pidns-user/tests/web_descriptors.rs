//! Tests the web server of a process that has no file descriptor left. It is a separate test program, because the
//! limit applies to the process.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use pidns_user::web::{Format, Landing, Limits, Options, Server, Site, SiteError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

struct Empty;

impl Site for Empty {
    fn metrics(&self, _format: Format) -> Result<Vec<u8>, SiteError> {
        Ok(Vec::new())
    }

    fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }
}

fn start() -> SocketAddr {
    let server = Server::bind(Options {
        listen: vec![([127, 0, 0, 1], 0).into()],
        telemetry_path: "/metrics".to_owned(),
        config_file: None,
        landing: Landing::default(),
        limits: Limits::default(),
    })
    .expect("start the server");
    let address = server.addresses()[0];
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(server.run(Arc::new(Empty), std::future::pending())).expect("the server runs");
    });
    address
}

/// Connects and requests /healthz. A read waits for the answer for at most half a second.
fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connect to the server");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("set the timeout");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("send the request");
    stream
}

fn read_status(stream: &mut TcpStream) -> io::Result<String> {
    let mut status = [0; 15];
    stream.read_exact(&mut status)?;
    Ok(String::from_utf8_lossy(&status).into_owned())
}

#[test]
fn a_server_without_descriptors_closes_an_idle_connection_or_waits_for_one() {
    let address = start();
    assert_eq!(read_status(&mut ask(address)).unwrap(), "HTTP/1.1 200 OK");
    thread::sleep(Duration::from_millis(200));
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) }).unwrap();
    let mut files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    files.pop();
    // The client takes the last descriptor, and the server has none for its side.
    let mut first = ask(address);
    assert_eq!(read_status(&mut first).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    files.pop();
    assert_eq!(read_status(&mut first).unwrap(), "HTTP/1.1 200 OK");
    // No descriptor is free again, but the first connection is idle now, so the server must close it.
    files.pop();
    let mut second = ask(address);
    assert_eq!(read_status(&mut second).unwrap(), "HTTP/1.1 200 OK");
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).expect("the server closed the connection");
}
