//! `basic_auth_users`: names and bcrypt hashes of passwords.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr as _,
    sync::{Mutex, PoisonError},
};

use bcrypt::HashParts;
use serde_saphyr::Spanned;

use super::file::ConfigFault;

/// Highest accepted cost. A comparison with it takes about two seconds of CPU time; each step doubles that.
const HIGHEST_COST: u32 = 15;

/// The users and the hashes of their passwords.
pub(in crate::web) struct Users {
    hashes: BTreeMap<String, String>,
    /// Hash for unknown names: a comparison with it takes as long as with a real one.
    decoy: String,
    /// Tag of the correct password, by user.
    proven: Mutex<BTreeMap<String, Tag>>,
}

/// A keyed digest of user, hash and password.
pub(in crate::web) type Tag = [u8; 32];

impl Users {
    pub(super) fn of_file(users: BTreeMap<String, Spanned<String>>) -> Result<Option<Self>, ConfigFault> {
        let mut cost = 0;
        for (user, hash) in &users {
            let Ok(parts) = HashParts::from_str(&hash.value) else {
                let message = format!(
                    "the password of {user:?} is not a bcrypt hash; make one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'`"
                );
                return Err(ConfigFault::at(hash, message));
            };
            if !(4..=HIGHEST_COST).contains(&parts.get_cost()) {
                let message = format!(
                    "the password of {user:?} has cost {}; it can be 4 to {HIGHEST_COST}, as each step doubles the CPU time \
                     of a comparison",
                    parts.get_cost()
                );
                return Err(ConfigFault::at(hash, message));
            }
            cost = cost.max(parts.get_cost());
        }
        let hashes: BTreeMap<_, _> = users.into_iter().map(|(user, hash)| (user, hash.value)).collect();
        // Any salt and hash will do: the user is refused even if the password matches.
        let decoy = format!("$2y${cost:02}$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi");
        Ok((!hashes.is_empty()).then(|| Self { hashes, decoy, proven: Mutex::default() }))
    }

    /// The hash to compare the password with, and whether this user exists.
    pub(in crate::web) fn hash(&self, user: &str) -> (&str, bool) {
        self.hashes.get(user).map_or((&self.decoy, false), |hash| (hash, true))
    }

    /// Whether a password with this tag was correct for this user before.
    pub(in crate::web) fn was_correct(&self, user: &str, tag: &Tag) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).get(user) == Some(tag)
    }

    /// Remembers the tag. Only known users get here, so there are at most as many as in the file.
    pub(in crate::web) fn remember_correct(&self, user: &str, tag: Tag) {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned(), tag);
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.hashes.len()).finish_non_exhaustive()
    }
}
