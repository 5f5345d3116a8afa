//! Errors as text, and text within the bounds that the apiserver sets.

/// An error and its causes in one line.
pub(crate) use pgrail_dump::error_chain as chain;

/// The text, or as much of it as fits into `longest` bytes with an ellipsis at the end.
pub(crate) fn truncated(text: &str, longest: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(longest.saturating_sub(ELLIPSIS.len()));
    format!("{}{ELLIPSIS}", text.get(..end).unwrap_or_default())
}

/// Names that a message lists.
const LISTED: usize = 5;

/// The first names, and how many more there are.
pub(crate) fn listed(names: &[String]) -> String {
    let text = names.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{text} and {} more", names.len() - LISTED) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(truncated("abc", 3), "abc");
        assert_eq!(truncated("abcdef", 5), "ab…");
        assert_eq!(truncated("äöü", 5), "ä…");
        assert_eq!(truncated("äöü", 6), "äöü");
    }
}
