//! Passwords, headers and rate limits from the configuration file.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use crate::{
    client::{basic, connect, exchange, get, request, send},
    fixture::{Folder, LINE, Running, until},
};

/// Users whose hash has a low cost, so that tests are fast.
pub(crate) fn users(password: &str) -> String {
    format!("basic_auth_users:\n  alice: {}\n", bcrypt::hash(password, 5).expect("hash the password"))
}

#[test]
fn only_the_right_password_opens_the_pages() {
    let server = Running::configured(&Folder::with(&users("se:cret")));
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
    let server = Running::configured(&Folder::with(&format!("basic_auth_users:\n  alice: {hash}\n")));
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
fn password_checks_do_not_delay_scrapes() {
    const WRONG: usize = 12;
    let hash = bcrypt::hash("secret", 9).unwrap();
    let server = Running::configured(&Folder::with(&format!("basic_auth_users:\n  alice: {hash}\n")));
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
fn configured_headers_are_on_every_answer() {
    let config = format!("{}http_server_config:\n  headers:\n    X-Frame-Options: deny\n", users("secret"));
    let server = Running::configured(&Folder::with(&config));
    assert_eq!(get(server.address, "/").header("x-frame-options"), "deny");
    let right = send(server.address, &request("GET", "/metrics", &[&basic("alice", "secret")]));
    assert_eq!((right.status, right.header("x-frame-options")), (200, "deny"));
}

#[test]
fn requests_above_the_rate_get_429() {
    let server = Running::configured(&Folder::with("rate_limit:\n  interval: 1h\n  burst: 3\n"));
    let statuses: Vec<_> = (0..5).map(|_| get(server.address, "/healthz").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}
