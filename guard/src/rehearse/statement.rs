//! Which statements can be rehearsed at all, by their first word. Pure.
//!
//! Whether it is only one statement is decided by the server, which prepares no more than one.

use super::RehearseError;

/// Refuses what cannot be rolled back, what locks too much, and what changes no rows.
pub(super) fn check(statement: &str) -> Result<(), RehearseError> {
    let word = first_word(statement);
    let (why, remedy) = match word.as_str() {
        "DELETE" | "UPDATE" | "MERGE" | "INSERT" | "WITH" => return Ok(()),
        "" => ("it contains no SQL statement", "for example, DELETE FROM users WHERE id = 42"),
        "TRUNCATE" | "DROP" | "ALTER" | "LOCK" | "CLUSTER" | "REINDEX" | "REFRESH" => (
            "it locks tables against readers too, for as long as the rehearsal lasts",
            "pgrail blast-radius shows what depends on a table; instead of TRUNCATE, rehearse a DELETE without WHERE",
        ),
        "VACUUM" | "CREATE" | "ANALYZE" => ("it does not change rows, or cannot be rolled back", REMEDY),
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            ("it controls transactions, and the rehearsal uses its own", "rehearse the statement without it")
        }
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => (
            "PREPARE TRANSACTION is not rolled back, and prepared statements of other sessions do not exist here",
            "rehearse the statement itself, with its values",
        ),
        "CALL" | "DO" => (
            "it may commit, and what is committed cannot be rolled back",
            "rehearse the statements in it, one at a time",
        ),
        "COPY" => (
            "it may write files and start programs on the server, which cannot be rolled back",
            "rehearse the statement in it",
        ),
        "EXPLAIN" => ("it does not run the statement", "rehearse it without EXPLAIN"),
        "SELECT" | "VALUES" | "TABLE" | "FETCH" | "DECLARE" => (
            "it changes no rows by itself",
            "if it calls a function that does, rehearse the statements of the function",
        ),
        _ => ("whether it can be rolled back is not known", REMEDY),
    };
    let what = if word.is_empty() { "the statement".to_owned() } else { word };
    Err(RehearseError::Refused { what, why, remedy })
}

const REMEDY: &str = "DELETE, UPDATE, MERGE, INSERT … ON CONFLICT DO UPDATE, and these after WITH, can be rehearsed";

/// The first word in capitals, after white space and comments, which nest in PostgreSQL; empty where there is none.
fn first_word(statement: &str) -> String {
    let mut rest = statement;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = after_comment(rest);
        } else {
            break;
        }
    }
    rest.chars().take_while(char::is_ascii_alphabetic).map(|letter| letter.to_ascii_uppercase()).collect()
}

/// What follows a comment that begins here; nothing, if it does not end.
fn after_comment(text: &str) -> &str {
    let (mut rest, mut depth) = (text, 0_usize);
    loop {
        let (Some(opens), Some(closes)) = (rest.find("/*").or(Some(usize::MAX)), rest.find("*/")) else { return "" };
        depth = if opens < closes { depth + 1 } else { depth.saturating_sub(1) };
        rest = &rest[opens.min(closes) + 2..];
        if depth == 0 {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_found_behind_comments() {
        for (statement, word) in [
            ("DELETE FROM users", "DELETE"),
            ("\n\t delete\nfrom users", "DELETE"),
            ("-- DROP\nWITH x AS (SELECT 1) DELETE", "WITH"),
            ("-- one\r-- two\n/* /* nested */ COMMIT */ -- three\n Update users", "UPDATE"),
            ("/* a */ /**/MERGE INTO x", "MERGE"),
            ("/*/ DROP */ VACUUM", "VACUUM"),
            ("/* not closed DELETE", ""),
            ("-- only this", ""),
            ("", ""),
            (";DELETE", ""),
            ("(DELETE", ""),
            ("DELETEFROM", "DELETEFROM"),
        ] {
            assert_eq!(first_word(statement), word, "{statement:?}");
        }
    }

    #[test]
    fn what_cannot_be_rolled_back_or_locks_too_much_is_refused_with_a_reason() {
        let refused = "BEGIN|START TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT s|RELEASE s|PREPARE TRANSACTION 'x'|PREPARE d AS DELETE FROM t|\
             EXECUTE d|VACUUM|CALL purge()|DO $$ $$|COPY t FROM PROGRAM 'true'|TRUNCATE t|DROP TABLE t|ALTER TABLE t ADD x int|LOCK t|\
             CLUSTER t|REINDEX TABLE t|REFRESH MATERIALIZED VIEW v|CREATE DATABASE d|EXPLAIN ANALYZE DELETE FROM t|SELECT purge()|TABLE t|\
             NOTIFY n|LISTEN n|SET x = 1|RESET ALL|GRANT x TO y|DISCARD ALL|CHECKPOINT|\\! ls|42|;";
        for statement in refused.split('|').map(str::trim) {
            let error = check(statement).unwrap_err();
            assert!(matches!(error, RehearseError::Refused { .. }), "{statement}");
            assert!(error.to_string().contains("cannot be rehearsed"), "{error}");
        }
        for statement in
            ["DELETE FROM t", "update t SET x = 1", "Merge INTO t", "WITH x AS (DELETE FROM t) SELECT", "INSERT INTO t"]
        {
            assert!(check(statement).is_ok(), "{statement}");
        }
        let locking = check("TRUNCATE users").unwrap_err().to_string();
        assert!(locking.contains("blast-radius"), "{locking}");
    }
}
