//! Escapes characters that a terminal interprets, in all text that netemctl prints.
//!
//! Control characters are commands for a terminal. Bidirectional marks change the order in which text is read.

use super::fitted;

/// The mark at the beginning of a line that is drawn bold: a private-use character.
pub(in crate::cli) const BOLD: char = '\u{e000}';

/// The mark at the end of a word that is drawn red: a character without width, so it does not change the columns of a
/// table.
pub(in crate::cli) const RED: char = '\u{2060}';

/// True if a terminal interprets the character instead of showing it.
fn is_interpreted(c: char) -> bool {
    let is_control = c.is_control() && !matches!(c, '\n' | '\t');
    // The ranges have the marks of bidirectional text, and separators that some terminals show as line breaks.
    is_control
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | BOLD)
}

/// The text, in which `escape` replaces every character that a terminal interprets.
fn replaced(text: &str, escape: impl Fn(char) -> String) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_interpreted(c) { safe += &escape(c) } else { safe.push(c) }
    }
    safe
}

/// The text, in which every character that a terminal interprets is an escape sequence such as `\u{1b}`.
pub(in crate::cli) fn escaped(text: &str) -> String {
    replaced(text, |c| c.escape_unicode().to_string())
}

/// The escaped text on one line.
///
/// Line breaks become `\n`.
pub(in crate::cli) fn on_one_line(text: &str) -> String {
    escaped(text.trim_end()).replace('\n', "\\n")
}

/// An escaped drawing, fitted to a terminal.
///
/// If `styled` is set, a line that begins with [`BOLD`] is bold, and a word that ends with [`RED`] is red.
pub(in crate::cli) fn drawing(text: &str, styled: bool, columns: Option<usize>) -> String {
    let line = |line: &str| match line.strip_prefix(BOLD).filter(|_| styled) {
        Some(bold) => {
            let (bold, end) = bold.strip_suffix('\n').map_or((bold, ""), |bold| (bold, "\n"));
            format!("\x1b[1m{}\x1b[0m{end}", escaped(bold))
        }
        None => reddened(&fitted(&escaped(line), columns), styled),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The text without [`RED`]; the words that end with it are red if `styled` is set.
fn reddened(text: &str, styled: bool) -> String {
    let mut pieces = text.split(RED);
    let last = pieces.next_back().unwrap_or_default();
    let piece = |piece: &str| {
        let (before, word) = piece.split_at(piece.rfind(char::is_whitespace).map_or(0, |space| space + 1));
        if styled { format!("{before}\x1b[31m{word}\x1b[0m") } else { piece.to_owned() }
    };
    pieces.map(piece).collect::<String>() + last
}

/// The escaped text with its colours: terminal sequences that set colours (SGR) are kept.
pub(in crate::cli) fn coloured(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let mut safe = pieces.next().map(escaped).unwrap_or_default();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end.filter(|end| piece[*end..].starts_with('m')) {
            Some(end) => {
                let (colour, rest) = piece.split_at(end + 1);
                safe += &format!("\x1b[{colour}{}", escaped(rest));
            }
            None => safe += &escaped(&format!("\x1b[{piece}")),
        }
    }
    safe
}

/// A JSON document, in which every character that a terminal interprets is a JSON escape.
///
/// Such characters occur only in JSON strings, so the document has the same content.
pub(in crate::cli) fn document(text: &str) -> String {
    // Four digits suffice: these characters are in the basic plane.
    replaced(text, |c| format!("\\u{:04x}", u32::from(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_with_the_red_mark_is_red_only_on_a_terminal_with_colours() {
        let text = format!("n1  -  20.1!{RED}  cut\nn2  none!{RED}\n");
        assert_eq!(drawing(&text, false, None), "n1  -  20.1!  cut\nn2  none!\n");
        assert_eq!(drawing(&text, true, None), "n1  -  \x1b[31m20.1!\x1b[0m  cut\nn2  \x1b[31mnone!\x1b[0m\n");
    }

    const HOSTILE: &str = "a\x1b[2J\u{9b}2J\r\u{7f}\u{202e}b\u{2028}ü\tc";

    #[test]
    fn characters_that_a_terminal_interprets_are_escaped() {
        assert_eq!(escaped(HOSTILE), "a\\u{1b}[2J\\u{9b}2J\\u{d}\\u{7f}\\u{202e}b\\u{2028}ü\tc");
        assert_eq!(on_one_line("a\nhint: b\n"), "a\\nhint: b");
        assert_eq!(escaped("Z1 ↔ Z3 ± 5 ms …"), "Z1 ↔ Z3 ± 5 ms …");
    }

    #[test]
    fn only_netemctls_own_marks_and_colours_become_terminal_sequences() {
        let text = format!("{BOLD}NODE\nn1 {BOLD}\x1b[1m\n");
        assert_eq!(drawing(&text, true, None), "\x1b[1mNODE\x1b[0m\nn1 \\u{e000}\\u{1b}[1m\n");
        assert!(drawing(&text, false, None).starts_with("\\u{e000}NODE\n"));
        assert_eq!(coloured("\x1b[1;31merror\x1b[0m \x1b[2J\x1b]0;x\x07 ü\x1b["), {
            "\x1b[1;31merror\x1b[0m \\u{1b}[2J\\u{1b}]0;x\\u{7} ü\\u{1b}["
        });
    }

    #[test]
    fn an_escaped_document_has_the_same_content() {
        let printed = document(&serde_json::to_string_pretty(&[HOSTILE]).unwrap());
        assert!(!printed.chars().any(is_interpreted), "{printed}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&printed).unwrap()[0], HOSTILE);
    }
}
