//! What a partition or a live change may be called: something that a command line can be given.

/// The longest name.
pub(super) const MAX_NAME_CHARS: usize = 128;

/// Whether a text is fit for a name.
pub(super) fn is_name(text: &str) -> bool {
    let printable = |c: char| !c.is_whitespace() && !c.is_control();
    (1..=MAX_NAME_CHARS).contains(&text.chars().count()) && text.chars().all(printable)
}
