//! SQL text.

use sha2::{Digest, Sha256};

/// A string constant; sessions of pgrail have `standard_conforming_strings` on.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A fingerprint of a text, to find later whether it is still the same.
pub(crate) fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
