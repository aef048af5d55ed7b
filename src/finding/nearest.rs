//! "Did you mean".

/// The candidate that somebody probably meant, if one is near enough: at most a third of its letters differ.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are not typing errors of field names, and the distance costs their product.
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .filter(|c| c.len() <= 64)
        .map(|c| (strsim::osa_distance(&lower, &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= (c.chars().count().max(3) / 3))
        .min_by_key(|(d, c)| (*d, *c))
        .map(|(_, c)| c)
}
