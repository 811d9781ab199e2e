//! Clients that request too much, or never finish.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use pidns_user::web::Limits;

use crate::{
    client::{connect, exchange, get, read_answer, request, send, until_closed},
    fixture::{LINE, Running, until},
};

#[test]
fn a_client_that_sends_a_byte_a_second_is_cut_off() {
    let server = Running::plain();
    let mut stream = connect(server.address);
    let begin = Instant::now();
    let mut sender = stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        for byte in request("GET", "/metrics", &[]).bytes() {
            if sender.write_all(&[byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_secs(1));
        }
    });
    assert_eq!(until_closed(&mut stream), b"");
    let took = begin.elapsed().as_secs_f64();
    assert!((4.5..9.0).contains(&took), "after {took} s");
    assert_eq!(server.agent.scrapes.load(Ordering::SeqCst), 0);
    sending.join().unwrap();
}

#[test]
fn a_slow_later_request_is_cut_off_too() {
    let limits = Limits { header_time: Duration::from_millis(500), ..Limits::default() };
    let server = Running::with(limits);
    let mut stream = connect(server.address);
    exchange(&mut stream, &request("GET", "/healthz", &[])).unwrap();
    thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    stream.write_all(b"GET /heal").unwrap();
    assert_eq!(until_closed(&mut stream), b"");
    let took = begin.elapsed().as_secs_f64();
    assert!((0.4..4.0).contains(&took), "after {took} s");
}

#[test]
fn an_idle_connection_is_closed() {
    let server = Running::with(Limits { idle_time: Duration::from_millis(500), ..Limits::default() });
    let mut stream = connect(server.address);
    exchange(&mut stream, &request("GET", "/healthz", &[])).unwrap();
    let begin = Instant::now();
    assert_eq!(until_closed(&mut stream), b"");
    let took = begin.elapsed().as_secs_f64();
    assert!((0.4..4.0).contains(&took), "after {took} s");
}

#[test]
fn scrapes_succeed_with_a_thousand_open_connections() {
    let server = Running::plain();
    let mut scraper = connect(server.address);
    assert_eq!(exchange(&mut scraper, &request("GET", "/metrics", &[])).unwrap().text(), LINE);
    let mut idle = Vec::new();
    let mut slowest = Duration::ZERO;
    for i in 0..1000 {
        let mut stream = connect(server.address);
        // Half of the connections have sent the start of a request.
        if i % 2 == 0 {
            stream.write_all(b"GET /met").unwrap();
        }
        idle.push(stream);
        if i % 100 == 99 {
            let begin = Instant::now();
            assert_eq!(get(server.address, "/metrics").text(), LINE);
            slowest = slowest.max(begin.elapsed());
        }
    }
    assert!(slowest < Duration::from_secs(1), "the slowest scrape took {slowest:?}");
    println!("the slowest scrape with 1,000 open connections took {slowest:?}");
    let open = idle.iter().filter(|stream| is_open(stream)).count();
    assert!(open <= Limits::default().connections, "{open} are open");
    assert!(open > 32, "only {open} are open");
}

fn is_open(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set the socket to non-blocking");
    matches!(stream.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn scrapes_succeed_while_others_connect_endlessly() {
    let server = Running::plain();
    let end = Instant::now() + Duration::from_secs(2);
    let address = server.address;
    let flood: Vec<_> = (0..2)
        .map(|_| {
            thread::spawn(move || {
                let mut idle = std::collections::VecDeque::new();
                let mut count = 0;
                while Instant::now() < end {
                    idle.extend(TcpStream::connect(address).ok());
                    count += 1;
                    if idle.len() > 200 {
                        idle.pop_front();
                    }
                }
                count
            })
        })
        .collect();
    let (mut scrapes, mut lost) = (0, 0);
    while Instant::now() < end {
        // If a client is stopped between its connect and its request while 64 others connect, it loses its place.
        match exchange(&mut connect(address), &request("GET", "/metrics", &[])) {
            Ok(answer) => {
                assert_eq!(answer.text(), LINE);
                scrapes += 1;
            }
            Err(_) => lost += 1,
        }
    }
    let connections: usize = flood.into_iter().map(|thread| thread.join().unwrap()).sum();
    println!("{scrapes} scrapes succeeded and {lost} failed during {connections} connections in two seconds");
    assert!(
        scrapes > 20 && lost * 10 < scrapes && connections > 200,
        "{scrapes}, {lost} lost, {connections}"
    );
}

#[test]
fn too_large_headers_get_431() {
    let server = Running::plain();
    let small = request("GET", "/metrics", &[&format!("X-Long: {}", "a".repeat(15 * 1024))]);
    assert_eq!(send(server.address, &small).status, 200);
    let mut stream = connect(server.address);
    // Send only a part, so that the server has read everything before it closes the connection.
    let big = request("GET", "/metrics", &[&format!("X-Long: {}", "a".repeat(17 * 1024))]);
    stream.write_all(&big.as_bytes()[..16 * 1024 + 1]).unwrap();
    assert_eq!(read_answer(&mut stream, false).unwrap().status, 431);
    let many: Vec<_> = (0..200).map(|i| format!("X-{i}: 1")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(send(server.address, &request("GET", "/metrics", &many)).status, 431);
}

#[test]
fn malformed_http_gets_400() {
    let server = Running::plain();
    assert_eq!(send(server.address, "what is this?\r\n\r\n").status, 400);
    let mut stream = connect(server.address);
    stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, b'\r', b'\n']).unwrap();
    let answer = until_closed(&mut stream);
    assert!(answer.starts_with(b"HTTP/1.1 400") || answer.is_empty(), "{answer:?}");
}

#[test]
fn a_request_with_a_body_is_refused_and_its_connection_closed() {
    let server = Running::plain();
    for header in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut stream = connect(server.address);
        let answer = exchange(&mut stream, &request("GET", "/metrics", &[header])).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (413, "close"), "{header}");
        until_closed(&mut stream);
    }
    assert_eq!(server.agent.scrapes.load(Ordering::SeqCst), 0);
    let empty = request("GET", "/metrics", &["Content-Length: 0"]);
    assert_eq!(send(server.address, &empty).status, 200);
}

#[test]
fn a_slow_reader_is_cut_off_and_others_are_served_meanwhile() {
    let limits = Limits { read_time: Duration::from_secs(2), ..Limits::default() };
    let server = Running::with(limits);
    // The answer is larger than the kernel buffers.
    server.agent.length.store(20_000_000, Ordering::SeqCst);
    let mut slow = connect(server.address);
    slow.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    let mut part = [0; 1000];
    slow.read_exact(&mut part).unwrap();
    let begin = Instant::now();
    assert_eq!(get(server.address, "/healthz").status, 200);
    let mut read = part.len();
    // The client continues to read a little at a time.
    while begin.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(100));
        read += slow.read(&mut part).unwrap();
    }
    let rest = until_closed(&mut slow).len();
    assert!(read + rest < 20_000_000, "the slow reader got the whole answer");
}

#[test]
fn unread_answers_are_limited_and_the_slowest_reader_is_closed() {
    let limits = Limits { unread_bytes: 25_000_000, ..Limits::default() };
    let server = Running::with(limits);
    server.agent.length.store(20_000_000, Ordering::SeqCst);
    let mut slow = connect(server.address);
    slow.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    slow.read_exact(&mut [0; 100]).unwrap();
    let at_once = get(server.address, "/metrics");
    assert_eq!((at_once.status, at_once.header("retry-after")), (503, "1"));
    thread::sleep(Duration::from_secs(1));
    let later = get(server.address, "/metrics");
    assert_eq!((later.status, later.body.len()), (200, 20_000_000));
    assert!(until_closed(&mut slow).len() < 20_000_000, "the slow reader was closed");
}

#[test]
fn scrapes_beyond_the_limit_wait_a_moment_and_get_503() {
    let server = Running::plain();
    server.agent.hold();
    let limits = Limits::default();
    let mut held: Vec<_> = (0..limits.scrapes).map(|_| connect(server.address)).collect();
    for stream in &mut held {
        stream.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    }
    let scrapes = || server.agent.scrapes.load(Ordering::SeqCst);
    until("the maximum number of scrapes", || scrapes() == limits.scrapes);
    let begin = Instant::now();
    let refused = get(server.address, "/metrics");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    let took = begin.elapsed().as_secs_f64();
    assert!((0.9..4.0).contains(&took), "after {took} s");
    assert_eq!(get(server.address, "/healthz").status, 200, "other pages do not count against the limit");
    let mut waiting = connect(server.address);
    waiting.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    thread::sleep(Duration::from_millis(200));
    server.agent.release();
    for mut stream in held.into_iter().chain([waiting]) {
        assert_eq!(read_answer(&mut stream, false).unwrap().text(), LINE);
    }
    assert_eq!(scrapes(), limits.scrapes + 1);
}

#[test]
fn a_slow_scrape_gets_503() {
    let server = Running::with(Limits { answer_time: Duration::from_millis(300), ..Limits::default() });
    server.agent.hold();
    let answer = get(server.address, "/metrics");
    assert_eq!((answer.status, answer.text()), (503, "The answer takes too long.\n"));
}

#[test]
fn a_client_that_disconnects_frees_its_place() {
    let server = Running::with(Limits { connections: 2, ..Limits::default() });
    server.agent.hold();
    for _ in 0..2 {
        let mut stream = connect(server.address);
        stream.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    }
    assert_eq!(get(server.address, "/healthz").status, 200);
}

#[test]
fn the_server_stops_within_a_second_with_busy_clients() {
    let mut server = Running::plain();
    server.agent.length.store(20_000_000, Ordering::SeqCst);
    let mut slow = connect(server.address);
    slow.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    slow.read_exact(&mut [0; 100]).unwrap();
    let idle = connect(server.address);
    let mut kept = connect(server.address);
    exchange(&mut kept, &request("GET", "/healthz", &[])).unwrap();
    let mut begun = connect(server.address);
    begun.write_all(b"GET /").unwrap();
    server.agent.hold();
    let mut waiting = connect(server.address);
    waiting.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    until("the start of the second scrape", || server.agent.scrapes.load(Ordering::SeqCst) == 2);
    let took = server.stop();
    assert!(took < Duration::from_secs(1), "{took:?}");
    for mut stream in [slow, idle, kept, begun, waiting] {
        until_closed(&mut stream);
    }
    TcpStream::connect(server.address).unwrap_err();
}

#[test]
fn a_stopping_server_finishes_an_almost_complete_answer() {
    let mut server = Running::plain();
    server.agent.hold();
    let mut stream = connect(server.address);
    stream.write_all(request("GET", "/metrics", &[]).as_bytes()).unwrap();
    until("the start of the scrape", || server.agent.scrapes.load(Ordering::SeqCst) == 1);
    let agent = std::sync::Arc::clone(&server.agent);
    let release = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        agent.release();
    });
    let took = server.stop();
    assert_eq!(read_answer(&mut stream, false).unwrap().text(), LINE);
    assert!(took < Duration::from_millis(450), "{took:?}");
    release.join().unwrap();
}
