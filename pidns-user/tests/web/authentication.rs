//! Passwords, headers and rate limits from the configuration file.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use crate::{
    client::{basic, connect, exchange, get, request, send},
    fixture::{Folder, LINE, Running, until},
};

/// A configuration with the user alice. The hash of the password has a low cost, so that tests are fast.
pub(crate) fn config_with_password(password: &str) -> String {
    format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash(password, 5).expect("hash the password"))
}

#[test]
fn only_the_right_password_opens_the_pages() {
    let folder = Folder::with(&config_with_password("se:cret"));
    let server = Running::configured(&folder);
    for path in ["/", "/metrics", "/healthz", "/readyz", "/status", "/nowhere"] {
        let with = |headers: &[&str]| send(server.address, &request("GET", path, headers));
        let right = with(&[&basic("alice", "se:cret")]);
        assert_eq!(right.status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
        for headers in [
            vec![],
            vec![basic("alice", "secret")],
            vec![basic("alice", "")],
            vec![basic("bob", "se:cret")],
            vec![basic("", "")],
            vec!["Authorization: Basic !".to_owned()],
            vec!["Authorization: Bearer abc".to_owned()],
        ] {
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            let answer = with(&headers);
            assert_eq!(answer.status, 401, "{path} {headers:?}");
            assert!(answer.header("www-authenticate").starts_with("Basic realm="), "{path} {headers:?}");
            assert!(!answer.text().contains(LINE));
        }
    }
}

#[test]
fn a_right_password_is_hashed_once_and_a_wrong_one_each_time() {
    let hash = bcrypt::hash("secret", 11).unwrap();
    let folder = Folder::with(&format!("basic_auth_users:\n  alice: {hash}\n"));
    let server = Running::configured(&folder);
    let mut stream = connect(server.address);
    let mut time = |user: &str, password: &str, status: u16| {
        let begin = Instant::now();
        let answer = exchange(&mut stream, &request("GET", "/healthz", &[&basic(user, password)])).unwrap();
        assert_eq!(answer.status, status, "{user} {password}");
        begin.elapsed()
    };
    let first = time("alice", "secret", 200);
    let again = (0..3).map(|_| time("alice", "secret", 200)).min().unwrap();
    let wrong = (0..5).map(|_| time("alice", "wrong", 401)).min().unwrap();
    let unknown = (0..5).map(|_| time("bob", "secret", 401)).min().unwrap();
    assert!(again * 10 < first, "first {first:?}, again {again:?}");
    assert!(wrong > again * 10, "wrong {wrong:?}, again {again:?}");
    // There is no upper bound, because a busy machine can add to the time.
    assert!(unknown * 3 > wrong, "unknown {unknown:?}, wrong {wrong:?}");
}

#[test]
fn a_remembered_password_does_not_wait_for_checks_of_wrong_ones() {
    const WRONG: usize = 12;
    let hash = bcrypt::hash("secret", 9).unwrap();
    let folder = Folder::with(&format!("basic_auth_users:\n  alice: {hash}\n"));
    let server = Running::configured(&folder);
    let scrape = || send(server.address, &request("GET", "/metrics", &[&basic("alice", "secret")])).status;
    assert_eq!(scrape(), 200);
    let (address, refused) = (server.address, AtomicUsize::new(0));
    let refused_before = std::thread::scope(|scope| {
        for i in 0..WRONG {
            let refused = &refused;
            scope.spawn(move || {
                let wrong = request("GET", "/metrics", &[&basic("alice", &format!("wrong{i}"))]);
                assert_eq!(send(address, &wrong).status, 401);
                refused.fetch_add(1, Ordering::SeqCst);
            });
        }
        until("a first wrong password is refused", || refused.load(Ordering::SeqCst) > 0);
        assert_eq!(scrape(), 200);
        refused.load(Ordering::SeqCst)
    });
    assert!(refused_before < WRONG / 2, "{refused_before} wrong passwords were checked before a known one");
}

#[test]
fn configured_headers_are_on_answers_and_refusals() {
    let config = format!(
        "{}http_server_config:\n  headers:\n    X-Frame-Options: deny\n",
        config_with_password("secret")
    );
    let folder = Folder::with(&config);
    let server = Running::configured(&folder);
    let refused = get(server.address, "/");
    assert_eq!((refused.status, refused.header("x-frame-options")), (401, "deny"));
    let right = send(server.address, &request("GET", "/metrics", &[&basic("alice", "secret")]));
    assert_eq!((right.status, right.header("x-frame-options")), (200, "deny"));
}

#[test]
fn requests_above_the_rate_get_429() {
    let folder = Folder::with("rate_limit:\n  interval: 1h\n  burst: 3\n");
    let server = Running::configured(&folder);
    let statuses: Vec<_> = (0..5).map(|_| get(server.address, "/healthz").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}
