//! `CREATE DATABASE` with the encoding and the locale of a source.

use tokio_postgres::Client;

use crate::Source;

/// The first version with `builtin` locales.
const BUILTIN: u32 = 17;
/// The first version with rules of ICU.
const ICU_RULES: u32 = 16;

/// The server cannot have such a database.
#[derive(Debug, thiserror::Error)]
pub enum LocaleError {
    /// It is too old.
    #[error("{0}")]
    TooOld(String),
    /// The statement could not be quoted.
    #[error("the server failed to quote a statement")]
    Query(#[from] tokio_postgres::Error),
}

/// The statement. Names and texts are quoted by the server.
pub async fn statement(
    session: &Client,
    name: &str,
    owner: &str,
    encoding: &str,
    source: &Source,
    major: u32,
) -> Result<String, LocaleError> {
    let options = options(source, major).map_err(LocaleError::TooOld)?;
    let options = std::iter::once(("ENCODING", encoding)).chain(options.iter().map(|(word, value)| (*word, *value)));
    let (words, values): (Vec<&str>, Vec<&str>) = options.unzip();
    let sql = "SELECT pg_catalog.format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ', $1::text, $2::text) \
         || (SELECT pg_catalog.string_agg(pg_catalog.format('%s %L', o.word, o.value), ' ' ORDER BY o.place) \
             FROM ROWS FROM (pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[])) WITH ORDINALITY o(word, value, place))";
    Ok(session.query_one(sql, &[&name, &owner, &words, &values]).await?.try_get(0)?)
}

fn options(source: &Source, major: u32) -> Result<Vec<(&'static str, &str)>, String> {
    let mut options = vec![
        ("LC_COLLATE", source.collate.as_str()),
        ("LC_CTYPE", source.ctype.as_str()),
        ("LOCALE_PROVIDER", source.locale_provider.as_str()),
    ];
    let locale = source.locale.as_deref().unwrap_or_default();
    match source.locale_provider.as_str() {
        "builtin" if major < BUILTIN => {
            return Err(format!("the locale provider builtin needs PostgreSQL {BUILTIN}, and the server is {major}"));
        }
        "builtin" => options.push(("BUILTIN_LOCALE", locale)),
        "icu" => options.push(("ICU_LOCALE", locale)),
        _ => {}
    }
    match &source.icu_rules {
        Some(_) if major < ICU_RULES => {
            Err(format!("collation rules of ICU need PostgreSQL {ICU_RULES}, and the server is {major}"))
        }
        Some(rules) => {
            options.push(("ICU_RULES", rules));
            Ok(options)
        }
        None => Ok(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_is_that_of_the_source_or_refused() {
        let source = |provider: &str, locale: Option<&str>, rules: Option<&str>| Source {
            collate: "C".into(),
            ctype: "C.UTF-8".into(),
            locale_provider: provider.into(),
            locale: locale.map(str::to_owned),
            icu_rules: rules.map(str::to_owned),
            ..Source::default()
        };
        let icu = source("icu", Some("de"), Some("&a < g"));
        assert_eq!(options(&icu, 16).unwrap()[3..], [("ICU_LOCALE", "de"), ("ICU_RULES", "&a < g")]);
        assert!(options(&icu, 15).unwrap_err().contains("PostgreSQL 16"));
        let builtin = source("builtin", Some("C.UTF-8"), None);
        assert_eq!(options(&builtin, 17).unwrap()[3], ("BUILTIN_LOCALE", "C.UTF-8"));
        assert!(options(&builtin, 16).unwrap_err().contains("PostgreSQL 17"));
        assert_eq!(options(&source("libc", None, None), 15).unwrap().len(), 3);
    }
}
