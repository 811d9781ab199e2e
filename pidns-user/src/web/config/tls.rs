//! `tls_server_config`: makes the configuration of rustls.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{
    client_auth::{ClientAuth, verifier},
    file::{ConfigFault, TlsSection, Value},
    files::Files,
    pem::{certificates, content, private_key, set},
};

/// Returns `None` if the section sets nothing, like the toolkit.
pub(super) fn server_config(
    section: &TlsSection,
    folder: &Path,
    files: &mut Files,
) -> Result<Option<ServerConfig>, ConfigFault> {
    let policy = ClientAuth::of_file(section)?;
    if !is_asked_for(section) {
        return Ok(None);
    }
    let (cert, cert_place) = content("cert", &section.cert, "cert_file", &section.cert_file, folder, files)?
        .ok_or_else(|| {
            ConfigFault::file("tls_server_config needs cert_file (or cert): the server's certificate")
        })?;
    let (key, key_place) = content("key", &section.key, "key_file", &section.key_file, folder, files)?
        .ok_or_else(|| {
            ConfigFault::file("tls_server_config needs key_file (or key): the key of the certificate")
        })?;
    let chain = certificates(&cert).map_err(|error| cert_place.wrong(&error))?;
    let key = private_key(&key).map_err(|error| key_place.wrong(error))?;

    let provider = Arc::new(provider(section)?);
    let client_ca =
        content("client_ca", &section.client_ca, "client_ca_file", &section.client_ca_file, folder, files)?;
    let client_ca = match client_ca {
        Some((pem, place)) => Some((certificates(&pem).map_err(|error| place.wrong(&error))?, place)),
        None => None,
    };
    let verifier: Arc<dyn ClientCertVerifier> = verifier(policy, section, client_ca, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(section)?)
        .map_err(|_| {
            ConfigFault::file(
                "cipher_suites has no suite for the TLS versions between min_version and max_version",
            )
        })?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                cert_place.wrong(format!("the key ({}) is not the key of this certificate", key_place.name))
            }
            error => cert_place.wrong(format!("the certificate and its key cannot be used: {error}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = section.prefer_server_cipher_suites.unwrap_or(true);
    // Without resumption, a returning client is checked against the current configuration, and no sessions need memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(config))
}

fn is_asked_for(section: &TlsSection) -> bool {
    [
        &section.cert,
        &section.key,
        &section.cert_file,
        &section.key_file,
        &section.client_ca,
        &section.client_ca_file,
        &section.client_auth_type,
    ]
    .into_iter()
    .any(|value| set(value).is_some())
}

fn versions(section: &TlsSection) -> Result<Vec<&'static SupportedProtocolVersion>, ConfigFault> {
    const KNOWN: [(&str, &SupportedProtocolVersion); 2] = [("TLS12", &TLS12), ("TLS13", &TLS13)];
    let find = |name, value: &Value, default: usize| {
        let Some(value) = set(value) else { return Ok(default) };
        let text = value.value.as_str();
        let known = KNOWN.iter().position(|(known, _)| *known == text);
        known.ok_or_else(|| match text {
            "TLS10" | "TLS11" => ConfigFault::at(
                value,
                format!("{name}: rustls has no {text}, which is not safe; use TLS12 or TLS13"),
            ),
            _ => ConfigFault::at(value, format!("{name}: {text:?} is not a TLS version; use TLS12 or TLS13")),
        })
    };
    let min = find("min_version", &section.min_version, 0)?;
    let max = find("max_version", &section.max_version, 1)?;
    match &section.min_version {
        Some(value) if min > max => Err(ConfigFault::at(value, "min_version is above max_version")),
        _ => Ok(KNOWN[min..=max].iter().map(|(_, version)| *version).collect()),
    }
}

/// ring's cryptography with the requested cipher suites and curves, by Go's names.
fn provider(section: &TlsSection) -> Result<CryptoProvider, ConfigFault> {
    let mut provider = ring::default_provider();
    if let Some(wanted) = section.cipher_suites.as_ref().filter(|wanted| !wanted.is_empty()) {
        let known = |suite: &SupportedCipherSuite| go_name(suite);
        // As in Go, the list only applies to TLS 1.2. The suites of TLS 1.3 are always enabled.
        let (mut suites, old): (Vec<_>, Vec<_>) =
            provider.cipher_suites.iter().partition(|suite| matches!(suite, SupportedCipherSuite::Tls13(_)));
        for name in wanted {
            if suites.iter().any(|suite| known(suite) == name.value) {
                continue;
            }
            let Some(suite) = old.iter().find(|suite| known(suite) == name.value) else {
                let names: Vec<_> = old.iter().map(known).collect();
                let message =
                    format!("cipher_suites: rustls has no {:?}; it has {}", name.value, names.join(", "));
                return Err(ConfigFault::at(name, message));
            };
            suites.push(*suite);
        }
        provider.cipher_suites = suites;
    }
    if let Some(wanted) = section.curve_preferences.as_ref().filter(|wanted| !wanted.is_empty()) {
        let known = [
            ("X25519", ring::kx_group::X25519),
            ("CurveP256", ring::kx_group::SECP256R1),
            ("CurveP384", ring::kx_group::SECP384R1),
        ];
        provider.kx_groups = Vec::new();
        for name in wanted {
            let Some((_, group)) = known.iter().find(|(known, _)| *known == name.value) else {
                let message = format!(
                    "curve_preferences: rustls has no {:?}; use X25519, CurveP256 or CurveP384",
                    name.value
                );
                return Err(ConfigFault::at(name, message));
            };
            provider.kx_groups.push(*group);
        }
    }
    Ok(provider)
}

/// rustls names suites of TLS 1.3 `TLS13_…`, Go names them `TLS_…`.
fn go_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}
