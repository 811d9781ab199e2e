//! TLS, and client certificates.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use pidns_user::web::Limits;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::{
    client::{Answer, connect, exchange, request, until_closed},
    fixture::{Folder, LINE, Running},
};

/// A certificate authority that signs certificates for servers and clients.
pub(crate) struct Authority {
    pub(crate) cert: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key in PEM.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        Self { cert, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn server(&self) -> Pair {
        self.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth, vec![])
    }

    pub(crate) fn client(&self, name: &str, sans: Vec<SanType>) -> Pair {
        self.sign(name, ExtendedKeyUsagePurpose::ClientAuth, sans)
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, sans: Vec<SanType>) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![usage];
        params.subject_alt_names.extend(sans);
        let key = KeyPair::generate().expect("a key");
        Pair {
            cert: params.signed_by(&key, &self.issuer).expect("a certificate").pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A directory with a server's certificate, the authority's, and a configuration with these additional lines.
pub(crate) fn folder(authority: &Authority, lines: &str) -> Folder {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    let folder = Folder::with(&format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{lines}"
    ));
    let server = authority.server();
    folder.write("server.crt", &server.cert);
    folder.write("server.key", &server.key);
    folder.write("ca.crt", &authority.cert.pem());
    folder
}

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts the authority. It may have a certificate, and may be limited to one TLS version.
pub(crate) fn stream(
    address: SocketAddr,
    authority: &Authority,
    client: Option<&Pair>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Stream {
    let mut roots = RootCertStore::empty();
    roots.add(authority.cert.der().clone()).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some(Pair { cert, key }) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
            )
            .expect("a certificate and its key"),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    StreamOwned::new(connection, connect(address))
}

fn scrape(
    address: SocketAddr,
    authority: &Authority,
    client: Option<&Pair>,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<Answer> {
    exchange(&mut stream(address, authority, client, version), &request("GET", "/metrics", &[]))
}

#[test]
fn metrics_are_served_over_tls_1_2_and_1_3_and_h2_falls_back() {
    let authority = Authority::new();
    let server = Running::configured(&folder(&authority, ""));
    for version in [&TLS12, &TLS13] {
        let mut stream = stream(server.address, &authority, None, version);
        for _ in 0..3 {
            assert_eq!(exchange(&mut stream, &request("GET", "/metrics", &[])).unwrap().text(), LINE);
        }
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[test]
fn a_version_that_is_not_allowed_is_refused() {
    let authority = Authority::new();
    let server = Running::configured(&folder(&authority, "min_version: TLS13"));
    scrape(server.address, &authority, None, &TLS12).unwrap_err();
    assert_eq!(scrape(server.address, &authority, None, &TLS13).unwrap().status, 200);
}

#[test]
fn the_server_uses_the_configured_suite_and_curve() {
    let authority = Authority::new();
    let lines =
        "cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\ncurve_preferences: [CurveP384]";
    let server = Running::configured(&folder(&authority, lines));
    let mut stream = stream(server.address, &authority, None, &TLS12);
    assert_eq!(exchange(&mut stream, &request("GET", "/metrics", &[])).unwrap().status, 200);
    let suite = stream.conn.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(format!("{suite:?}"), "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    let curve = stream.conn.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(format!("{curve:?}"), "secp384r1");
}

#[test]
fn plain_http_to_a_tls_port_gets_an_explanation() {
    let authority = Authority::new();
    let server = Running::configured(&folder(&authority, ""));
    let mut stream = connect(server.address);
    let answer = exchange(&mut stream, &request("GET", "/metrics", &[])).unwrap();
    assert_eq!((answer.status, answer.text()), (400, "This port speaks HTTPS: use https:// in the URL."));
    assert_eq!(until_closed(&mut stream), b"");
}

#[test]
fn each_policy_admits_the_right_clients() {
    let authority = Authority::new();
    let known = authority.client("scraper", vec![]);
    let foreign = Authority::new().client("scraper", vec![]);
    for (lines, is_let_in) in [
        ("client_auth_type: NoClientCert", [true, true, true]),
        ("client_auth_type: RequestClientCert", [true, true, true]),
        ("client_auth_type: RequireAnyClientCert", [false, true, true]),
        ("client_auth_type: VerifyClientCertIfGiven\nclient_ca_file: ca.crt", [true, false, true]),
        ("client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: ca.crt", [false, false, true]),
    ] {
        let server = Running::configured(&folder(&authority, lines));
        for version in [&TLS12, &TLS13] {
            let seen = [None, Some(&foreign), Some(&known)]
                .map(|client| scrape(server.address, &authority, client, version).is_ok());
            assert_eq!(seen, is_let_in, "{lines} {version:?}: no certificate, a foreign one, a known one");
        }
    }
}

#[test]
fn only_certificates_with_an_allowed_name_are_admitted() {
    let authority = Authority::new();
    let lines = "client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: ca.crt\n\
                 client_allowed_sans:\n- prometheus\n- 192.0.2.7\n- spiffe://a/b";
    let server = Running::configured(&folder(&authority, lines));
    let ip = SanType::IpAddress([192, 0, 2, 7].into());
    let uri = SanType::URI("spiffe://a/b".try_into().unwrap());
    for (name, sans, is_let_in) in [
        ("prometheus", vec![], true),
        ("other", vec![ip], true),
        ("other", vec![uri], true),
        ("other", vec![], false),
        ("prometheus.example", vec![], false),
    ] {
        let client = authority.client(name, sans);
        for version in [&TLS12, &TLS13] {
            let seen = scrape(server.address, &authority, Some(&client), version);
            assert_eq!(seen.is_ok(), is_let_in, "{name}: {seen:?}");
        }
    }
}

#[test]
fn a_handshake_that_never_begins_or_never_ends_is_cut_off() {
    let authority = Authority::new();
    let limits = Limits { handshake_time: Duration::from_millis(500), ..Limits::default() };
    let server = Running::start(Some(folder(&authority, "").path("web.yml")), limits);
    for first in [&b""[..], &[0x16, 0x03, 0x01, 0x02][..]] {
        let mut stream = connect(server.address);
        stream.write_all(first).unwrap();
        let begin = Instant::now();
        let mut rest = [0; 16];
        assert_eq!(stream.read(&mut rest).unwrap_or(0), 0);
        let took = begin.elapsed().as_secs_f64();
        assert!((0.4..4.0).contains(&took), "{took} s after {first:?}");
    }
}
