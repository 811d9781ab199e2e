//! The configuration file (`--web.config.file`), in the format of the Prometheus exporter toolkit. It is stricter than
//! the toolkit in some points: docs/web.md lists them.

use std::{path::Path, sync::Arc, time::Instant};

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;

use super::{ConfigError, throttle::TokenBucket};

mod client_auth;
mod file;
mod files;
mod headers;
mod pem;
mod rate;
mod tls;
mod users;

pub(super) use files::Files;
pub(super) use users::Users;

/// A checked configuration.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// `None` for plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Headers of all answers.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` if requests need no password.
    pub(super) users: Option<Arc<Users>>,
    /// `None` if requests are not limited.
    pub(super) rate: Option<TokenBucket>,
}

impl Config {
    /// Reads the file and all files that it names. Records these in `files`.
    pub(super) fn read(path: &Path, files: &mut Files, now: Instant) -> Result<Self, ConfigError> {
        let text = files
            .read(path)
            .map_err(|error| ConfigError::new(path, format_args!("it cannot be read: {error}")))?;
        let text = String::from_utf8(text).map_err(|_| ConfigError::new(path, "it is not UTF-8"))?;
        Self::of_text(&text, path, files, now).map_err(|wrong| ConfigError {
            file: path.to_owned(),
            line: wrong.line,
            message: wrong.message,
        })
    }

    fn of_text(text: &str, path: &Path, files: &mut Files, now: Instant) -> Result<Self, file::ConfigFault> {
        let file = file::parse(text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            tls: file
                .tls_server_config
                .as_ref()
                .map_or(Ok(None), |section| tls::server_config(section, folder, files))?
                .map(Arc::new),
            headers: headers::headers(&file.http_server_config.unwrap_or_default())?,
            users: Users::of_file(file.basic_auth_users.unwrap_or_default())?.map(Arc::new),
            rate: rate::bucket(&file.rate_limit.unwrap_or_default(), now)?,
        })
    }
}

#[cfg(test)]
mod tests;
