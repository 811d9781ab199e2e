//! The configuration file as written. serde-saphyr reads it: among the maintained YAML crates, it is the one that
//! reports the line of an error, gives each value its line, and limits the expansion of aliases.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

/// The file. It contains secrets, so it has no Debug. Fields and their meaning:
/// <https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) tls_server_config: Option<TlsSection>,
    pub(super) http_server_config: Option<HttpSection>,
    pub(super) rate_limit: Option<RateSection>,
    pub(super) basic_auth_users: Option<BTreeMap<String, Spanned<String>>>,
}

/// A value with its line.
pub(super) type Value = Option<Spanned<String>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsSection {
    pub(super) cert: Value,
    pub(super) key: Value,
    pub(super) client_ca: Value,
    pub(super) cert_file: Value,
    pub(super) key_file: Value,
    pub(super) client_auth_type: Value,
    pub(super) client_ca_file: Value,
    pub(super) client_allowed_sans: Option<Vec<Spanned<String>>>,
    pub(super) min_version: Value,
    pub(super) max_version: Value,
    pub(super) cipher_suites: Option<Vec<Spanned<String>>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpSection {
    /// Accepted without effect: clients agree on HTTP/1.1.
    #[serde(rename = "http2")]
    pub(super) _http2: Option<bool>,
    pub(super) headers: Option<BTreeMap<String, Spanned<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateSection {
    pub(super) interval: Value,
    pub(super) burst: Option<Spanned<u32>>,
}

/// An error in the file, with its line.
#[derive(Debug)]
pub(super) struct ConfigFault {
    pub(super) line: Option<u64>,
    pub(super) message: String,
}

impl ConfigFault {
    /// An error about the whole file.
    pub(super) fn file(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into() }
    }

    /// An error about a value.
    pub(super) fn at<T>(value: &Spanned<T>, message: impl Into<String>) -> Self {
        let line = value.referenced.line();
        Self { line: (line > 0).then_some(line), message: message.into() }
    }
}

/// Parses the text of the file. An empty file means no TLS and no passwords.
pub(super) fn parse(text: &str) -> Result<File, ConfigFault> {
    // Omit excerpts of the file, because they could show a key.
    let options = serde_saphyr::options! { with_snippet: false };
    let file: Option<File> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
        // Our message already begins with the line.
        let text = error.to_string();
        let message = text.split_once(" at line ").map_or(text.as_str(), |(message, _)| message);
        ConfigFault { line, message: message.to_owned() }
    })?;
    Ok(file.unwrap_or_default())
}
