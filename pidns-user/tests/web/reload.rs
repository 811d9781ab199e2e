//! Changes the configuration while the server runs.

use std::{fs, thread, time::Duration};

use rustls::{pki_types::CertificateDer, version::TLS13};

use crate::{
    authentication::config_with_password,
    client::{basic, connect, exchange, request, send, until_closed},
    fixture::{Folder, Running},
    tls::{Authority, folder, stream},
};

fn status(server: &Running, password: &str) -> u16 {
    send(server.address, &request("GET", "/metrics", &[&basic("alice", password)])).status
}

#[test]
fn a_changed_password_is_used_within_a_second_without_a_restart() {
    let folder = Folder::with(&config_with_password("old"));
    let server = Running::configured(&folder);
    assert_eq!([status(&server, "old"), status(&server, "new")], [200, 401]);
    folder.write("web.yml", &config_with_password("new"));
    thread::sleep(Duration::from_millis(1100));
    assert_eq!([status(&server, "old"), status(&server, "new")], [401, 200]);
}

#[test]
fn a_reload_uses_a_changed_password_at_once() {
    let folder = Folder::with(&config_with_password("old"));
    let server = Running::configured(&folder);
    let mut stream = connect(server.address);
    let old = request("GET", "/metrics", &[&basic("alice", "old")]);
    assert_eq!(exchange(&mut stream, &old).unwrap().status, 200);
    folder.write("web.yml", &config_with_password("new"));
    server.handle.reload().unwrap();
    assert_eq!([status(&server, "old"), status(&server, "new")], [401, 200]);
    assert_eq!(until_closed(&mut stream), b"", "an earlier idle connection is closed");
}

#[test]
fn a_bad_reload_returns_its_error_and_keeps_the_old_configuration() {
    let folder = Folder::with(&config_with_password("old"));
    let server = Running::configured(&folder);
    folder.write("web.yml", "basic_auth_users:\n  alice: plain\n");
    let error = server.handle.reload().unwrap_err().to_string();
    assert!(error.contains("web.yml:2: ") && error.contains("not a bcrypt hash"), "{error}");
    assert_eq!([status(&server, "old"), status(&server, "plain")], [200, 401]);
}

#[test]
fn a_deleted_configuration_file_keeps_the_old_configuration_until_there_is_a_new_one() {
    let folder = Folder::with(&config_with_password("old"));
    let server = Running::configured(&folder);
    fs::remove_file(folder.path("web.yml")).unwrap();
    thread::sleep(Duration::from_millis(1100));
    assert_eq!([status(&server, "old"), status(&server, "new")], [200, 401]);
    folder.write("web.yml", &config_with_password("new"));
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(status(&server, "new"), 200);
}

fn certificate(server: &Running, authority: &Authority) -> Result<CertificateDer<'static>, String> {
    let mut stream = stream(server.address, authority, None, &TLS13);
    let answer =
        exchange(&mut stream, &request("GET", "/metrics", &[])).map_err(|error| error.to_string())?;
    assert_eq!(answer.status, 200);
    Ok(stream.conn.peer_certificates().expect("a certificate")[0].clone().into_owned())
}

#[test]
fn a_changed_certificate_is_used_without_a_restart() {
    let authority = Authority::new();
    let folder = folder(&authority, "");
    let server = Running::configured(&folder);
    let first = certificate(&server, &authority).unwrap();
    assert_eq!(certificate(&server, &authority).unwrap(), first);
    let new = authority.server();
    // The certificate is replaced before its key. Until then the server must use the old pair.
    folder.write("server.crt", &new.cert);
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(certificate(&server, &authority).unwrap(), first);
    folder.write("server.key", &new.key);
    thread::sleep(Duration::from_millis(1100));
    let second = certificate(&server, &authority).unwrap();
    assert_ne!(second, first);
    // Many tools replace a file by a rename.
    let third = authority.server();
    for (name, content) in [("server.crt", &third.cert), ("server.key", &third.key)] {
        folder.write("new", content);
        fs::rename(folder.path("new"), folder.path(name)).unwrap();
    }
    server.handle.reload().unwrap();
    assert_ne!(certificate(&server, &authority).unwrap(), second);
}

#[test]
fn tls_can_be_turned_on_while_the_server_runs() {
    let authority = Authority::new();
    let folder = folder(&authority, "");
    let config = fs::read_to_string(folder.path("web.yml")).unwrap();
    folder.write("web.yml", "");
    let server = Running::configured(&folder);
    let mut before = connect(server.address);
    assert_eq!(exchange(&mut before, &request("GET", "/healthz", &[])).unwrap().status, 200);
    folder.write("web.yml", &config);
    server.handle.reload().unwrap();
    certificate(&server, &authority).unwrap();
    assert_eq!(until_closed(&mut before), b"");
}

#[test]
fn an_unfinished_answer_survives_a_reload_and_then_the_connection_closes() {
    let folder = Folder::with("");
    let server = Running::configured(&folder);
    server.agent.hold();
    let mut stream = connect(server.address);
    std::io::Write::write_all(&mut stream, request("GET", "/metrics", &[]).as_bytes()).unwrap();
    crate::fixture::until("the start of the scrape", || {
        server.agent.scrapes.load(std::sync::atomic::Ordering::SeqCst) == 1
    });
    folder.write("web.yml", "http_server_config: {headers: {X-Frame-Options: deny}}\n");
    server.handle.reload().unwrap();
    server.agent.release();
    let first = crate::client::read_answer(&mut stream, false).unwrap();
    assert_eq!((first.status, first.header("x-frame-options")), (200, ""));
    assert_eq!(until_closed(&mut stream), b"");
}
