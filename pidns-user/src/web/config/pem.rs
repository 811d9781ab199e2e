//! Certificates and keys in PEM: in the configuration file, or in files that it names.

use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use serde_saphyr::Spanned;

use super::{
    file::{ConfigFault, Value},
    files::Files,
};

/// Returns a value that is present and not empty.
pub(super) fn set(value: &Value) -> Option<&Spanned<String>> {
    value.as_ref().filter(|value| !value.value.is_empty())
}

/// The origin of a PEM text, for errors.
pub(super) struct PemOrigin {
    pub(super) name: String,
    line: Option<u64>,
}

impl PemOrigin {
    #[cfg(test)]
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), line: None }
    }

    pub(super) fn wrong(&self, message: impl AsRef<str>) -> ConfigFault {
        ConfigFault { line: self.line, message: format!("{}: {}", self.name, message.as_ref()) }
    }
}

/// Returns the PEM of a pair of fields: the text, or the content of a file relative to the configuration.
pub(super) fn content(
    inline_name: &str,
    inline: &Value,
    file_name: &str,
    file: &Value,
    folder: &Path,
    files: &mut Files,
) -> Result<Option<(Vec<u8>, PemOrigin)>, ConfigFault> {
    let place = |value: &Spanned<String>, name| PemOrigin { name, line: ConfigFault::at(value, "").line };
    match (set(inline), set(file)) {
        (Some(_), Some(file)) => Err(ConfigFault::at(
            file,
            format!("{inline_name} and {file_name} are both given; keep one of them"),
        )),
        (Some(inline), None) => {
            Ok(Some((inline.value.clone().into_bytes(), place(inline, inline_name.to_owned()))))
        }
        (None, Some(file)) => {
            let path = folder.join(&file.value);
            let place = place(file, format!("{file_name} {}", path.display()));
            let content =
                files.read(&path).map_err(|error| place.wrong(format!("cannot read it: {error}")))?;
            Ok(Some((content, place)))
        }
        (None, None) => Ok(None),
    }
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err("it contains no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("it is not valid PEM: {error}")),
    }
}

pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        _ if pem.windows(9).any(|part| part == b"ENCRYPTED") => {
            "the key is encrypted; store it without a passphrase: `openssl pkey -in KEY -out NEW`"
        }
        pem::Error::NoItemsFound => "it contains no private key in PEM (-----BEGIN PRIVATE KEY-----)",
        _ => "it is not valid PEM",
    })
}
