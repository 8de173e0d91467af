//! Suggests the nearest known word for an unknown word.

/// The candidate with the smallest edit distance. The first candidate, if several have the same distance.
///
/// `None` if all distances are too large. The limit is one edit for a word of 2 to 5 characters, and one edit in three
/// characters for a longer word.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let reach = match length {
        0 | 1 => 0,
        2..=5 => 1,
        _ => length / 3,
    };
    let word = word.to_lowercase();
    candidates
        .into_iter()
        // The edit distance takes quadratic time. This filter avoids it for most of 10,000 names.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= reach)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= reach)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// A label that suggests the nearest candidate; empty if none is near.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_a_near_word_is_suggested() {
        let keys = ["name", "nodes", "zones", "links", "intra-zone", "inter-zone"];
        assert_eq!(nearest("naem", keys), Some("name"));
        assert_eq!(nearest("Zones", keys), Some("zones"));
        assert_eq!(nearest("intrazone", keys), Some("intra-zone"));
        assert_eq!(nearest("bandwidth", keys), None);
        assert_eq!(nearest("z", ["Z", "y"]), Some("Z"));
        assert_eq!(nearest("", ["Z"]), None);
    }
}
