//! Compresses answers. Metrics shrink to about a tenth.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use hyper::header::{ACCEPT_ENCODING, HeaderMap};

/// Smallest length worth compressing: below it, compression saves no packet.
const WORTH: usize = 1024;

/// Whether the client accepts gzip (RFC 9110, 12.5.3).
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut any = false;
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for item in values.flat_map(|value| value.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let is_wanted =
            quality.is_none_or(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0));
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => return is_wanted,
            "*" => any = is_wanted,
            _ => {}
        }
    }
    any
}

/// Compresses the bytes, unless they are too short to be worth it.
pub(super) fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() < WORTH {
        return None;
    }
    // Writing to memory cannot fail.
    let mut gzip = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    gzip.write_all(bytes).ok()?;
    gzip.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_used_only_if_the_client_accepts_it() {
        for (value, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("*", true),
            ("br;q=1, *;q=0.1", true),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("gzipped", false),
            ("gzip;q=often", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn metrics_shrink_to_less_than_a_sixth() {
        let lines = (0..2000).map(|i| {
            format!(
                "pidns_namespace_processes{{pidns=\"{}\",state=\"running\"}} {}\n",
                4026532000_u64 + i,
                i * 7
            )
        });
        let text: String = lines.collect();
        let gzip = gzip(text.as_bytes()).unwrap();
        assert!(gzip.len() * 6 < text.len(), "{} bytes of {}", gzip.len(), text.len());
        let mut again = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut again).unwrap();
        assert_eq!(again, text);
        assert_eq!(super::gzip(b"short"), None);
    }
}
