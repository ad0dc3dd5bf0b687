//! Who may deliver: the access keys, compared without telling by the time it takes how much of one was right.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::secret::Secret;

/// The keys of a source, by their names.
#[derive(Debug)]
pub(super) struct AccessKeys {
    digests: Vec<[u8; 32]>,
    /// Whether requests without a key are taken too.
    allow_anonymous: bool,
}

impl AccessKeys {
    pub(super) fn new(keys: &BTreeMap<String, Secret>, allow_anonymous: bool) -> Self {
        let digests = keys.values().map(|key| Sha256::digest(key.expose()).into()).collect();
        Self { digests, allow_anonymous }
    }

    /// Whether a request with this key may deliver. Every key is compared, whichever fits: over their digests,
    /// which are of one length and of which a part says nothing.
    pub(super) fn admit(&self, given: Option<&[u8]>) -> bool {
        let Some(given) = given else { return self.allow_anonymous };
        let given: [u8; 32] = Sha256::digest(given).into();
        let known =
            self.digests.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&given));
        // With no keys at all a key that is sent nevertheless is nobody's to check.
        bool::from(known) || (self.allow_anonymous && self.digests.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], allow_anonymous: bool, given: Option<&str>, expected: bool) {
        let secrets = keys.iter().map(|key| ((*key).to_owned(), Secret::new((*key).to_owned())));
        let keys = AccessKeys::new(&secrets.collect(), allow_anonymous);
        assert_eq!(keys.admit(given.map(str::as_bytes)), expected, "{given:?}");
    }

    #[test]
    fn any_of_the_keys_will_do_and_no_other() {
        check(&["old", "new"], false, Some("old"), true);
        check(&["old", "new"], false, Some("new"), true);
        for wrong in [Some("ol"), Some("olds"), Some(""), Some("Old"), None] {
            check(&["old", "new"], false, wrong, false);
        }
        check(&["old"], true, None, true);
        check(&["old"], true, Some("x"), false);
        check(&[], true, Some("x"), true);
    }
}
