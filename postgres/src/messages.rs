//! Checks the messages of the server, before tokio-postgres reads them.

use std::io;
use std::time::Duration;

use crate::authentication::AuthenticationProblem;

/// Maximum length of a message before the end of the authentication, in bytes, as in libpq.
const LONGEST_BEFORE_LOGIN: u32 = 64 * 1024;
/// Maximum length of a message after the authentication, in bytes.
const LONGEST: u32 = 16 * 1024 * 1024;
/// Minimum number of SCRAM iterations for a host that is not trusted: the default of PostgreSQL.
const FEWEST_ITERATIONS: u32 = 4096;
/// Maximum length of the part of a SCRAM challenge that is searched for the iterations, in bytes.
const LONGEST_CHALLENGE: usize = 2048;

const AUTHENTICATION: u8 = b'R';
const READY_FOR_QUERY: u8 = b'Z';
const OK: u32 = 0;
const SASL_CONTINUE: u32 = 11;

/// Violations for which pgrail closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageProblem {
    /// A message is too long. tokio-postgres would buffer all of it.
    #[error("the server sent a message of {length} bytes; pgrail reads at most {longest}")]
    TooLong {
        /// Length of the message, in bytes.
        length: u32,
        /// Maximum length, in bytes.
        longest: u32,
    },
    /// The answer was not complete in time.
    #[error("the server did not complete its answer within {} s", after.as_secs())]
    NoAnswer {
        /// Timeout of the answer.
        after: Duration,
    },
}

impl From<MessageProblem> for io::Error {
    fn from(problem: MessageProblem) -> Self {
        Self::new(io::ErrorKind::InvalidData, problem)
    }
}

/// Which authentication methods are allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoginRules {
    /// The password can be sent in clear text.
    pub(crate) clear_allowed: bool,
    /// The settings contain a password.
    pub(crate) has_password: bool,
    /// MD5, and SCRAM with few iterations, are allowed, although they allow the server to guess the password.
    pub(crate) weak_allowed: bool,
}

/// Parses the messages of the server: type byte, length (including itself), body. The body is read only for
/// authentication requests.
#[derive(Debug)]
pub(crate) struct MessageWatch {
    /// Until the end of the authentication.
    login: Option<LoginRules>,
    /// Type and length of the current message, and the body of an authentication request.
    head: Vec<u8>,
    /// Remaining bytes of the current message.
    rest: usize,
}

impl MessageWatch {
    pub(crate) fn new(login: LoginRules) -> Self {
        Self { login: Some(login), head: Vec::with_capacity(9), rest: 0 }
    }

    /// Parses bytes of the server. Returns whether the last message was the end of an answer.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        let mut ended = false;
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let missing = 5_usize.saturating_sub(self.head.len());
            if missing > 0 {
                let taken = missing.min(bytes.len());
                self.head.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                bytes = bytes.get(taken..).unwrap_or_default();
            }
            let Some(length) = self.head.get(1..5).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes)
            else {
                continue;
            };
            let longest = if self.login.is_some() { LONGEST_BEFORE_LOGIN } else { LONGEST };
            if length > longest {
                return Err(MessageProblem::TooLong { length, longest }.into());
            }
            let kind = self.head.first().copied().unwrap_or_default();
            let body = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(4);
            let wanted = self.wanted(kind, body);
            let missing = (5 + wanted).saturating_sub(self.head.len());
            let taken = missing.min(bytes.len());
            self.head.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            bytes = bytes.get(taken..).unwrap_or_default();
            if taken < missing {
                continue;
            }
            self.rest = body - wanted;
            ended = kind == READY_FOR_QUERY;
            let result = if wanted > 0 { self.check_login() } else { Ok(()) };
            self.head.clear();
            result.map_err(|problem| io::Error::new(io::ErrorKind::PermissionDenied, problem))?;
        }
        Ok(ended && self.rest <= 1)
    }

    /// How many bytes of the body are read.
    fn wanted(&self, kind: u8, body: usize) -> usize {
        if self.login.is_some() && kind == AUTHENTICATION { body.min(LONGEST_CHALLENGE) } else { 0 }
    }

    fn check_login(&mut self) -> Result<(), AuthenticationProblem> {
        let Some(rules) = self.login else { return Ok(()) };
        let request = self.head.get(5..9).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
        match request {
            Some(OK) => {
                self.login = None;
                Ok(())
            }
            Some(3 | 5 | 10) if !rules.has_password => Err(AuthenticationProblem::PasswordMissing),
            Some(3) if !rules.clear_allowed => Err(AuthenticationProblem::ClearPassword),
            Some(5) if !rules.weak_allowed => Err(AuthenticationProblem::WeakMethod),
            Some(SASL_CONTINUE) if !rules.weak_allowed && self.iterations() < FEWEST_ITERATIONS => {
                Err(AuthenticationProblem::WeakMethod)
            }
            // KerberosV5, SCM credentials, GSSAPI, SSPI.
            Some(2 | 6 | 7 | 9) => Err(AuthenticationProblem::UnsupportedMethod),
            // Clear text (allowed), MD5, SASL and its continuation.
            _ => Ok(()),
        }
    }

    /// The number of iterations in a SCRAM challenge (`r=…,s=…,i=4096`), or 0.
    fn iterations(&self) -> u32 {
        let challenge = self.head.get(9..).unwrap_or_default();
        let attributes = challenge.split(|byte| *byte == b',');
        let iterations = attributes.filter_map(|attribute| attribute.strip_prefix(b"i=")).next_back();
        iterations.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: LoginRules = LoginRules { clear_allowed: false, has_password: true, weak_allowed: false };
    const USUAL: LoginRules = LoginRules { weak_allowed: true, ..STRICT };
    const CLEAR: LoginRules = LoginRules { clear_allowed: true, ..USUAL };
    const NO_PASSWORD: LoginRules = LoginRules { has_password: false, ..CLEAR };

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Whether the authentication has ended after these bytes, in several parts.
    fn login(rules: LoginRules, bytes: &[u8], step: usize) -> Result<bool, AuthenticationProblem> {
        let mut watch = MessageWatch::new(rules);
        for chunk in bytes.chunks(step) {
            let read = watch.read(chunk);
            read.map_err(|error| *error.get_ref().unwrap().downcast_ref::<AuthenticationProblem>().unwrap())?;
        }
        Ok(watch.login.is_none())
    }

    #[test]
    fn a_request_for_the_password_in_clear_is_seen_however_the_bytes_are_cut() {
        let mut bytes = message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]);
        bytes.extend(message(b'N', b"R\0\0\0\x08\0\0\0\0"));
        bytes.extend(message(b'R', &3u32.to_be_bytes()));
        for step in 1..=bytes.len() {
            assert_eq!(login(USUAL, &bytes, step), Err(AuthenticationProblem::ClearPassword), "in steps of {step}");
            assert_eq!(login(CLEAR, &bytes, step), Ok(false));
            assert_eq!(login(NO_PASSWORD, &bytes, step), Err(AuthenticationProblem::PasswordMissing));
        }
    }

    #[test]
    fn a_login_by_scram_is_watched_to_its_end() {
        let mut bytes = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        bytes.extend(message(b'R', b"\0\0\0\x0br=abc,s=def,i=4096"));
        bytes.extend(message(b'R', b"\0\0\0\x0cv=ghi"));
        for step in 1..=bytes.len() {
            assert_eq!(login(STRICT, &bytes, step), Ok(false));
        }
        bytes.extend(message(b'R', &0u32.to_be_bytes()));
        for step in 1..=bytes.len() {
            assert_eq!(login(STRICT, &bytes, step), Ok(true));
        }
    }

    #[test]
    fn what_helps_to_guess_the_password_is_refused_where_the_server_is_not_trusted() {
        let weak = [
            message(b'R', b"\0\0\0\x05salt"),
            message(b'R', b"\0\0\0\x0br=abc,s=def,i=1"),
            message(b'R', b"\0\0\0\x0br=abc,s=def,i=4095"),
            message(b'R', b"\0\0\0\x0br=i=9999,s=def"),
        ];
        for bytes in weak {
            for step in [1, 3, bytes.len()] {
                assert_eq!(login(STRICT, &bytes, step), Err(AuthenticationProblem::WeakMethod));
                assert_eq!(login(USUAL, &bytes, step), Ok(false));
            }
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_head() {
        let head = |length: u32| [&[b'D'][..], &length.to_be_bytes()].concat();
        let too_long = |watch: &mut MessageWatch, length| watch.read(&head(length)).is_err();
        assert!(too_long(&mut MessageWatch::new(USUAL), LONGEST_BEFORE_LOGIN + 1));
        let mut watch = MessageWatch::new(USUAL);
        watch.read(&message(b'R', &0u32.to_be_bytes())).unwrap();
        assert!(!too_long(&mut watch, LONGEST));
        let mut watch = MessageWatch::new(USUAL);
        watch.read(&message(b'R', &0u32.to_be_bytes())).unwrap();
        assert!(too_long(&mut watch, LONGEST + 1));
        assert!(too_long(&mut MessageWatch::new(USUAL), u32::MAX));
    }

    #[test]
    fn the_end_of_an_answer_is_seen() {
        let mut watch = MessageWatch::new(USUAL);
        assert!(!watch.read(&message(b'R', &0u32.to_be_bytes())).unwrap());
        assert!(watch.read(&message(b'Z', b"I")).unwrap());
        assert!(!watch.read(&message(b'D', b"row")).unwrap());
        let both = [message(b'D', b"Z\0\0\0\x05I"), message(b'Z', b"I")].concat();
        assert!(watch.read(&both).unwrap());
    }

    proptest::proptest! {
        #[test]
        fn nonsense_is_no_reason_to_panic(bytes: Vec<u8>, step in 1_usize..20) {
            let mut watch = MessageWatch::new(STRICT);
            for chunk in bytes.chunks(step) {
                let _ = watch.read(chunk);
            }
        }
    }
}
