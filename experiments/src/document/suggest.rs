//! What was probably meant.

/// A known word that is close enough to be a slip of the fingers: by edit distance, or the same word with `_` for `-`.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.replace('_', "-").to_lowercase();
    let word = plain(word);
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// A help text: the nearest of the known words, else all of them, else `none`.
pub(crate) fn one_of<S: AsRef<str>>(word: &str, known: &[S], none: &str) -> String {
    if known.is_empty() {
        return none.to_owned();
    }
    match nearest(word, known.iter().map(S::as_ref)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", list(known)),
    }
}

/// Words in backticks, separated by commas.
pub(crate) fn list<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["partition", "refuse", "kill", "stop-when"];
        assert_eq!(nearest("partiton", known), Some("partition"));
        assert_eq!(nearest("stop_when", known), Some("stop-when"));
        assert_eq!(nearest("kil", known), Some("kill"));
        assert_eq!(nearest("latency", known), None);
        assert_eq!(nearest("x", known), None);
    }
}
