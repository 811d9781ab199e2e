//! The contents of each path.

use std::{io::Read as _, sync::atomic::Ordering};

use pidns_user::web::{Limits, Server, WebError};

use crate::{
    client::{connect, exchange, get, request, send},
    fixture::{LINE, Running, options},
};

#[test]
fn the_landing_page_links_to_the_other_pages() {
    let server = Running::plain();
    let answer = get(server.address, "/");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
    for part in
        ["<title>pidns-trace</title>", "Version 0.1.0", "/metrics", "/status", "PID namespaces of this host"]
    {
        assert!(answer.text().contains(part), "{part} is not in {}", answer.text());
    }
}

#[test]
fn metrics_are_served_as_prometheus_text() {
    let server = Running::plain();
    let answer = get(server.address, "/metrics?debug=1");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.header("vary"), "Accept-Encoding");
    assert_eq!(answer.text(), LINE);
}

#[test]
fn state_is_served_as_text_and_json() {
    let server = Running::plain();
    for path in ["/healthz", "/readyz"] {
        let answer = get(server.address, path);
        assert_eq!((answer.status, answer.text()), (200, "ok\n"), "{path}");
    }
    let answer = get(server.address, "/status");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status["hooks"][0], "fork");
}

#[test]
fn a_failing_agent_answers_503_and_500_with_the_reason() {
    let server = Running::plain();
    *server.agent.ailment.lock().unwrap() = Some("no ring".to_owned());
    for (path, status, text) in [
        ("/healthz", 503, "no ring\n"),
        ("/readyz", 503, "not yet: no ring\n"),
        ("/metrics", 500, "cannot collect the metrics: no ring\n"),
    ] {
        let answer = get(server.address, path);
        assert_eq!((answer.status, answer.text()), (status, text), "{path}");
    }
}

#[test]
fn a_panic_while_collecting_gives_500_and_the_next_scrape_works() {
    let server = Running::plain();
    *server.agent.panics.lock().unwrap() = true;
    for _ in 0..Limits::default().scrapes * 2 {
        assert_eq!(get(server.address, "/metrics").status, 500);
    }
    *server.agent.panics.lock().unwrap() = false;
    assert_eq!(get(server.address, "/metrics").status, 200);
}

#[test]
fn unknown_paths_get_404_and_other_methods_405() {
    let server = Running::plain();
    for path in ["/metrics/", "/favicon.ico", "//", "/../etc/passwd", "/metric"] {
        let answer = get(server.address, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text().contains("no page at this path"), "{}", answer.text());
    }
    for method in ["PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = send(server.address, &request(method, "/metrics", &[]));
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, HEAD"), "{method}");
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = Running::plain();
    let mut stream = connect(server.address);
    for path in ["/", "/metrics", "/status", "/healthz", "/nowhere"] {
        let get = exchange(&mut stream, &request("GET", path, &[])).unwrap();
        // A body would look like the start of the next answer.
        let head = exchange(&mut stream, &request("HEAD", path, &[])).unwrap();
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
}

#[test]
fn gzip_is_sent_to_clients_that_accept_it() {
    let server = Running::plain();
    server.agent.length.store(100_000, Ordering::SeqCst);
    let plain = get(server.address, "/metrics");
    assert_eq!((plain.header("content-encoding"), plain.body.len()), ("", 100_000));
    let gzip = send(server.address, &request("GET", "/metrics", &["Accept-Encoding: deflate, gzip"]));
    assert_eq!(gzip.header("content-encoding"), "gzip");
    assert!(gzip.body.len() < 10_000, "{} bytes", gzip.body.len());
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
}

#[test]
fn a_connection_serves_many_requests_and_closes_on_request() {
    let server = Running::plain();
    let mut stream = connect(server.address);
    for _ in 0..20 {
        assert_eq!(exchange(&mut stream, &request("GET", "/metrics", &[])).unwrap().text(), LINE);
    }
    let last = exchange(&mut stream, &request("GET", "/metrics", &["Connection: close"])).unwrap();
    assert_eq!((last.status, last.header("connection")), (200, "close"));
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let server = Running::plain();
    let mut stream = connect(server.address);
    let both = request("GET", "/metrics", &[]) + &request("GET", "/healthz", &[]);
    assert_eq!(exchange(&mut stream, &both).unwrap().text(), LINE);
    assert_eq!(crate::client::read_answer(&mut stream, false).unwrap().text(), "ok\n");
}

#[test]
fn a_port_in_use_is_an_error_with_a_remedy() {
    let server = Running::plain();
    let mut options = options(None, Limits::default());
    options.listen = vec![server.address];
    let error = Server::bind(options.clone()).unwrap_err();
    assert!(matches!(error, WebError::Listen { .. }));
    let text = error.to_string();
    assert!(text.contains(&server.address.to_string()) && text.contains("--web.listen-address"), "{text}");
    options.listen = Vec::new();
    assert!(matches!(Server::bind(options).unwrap_err(), WebError::NoAddress));
}

#[test]
fn a_server_listens_on_all_its_addresses_and_at_the_chosen_path() {
    let mut options = options(None, Limits::default());
    options.telemetry_path = "/pidns".to_owned();
    options.listen = vec![([127, 0, 0, 1], 0).into(), ([127, 0, 0, 2], 0).into()];
    let server = Server::bind(options).unwrap();
    let addresses = server.addresses().to_owned();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(server.run(std::sync::Arc::new(crate::fixture::Agent::default()), async {
            let _dropped = stopped.await;
        }))
    });
    for address in addresses {
        assert_eq!(get(address, "/pidns").text(), LINE);
        assert_eq!(get(address, "/metrics").status, 404);
    }
    drop(stop);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_bad_configuration_stops_the_start() {
    let folder = crate::fixture::Folder::with("tls_server_config:\n  cert_fil: a\n");
    let error =
        Server::bind(options(Some(folder.path("web.yml")), Limits::default())).unwrap_err().to_string();
    assert!(error.contains("web.yml:2: ") && error.contains("cert_fil"), "{error}");
}
