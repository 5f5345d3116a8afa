//! Redaction of secrets in text of other programs.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

/// Replaces a secret.
const MASK: &str = "***";

/// Secrets shorter than this are not looked for: masking every `a` would destroy the message and give the secret away.
const SHORTEST: usize = 4;

/// The secrets of one run, to be removed from everything that leaves the agent.
/// Clones share them.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl Redactor {
    /// Collects the secrets, each also in its percent-encoded form, the longest first.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let redactor = Self::default();
        redactor.add(secrets);
        redactor
    }

    /// Adds secrets that became known later.
    pub(crate) fn add<S: AsRef<str>>(&self, secrets: impl IntoIterator<Item = S>) {
        let mut all = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets {
            let secret = secret.as_ref();
            if secret.len() < SHORTEST {
                continue;
            }
            let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            all.push(encoded.replace('+', "%20"));
            all.push(encoded);
            all.push(secret.to_owned());
        }
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
    }

    /// The text with every secret replaced by `***`. A secret is replaced only as a whole: the password `shop` must not
    /// change the name `shop_orders` in a message.
    pub fn clean(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(text.to_owned(), |text, secret| replace_whole(&text, secret))
    }
}

fn replace_whole(text: &str, secret: &str) -> String {
    let is_word = |char: char| char.is_alphanumeric() || matches!(char, '_' | '$');
    let continues =
        |outside: Option<char>, inside: Option<char>| outside.is_some_and(is_word) && inside.is_some_and(is_word);
    let mut clean = String::with_capacity(text.len());
    let mut copied = 0;
    for (start, found) in text.match_indices(secret) {
        let end = start + found.len();
        let part_of_word = continues(text[..start].chars().next_back(), secret.chars().next())
            || continues(text[end..].chars().next(), secret.chars().next_back());
        if !part_of_word {
            clean.push_str(&text[copied..start]);
            clean.push_str(MASK);
            copied = end;
        }
    }
    clean.push_str(&text[copied..]);
    clean
}

impl fmt::Debug for Redactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        write!(formatter, "Redactor({} secrets)", secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_replaced_as_a_whole_word_only() {
        let redactor = Redactor::new(["shop"]);
        assert_eq!(
            redactor.clean("password=shop: permission denied for table shop_orders of workshop, schema Shop"),
            "password=***: permission denied for table shop_orders of workshop, schema Shop"
        );
        assert_eq!(redactor.clean("postgres://me:shop@db, 'shop'"), "postgres://me:***@db, '***'");
        assert_eq!(Redactor::new(["/x+y=="]).clean("key/x+y==, a/x+y==b"), "key***, a***b");
    }

    #[test]
    fn secrets_go_in_every_spelling() {
        let redactor = Redactor::new(["p@ss word", "p@ss word and more", "abc"]);
        assert_eq!(redactor.clean("x p@ss word y p%40ss%20word z p%40ss+word"), "x *** y *** z ***");
        assert_eq!(redactor.clean("p@ss word and more"), "***", "the longer secret is taken first");
        assert_eq!(redactor.clean("abc"), "abc", "too short to hide without giving it away");
        assert!(!format!("{redactor:?}").contains("p@ss"));
    }
}
