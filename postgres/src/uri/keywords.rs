//! Keyword strings: `host=localhost dbname='my shop'`.

use super::{Files, ParsedUri, PartialSettings, UriError, is_key, read_parameter};
use std::iter::Peekable;
use std::str::Chars;

/// Parses a keyword string as libpq does.
pub(super) fn parse(text: &str) -> Result<ParsedUri, UriError> {
    let mut parts = PartialSettings::default();
    let mut ignored_keys: Vec<String> = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        skip_spaces(&mut rest);
        if rest.peek().is_none() {
            return Ok(ParsedUri { parts, ignored_keys });
        }
        let mut key = String::new();
        while let Some(character) = rest.next_if(|character| *character != '=' && !character.is_whitespace()) {
            key.push(character);
        }
        skip_spaces(&mut rest);
        if rest.next() != Some('=') || !is_key(&key) {
            return Err(UriError::Keywords);
        }
        skip_spaces(&mut rest);
        let value = value(&mut rest)?;
        if !read_parameter(&key, value, Files::Allowed, &mut parts)? && !ignored_keys.contains(&key) {
            ignored_keys.push(key);
        }
    }
}

fn skip_spaces(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|character| character.is_whitespace()).is_some() {}
}

/// A value, in single quotes or up to the next space; a backslash takes the next character as it is.
fn value(rest: &mut Peekable<Chars<'_>>) -> Result<String, UriError> {
    let quoted = rest.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        match rest.peek() {
            None if quoted => return Err(UriError::Keywords),
            None => return Ok(value),
            Some('\'') if quoted => {
                rest.next();
                return Ok(value);
            }
            Some(character) if !quoted && character.is_whitespace() => return Ok(value),
            Some(_) => {}
        }
        let taken = rest.next().filter(|character| *character != '\\').or_else(|| rest.next());
        value.push(taken.ok_or(UriError::Keywords)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_libpq_reads_them() {
        let parsed =
            parse(r"host = db.example port=6543 dbname='my \'shop\'' user=a\ b password=p\\w application_name=x")
                .unwrap();
        let PartialSettings { host, port, database, user, password, .. } = parsed.parts;
        assert_eq!((host.as_deref(), port), (Some("db.example"), Some(6543)));
        assert_eq!((database.as_deref(), user.as_deref()), (Some("my 'shop'"), Some("a b")));
        assert_eq!(password.map(|it| it.reveal().to_owned()).as_deref(), Some(r"p\w"));
        assert_eq!(parsed.ignored_keys, ["application_name"]);
    }

    #[test]
    fn what_libpq_refuses_is_refused() {
        for text in ["host", "host=a b", "=a", "dbname='a", r"dbname=a\"] {
            assert_eq!(parse(text).unwrap_err(), UriError::Keywords, "{text}");
        }
    }

    #[test]
    fn files_may_be_named() {
        let parts = parse("sslrootcert=/etc/ca.pem passfile=/etc/pgpass").unwrap().parts;
        assert_eq!(parts.ca_file.unwrap().to_str(), Some("/etc/ca.pem"));
        assert_eq!(parts.password_file.unwrap().to_str(), Some("/etc/pgpass"));
    }
}
