//! `http_server_config`: headers for all answers.

use hyper::header::{HeaderName, HeaderValue};

use super::file::{ConfigFault, HttpSection};

/// The headers that the toolkit allows, with the allowed values if these are limited.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

pub(super) fn headers(section: &HttpSection) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigFault> {
    let mut headers = Vec::new();
    for (name, value) in section.headers.iter().flatten() {
        let Some((_, values)) = ALLOWED.iter().find(|(allowed, _)| allowed == name) else {
            let names = ALLOWED.map(|(name, _)| name).join(", ");
            return Err(ConfigFault::at(
                value,
                format!("the header {name:?} cannot be set; these can: {names}"),
            ));
        };
        let text = value.value.as_str();
        if !values.is_empty() && !values.contains(&text) {
            let message = format!("{name} cannot be {text:?}; it can be {}", values.join(" or "));
            return Err(ConfigFault::at(value, message));
        }
        // Like the toolkit, omit an empty header.
        if text.is_empty() {
            continue;
        }
        let parsed = (name.parse::<HeaderName>(), HeaderValue::from_str(text));
        let (Ok(parsed_name), Ok(parsed_value)) = parsed else {
            return Err(ConfigFault::at(value, format!("{name} has characters that a header cannot have")));
        };
        headers.push((parsed_name, parsed_value));
    }
    Ok(headers)
}
