//! "Did you mean": the known word that is nearest to an unknown one.

/// The candidate that `word` is most probably a slip of, or nothing if none is near.
///
/// Near means at most one edit in three characters. Of equally near ones it is the first.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let reach = match length {
        0 | 1 => 0,
        2..=5 => 1,
        _ => length / 3,
    };
    let word = word.to_lowercase();
    candidates
        .into_iter()
        // Cheap, and spares the quadratic comparison below for most of 10,000 names.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= reach)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= reach)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_a_slip_is_corrected() {
        let keys = ["name", "nodes", "zones", "links", "intra-zone", "inter-zone"];
        assert_eq!(nearest("naem", keys), Some("name"));
        assert_eq!(nearest("Zones", keys), Some("zones"));
        assert_eq!(nearest("intrazone", keys), Some("intra-zone"));
        assert_eq!(nearest("bandwidth", keys), None);
        assert_eq!(nearest("z", ["Z", "y"]), Some("Z"));
        assert_eq!(nearest("", ["Z"]), None);
    }
}
