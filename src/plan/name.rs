//! Checks the names of partitions and overlays. Commands take these names as arguments.

/// The longest name in characters.
pub(super) const MAX_NAME_CHARS: usize = 128;

/// True if a text is a valid name: not empty, not too long, without white space and control characters.
pub(super) fn is_name(text: &str) -> bool {
    let printable = |c: char| !c.is_whitespace() && !c.is_control();
    (1..=MAX_NAME_CHARS).contains(&text.chars().count()) && text.chars().all(printable)
}
