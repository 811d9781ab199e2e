//! Tests of each field of the file, and of each error with its line.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Instant,
};

use rcgen::{CertificateParams, CertifiedKey, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::{Config, Files, client_auth};

const HASH: &str = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";

/// A directory with a certificate, its key, another key, and a web.yml.
struct Folder {
    folder: TempDir,
    cert: String,
    key: String,
}

impl Folder {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("server.crt", &cert);
        write("server.key", &key);
        write("other.key", &KeyPair::generate().unwrap().serialize_pem());
        write("empty", "");
        Self { folder, cert, key }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    fn read(&self, text: &str) -> Result<Config, String> {
        fs::write(self.path(), text).unwrap();
        Config::read(&self.path(), &mut Files::default(), Instant::now())
            .map_err(|error| error.to_string().replace(&format!("{}/", self.folder.path().display()), ""))
    }

    fn error(&self, text: &str) -> String {
        self.read(text).expect_err(text)
    }

    /// Reads a configuration with a certificate, and with these additional lines from line 4 on.
    fn tls(&self, lines: &str) -> Result<Config, String> {
        let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
        self.read(&format!("tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{lines}"))
    }
}

fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("    {line}\n")).collect()
}

#[test]
fn an_empty_file_means_plain_http_without_passwords() {
    for text in ["", "# nothing\n", "tls_server_config:\n", "tls_server_config: {}\nbasic_auth_users: {}\n"] {
        let config = Folder::new().read(text).unwrap();
        assert!(config.tls.is_none() && config.users.is_none() && config.rate.is_none(), "{text}");
        assert_eq!(config.headers, []);
    }
}

#[test]
fn certificate_and_key_come_from_files_or_from_the_configuration() {
    let folder = Folder::new();
    let config = folder.tls("").unwrap().tls.unwrap();
    assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    assert!(config.ignore_client_order);
    let (cert, key) = (indented(&folder.cert), indented(&folder.key));
    let inline = format!("tls_server_config:\n  cert: |\n{cert}  key: |\n{key}");
    assert!(folder.read(&inline).unwrap().tls.is_some());
    let mixed = format!("tls_server_config:\n  cert_file: server.crt\n  key: |\n{key}");
    assert!(folder.read(&mixed).unwrap().tls.is_some());
    let both = folder.error(&format!("{inline}  cert_file: server.crt\n"));
    let line = inline.lines().count() + 1;
    assert_eq!(both, format!("web.yml:{line}: cert and cert_file are both given; keep one of them"));
}

#[test]
fn an_unusable_certificate_or_key_is_named_with_its_line() {
    let folder = Folder::new();
    fs::write(folder.folder.path().join("locked.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n")
        .unwrap();
    for (lines, expected) in [
        ("cert_file: server.crt", "web.yml: tls_server_config needs key_file (or key)"),
        ("key_file: server.key", "web.yml: tls_server_config needs cert_file (or cert)"),
        ("cert_file: ''\n  key_file: server.key", "web.yml: tls_server_config needs cert_file (or cert)"),
        (
            "cert_file: nowhere\n  key_file: server.key",
            "web.yml:2: cert_file nowhere: cannot read it: No such file",
        ),
        (
            "cert_file: server.crt\n  key_file: nowhere",
            "web.yml:3: key_file nowhere: cannot read it: No such file",
        ),
        (
            "cert_file: .\n  key_file: server.key",
            "web.yml:2: cert_file .: cannot read it: it is not a regular file",
        ),
        (
            "cert_file: server.crt\n  key_file: other.key",
            "web.yml:2: cert_file server.crt: the key (key_file other.key) is not",
        ),
        (
            "cert_file: empty\n  key_file: server.key",
            "web.yml:2: cert_file empty: it contains no certificate in PEM",
        ),
        (
            "cert_file: server.crt\n  key_file: empty",
            "web.yml:3: key_file empty: it contains no private key in PEM",
        ),
        (
            "cert_file: server.crt\n  key_file: locked.key",
            "web.yml:3: key_file locked.key: the key is encrypted",
        ),
    ] {
        let error = folder.error(&format!("tls_server_config:\n  {lines}\n"));
        assert!(error.starts_with(expected), "{lines}: {error}");
    }
}

#[test]
fn all_five_policies_for_clients_are_supported() {
    let folder = Folder::new();
    for (policy, ca, is_asked, is_required) in [
        ("NoClientCert", "", false, false),
        ("RequestClientCert", "", true, false),
        ("RequireAnyClientCert", "", true, true),
        ("RequireClientCert", "", true, true),
        ("VerifyClientCertIfGiven", "client_ca_file: server.crt", true, false),
        ("RequireAndVerifyClientCert", "client_ca_file: server.crt", true, true),
    ] {
        let file = super::file::parse(&format!("tls_server_config:\n  client_auth_type: {policy}\n  {ca}\n"))
            .unwrap();
        let section = file.tls_server_config.unwrap();
        let provider = rustls::crypto::ring::default_provider().into();
        let ca = (!ca.is_empty()).then(|| folder.ca());
        let policy = client_auth::ClientAuth::of_file(&section).unwrap();
        let verifier = client_auth::verifier(policy, &section, ca, &provider).unwrap();
        assert_eq!(verifier.offer_client_auth(), is_asked, "{policy:?}");
        assert_eq!(is_asked && verifier.client_auth_mandatory(), is_required, "{policy:?}");
    }
}

impl Folder {
    fn ca(&self) -> (Vec<CertificateDer<'static>>, super::pem::PemOrigin) {
        use rustls::pki_types::pem::PemObject as _;
        let place = super::pem::PemOrigin::new("client_ca_file");
        (vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()], place)
    }
}

#[test]
fn a_policy_for_clients_that_cannot_work_is_refused() {
    let folder = Folder::new();
    for (lines, expected) in [
        (
            "client_auth_type: x",
            "web.yml:4: client_auth_type: \"x\" is not a policy; use NoClientCert, RequestClientCert",
        ),
        ("client_auth_type: RequireAndVerifyClientCert", "web.yml: client_auth_type needs client_ca_file"),
        ("client_auth_type: VerifyClientCertIfGiven", "web.yml: client_auth_type needs client_ca_file"),
        (
            "client_ca_file: server.crt",
            "web.yml:4: client_ca_file server.crt: has no effect without client_auth_type",
        ),
        ("client_allowed_sans: [a]", "web.yml:4: client_allowed_sans has no effect without client_auth_type"),
        (
            "client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: empty",
            "web.yml:5: client_ca_file empty: it contains no certificate",
        ),
    ] {
        let error = folder.tls(lines).expect_err(lines);
        assert!(error.starts_with(expected), "{lines}: {error}");
    }
}

#[test]
fn names_of_a_certificate_are_the_same_as_in_go() {
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.subject_alt_names.extend([
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::Rfc822Name("a@example".try_into().unwrap()),
        SanType::URI("spiffe://a/b".try_into().unwrap()),
    ]);
    let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let names = client_auth::names_of(cert.der()).unwrap();
    assert_eq!(names, ["a.example", "127.0.0.1", "2001:db8::1", "a@example", "spiffe://a/b"]);
    let none = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(client_auth::names_of(none.der()).unwrap(), [""; 0]);
    client_auth::names_of(&CertificateDer::from(vec![1, 2, 3])).unwrap_err();
}

#[test]
fn versions_suites_and_curves_have_the_same_names_as_in_go() {
    let folder = Folder::new();
    let config = folder
        .tls(
            "min_version: TLS12\nmax_version: TLS13\nprefer_server_cipher_suites: false\n\
             cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]\n\
             curve_preferences: [CurveP384, X25519, CurveP256]",
        )
        .unwrap()
        .tls
        .unwrap();
    assert!(!config.ignore_client_order);
    let provider = config.crypto_provider();
    let suites: Vec<_> = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    assert_eq!(
        suites,
        [
            "TLS13_AES_256_GCM_SHA384",
            "TLS13_AES_128_GCM_SHA256",
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
        ]
    );
    let curves: Vec<_> = provider.kx_groups.iter().map(|group| format!("{:?}", group.name())).collect();
    assert_eq!(curves, ["secp384r1", "X25519", "secp256r1"]);
}

#[test]
fn settings_without_support_in_rustls_are_refused_with_an_alternative() {
    let folder = Folder::new();
    for (lines, expected) in [
        (
            "min_version: TLS10",
            "web.yml:4: min_version: rustls has no TLS10, which is not safe; use TLS12 or TLS13",
        ),
        (
            "max_version: TLS11",
            "web.yml:4: max_version: rustls has no TLS11, which is not safe; use TLS12 or TLS13",
        ),
        (
            "min_version: TLS111",
            "web.yml:4: min_version: \"TLS111\" is not a TLS version; use TLS12 or TLS13",
        ),
        ("min_version: TLS13\nmax_version: TLS12", "web.yml:4: min_version is above max_version"),
        (
            "cipher_suites:\n- TLS_AES_128_GCM_SHA256\n- TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
            "web.yml:6: cipher_suites: rustls has no \"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\"; it has TLS_ECDHE_ECDSA_",
        ),
        (
            "curve_preferences:\n- X25519\n- CurveP521",
            "web.yml:6: curve_preferences: rustls has no \"CurveP521\"; use X25519, CurveP256 or CurveP384",
        ),
        (
            "max_version: TLS12\ncipher_suites: [TLS_AES_128_GCM_SHA256]",
            "web.yml: cipher_suites has no suite for the TLS versions between min_version and max_version",
        ),
    ] {
        let error = folder.tls(lines).expect_err(lines);
        assert!(error.starts_with(expected), "{lines}: {error}");
    }
}

#[test]
fn only_the_toolkits_headers_can_be_set() {
    let folder = Folder::new();
    let config = folder.read(
        "http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: 1\n    \
         X-Content-Type-Options: nosniff\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n    \
         Content-Security-Policy: \"default-src 'self'\"\n",
    );
    let headers = config.unwrap().headers;
    let shown: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    assert_eq!(
        shown,
        [
            "content-security-policy: default-src 'self'",
            "strict-transport-security: max-age=31536000; includeSubDomains",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "x-xss-protection: 1"
        ]
    );
    for (line, expected) in [
        (
            "Content-Type: foo",
            "web.yml:3: the header \"Content-Type\" cannot be set; these can: Content-Security",
        ),
        (
            "X-Frame-Options: foo",
            "web.yml:3: X-Frame-Options cannot be \"foo\"; it can be deny or sameorigin",
        ),
        (
            "X-Content-Type-Options: sniff",
            "web.yml:3: X-Content-Type-Options cannot be \"sniff\"; it can be nosniff",
        ),
        (
            "X-XSS-Protection: \"a\\nb\"",
            "web.yml:3: X-XSS-Protection has characters that a header cannot have",
        ),
    ] {
        let error = folder.error(&format!("http_server_config:\n  headers:\n    {line}\n"));
        assert!(error.starts_with(expected), "{line}: {error}");
    }
}

#[test]
fn a_password_that_is_not_a_bcrypt_hash_is_refused_without_showing_it() {
    let folder = Folder::new();
    let users = folder
        .read(&format!("basic_auth_users:\n  alice: {HASH}\n  '7': \"{HASH}\"\n"))
        .unwrap()
        .users
        .unwrap();
    assert_eq!(users.hash("alice"), (HASH, true));
    assert_eq!(users.hash("7"), (HASH, true));
    let (decoy, is_known) = users.hash("bob");
    assert!(!is_known && decoy.starts_with("$2y$10$"));
    bcrypt::verify("x", decoy).expect("the decoy is a hash");
    let error = folder.error("basic_auth_users:\n  john: secret\n");
    assert!(
        error.starts_with("web.yml:2: the password of \"john\" is not a bcrypt hash; make one with"),
        "{error}"
    );
    assert!(!error.contains("secret"), "{error}");
    let error = folder.error(&format!("basic_auth_users:\n  john: {}\n", HASH.replace("$10$", "$18$")));
    assert!(
        error.starts_with("web.yml:2: the password of \"john\" has cost 18; it can be 4 to 15"),
        "{error}"
    );
}

#[test]
fn a_rate_limit_has_an_interval_and_a_burst() {
    let folder = Folder::new();
    assert!(folder.read("rate_limit:\n  interval: \"1s\"\n  burst: 20\n").unwrap().rate.is_some());
    assert!(folder.read("rate_limit:\n  interval: 0\n  burst: 0\n").unwrap().rate.is_none());
    for (lines, expected) in [
        (
            "interval: soon\n  burst: 1",
            "web.yml:2: interval \"soon\" is not a duration; write 500ms, 1s or 1m30s",
        ),
        ("interval: 1s\n  burst: 0", "web.yml:3: burst 0 refuses every request"),
        ("interval: 1s", "web.yml:2: an interval without a burst refuses every request"),
        ("interval: 1s\n  burst: -1", "web.yml:3: "),
    ] {
        let error = folder.error(&format!("rate_limit:\n  {lines}\n"));
        assert!(error.starts_with(expected), "{lines}: {error}");
    }
}

#[test]
fn an_unknown_field_is_named_with_its_line() {
    let folder = Folder::new();
    for (text, line, field) in [
        ("tls_server_config:\n  cert_filse: server.crt\n", 2, "cert_filse"),
        ("http_server_config:\n  http2: false\n  http3: true\n", 3, "http3"),
        ("# one\n\nbasic_auth: {}\n", 3, "basic_auth"),
        ("rate_limit:\n  rate: 1\n", 2, "rate"),
    ] {
        let error = folder.error(text);
        assert!(error.starts_with(&format!("web.yml:{line}: ")), "{text}: {error}");
        assert!(error.contains(field), "{text}: {error}");
        assert_eq!((error.lines().count(), error.contains(" at line ")), (1, false), "{error}");
    }
}

#[test]
fn an_invalid_configuration_is_refused_with_the_line() {
    let folder = Folder::new();
    for (text, start) in [
        ("hWkNKCp3fvIx3jKnsaBI\nTuEjdwNS8A2vYdFbiKqr\n", "web.yml:1: "),
        ("tls_server_config: [1]\n", "web.yml:1: "),
        ("a: b: c\n", "web.yml:1: "),
        ("http_server_config:\n  http2: maybe\n", "web.yml:2: "),
        ("http_server_config:\n  http2: true\n  http2: true\n", "web.yml:3: "),
        ("tls_server_config:\n  cert_file: [a]\n", "web.yml:2: "),
    ] {
        let error = folder.error(text);
        assert!(error.starts_with(start), "{text}: {error}");
    }
    fs::write(folder.path(), [0xff, 0xfe, 0xff]).unwrap();
    let error = Config::read(&folder.path(), &mut Files::default(), Instant::now()).unwrap_err().to_string();
    assert!(error.ends_with("web.yml: it is not UTF-8"), "{error}");
    let missing = folder.folder.path().join("none.yml");
    let error = Config::read(&missing, &mut Files::default(), Instant::now()).unwrap_err().to_string();
    assert!(error.contains("none.yml: it cannot be read: No such file"), "{error}");
}

#[test]
fn a_key_is_not_shown_in_an_error() {
    let folder = Folder::new();
    let error = folder.error(&format!("tls_server_config:\n  key: |\n{}  kye: x\n", indented(&folder.key)));
    let secret = folder.key.lines().nth(1).unwrap();
    assert!(error.contains("kye") && !error.contains(secret), "{error}");
}
