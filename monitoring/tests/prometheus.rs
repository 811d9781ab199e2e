//! Runs a real Prometheus against a small metrics server.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    thread,
    time::Duration,
};

use pidns_monitoring::{Error, Job, Prometheus, Range, Setup};

/// Serves this text until the test program ends. Returns HOST:PORT.
fn serve(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
        }
    });
    address
}

#[test]
fn a_prometheus_scrapes_evaluates_rules_and_answers() {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    let rules = folder.path().join("rules.yml");
    std::fs::write(&rules, "groups: [{name: g, rules: [{record: 'instance:x:double', expr: 2 * x}]}]")
        .expect("rules");
    let target = serve("# TYPE x gauge\nx{pod=\"p\"} 21\n");
    let setup = Setup {
        jobs: vec![Job::new("job", [target.clone()])],
        rules: vec![rules],
        interval: Duration::from_millis(200),
        ..Setup::in_folder(folder.path())
    };
    let prometheus = Prometheus::start(&setup).expect("start Prometheus");
    let series = prometheus.wait_for("instance:x:double", Duration::from_secs(20)).expect("a result");
    assert_eq!(series.len(), 1);
    assert_eq!(series[0].last(), Some(42.0));
    assert_eq!((series[0].label("job"), series[0].label("instance")), ("job", target.as_str()));
    assert_eq!(series[0].label("pod"), "p", "a metric's own label stays");
    let end = series[0].points[0].0;
    let range = Range { start: end, end, step: 1.0 };
    let over_time = prometheus.query_range("x", &range).expect("a range");
    assert_eq!(over_time.len(), 1);
    assert_eq!(prometheus.rule_errors().expect("rules"), [""; 0]);
    assert!(prometheus.label_values("job").expect("values").contains(&"job".to_owned()));
}

#[test]
fn an_invalid_query_fails_with_the_error_of_prometheus() {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    let prometheus = Prometheus::start(&Setup::in_folder(folder.path())).expect("start Prometheus");
    let error = prometheus.query("sum(", None).expect_err("not PromQL");
    assert!(matches!(&error, Error::Query { query, .. } if query == "sum("), "{error}");
    assert!(error.to_string().contains("parse error"), "{error}");
    let error = prometheus.wait_for("absent_metric", Duration::from_millis(10)).expect_err("no such metric");
    assert!(matches!(error, Error::NoResult { .. }), "{error}");
}

#[test]
fn a_failed_start_reports_the_reason() {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    let rules = folder.path().join("broken.yml");
    std::fs::write(&rules, "groups: 7").expect("rules");
    let setup = Setup { rules: vec![rules], ..Setup::in_folder(folder.path()) };
    let error = Prometheus::start(&setup).expect_err("the rules are broken");
    assert!(matches!(error, Error::EndedEarly { .. }) && error.to_string().contains("broken.yml"), "{error}");
}

#[test]
fn a_dropped_prometheus_has_ended() {
    let folder = tempfile::tempdir().expect("create a temporary directory");
    let prometheus = Prometheus::start(&Setup::in_folder(folder.path())).expect("start Prometheus");
    let process = format!("/proc/{}", prometheus.pid());
    assert!(Path::new(&process).exists());
    drop(prometheus);
    assert!(!Path::new(&process).exists(), "the process has been reaped");
}
