//! Basic authentication (RFC 7617) against bcrypt hashes.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;
use ring::{error::Unspecified, hmac, rand::SystemRandom};

use super::{config::Users, workers::Workers};

/// Compares passwords, one at a time, because a comparison costs at least 50 ms of CPU time.
#[derive(Debug)]
pub(super) struct Passwords {
    /// Key of the digests that remember correct passwords. It never leaves this process.
    key: hmac::Key,
    worker: Workers,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// Wrong user or password.
    Wrong,
    /// No user and password were given.
    NotGiven,
}

impl Passwords {
    pub(super) fn new(worker: Workers) -> Result<Self, Unspecified> {
        Ok(Self { key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?, worker })
    }

    /// Checks the credentials of a request. An unknown user takes as long as a wrong password.
    pub(super) async fn check(&self, users: &Arc<Users>, authorization: Option<&HeaderValue>) -> Verdict {
        let Some(authorization) = authorization else { return Verdict::NotGiven };
        let Some((user, password)) = credentials(authorization) else { return Verdict::Wrong };
        let tag = self.tag(&user, users.hash(&user).0, &password);
        if users.was_correct(&user, &tag) {
            return Verdict::Right;
        }
        let compare = {
            let users = Arc::clone(users);
            move || {
                let (hash, is_known) = users.hash(&user);
                // An error means a password that bcrypt does not accept.
                let is_equal = bcrypt::verify(&password, hash).unwrap_or(false);
                let is_right = is_known && is_equal;
                if is_right {
                    users.remember_correct(&user, tag);
                }
                is_right
            }
        };
        if self.worker.run(compare).await == Some(true) { Verdict::Right } else { Verdict::Wrong }
    }

    fn tag(&self, user: &str, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// User and password of an Authorization header. If the name is not UTF-8, no user in the file can have it.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut user = STANDARD.decode(encoded.trim()).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.pop();
    Some((String::from_utf8_lossy(&user).into_owned(), password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_split_at_the_first_colon() {
        let of = |text: &str| {
            let header = HeaderValue::from_str(text).unwrap();
            credentials(&header).map(|(user, password)| (user, String::from_utf8(password).unwrap()))
        };
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(of(&format!("Basic {}", STANDARD.encode("a:b:c"))), pair("a", "b:c"));
        assert_eq!(of(&format!("basic {}", STANDARD.encode(":"))), pair("", ""));
        assert_eq!(of(&format!("Basic {}", STANDARD.encode("nocolon"))), None);
        assert_eq!(of("Bearer abc"), None);
        assert_eq!(of("Basic ???"), None);
        assert_eq!(of("Basic"), None);
    }
}
