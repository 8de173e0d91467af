//! Breaks lines of prose between words to fit a terminal.
//!
//! Lines for a pipe are not broken, so `grep` finds whole statements.

use std::os::fd::AsFd;

use rustix::termios::tcgetwinsize;

/// The width of the terminal of a stream, in columns; `None`: the stream is not a terminal, or the size is unknown.
///
/// The size is unknown if a program without a terminal started `ssh -tt`.
pub(in crate::cli) fn columns(stream: impl AsFd) -> Option<usize> {
    let size = tcgetwinsize(stream).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The text with lines broken between words to fit `columns`.
///
/// Longer words are not broken. Rows of tables are not broken either. They are recognised by two spaces between
/// columns.
pub(in crate::cli) fn fitted(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns else { return text.to_owned() };
    let fits = |line: &str| line.trim_end().chars().count() <= columns || line.trim().contains("  ");
    let lines = text.split_inclusive('\n');
    lines.map(|line| if fits(line) { line.to_owned() } else { broken(line, columns) }).collect()
}

/// The line, broken into several lines.
///
/// All lines except the first are indented by two more spaces.
fn broken(line: &str, columns: usize) -> String {
    let text = line.trim_start_matches(' ');
    let mut margin = line.len() - text.len();
    let mut lines = " ".repeat(margin);
    let mut column = margin;
    for word in units(text, columns.saturating_sub(margin + 2)) {
        if column > margin && column + word.trim_end().chars().count() > columns {
            margin = line.len() - text.len() + 2;
            lines.truncate(lines.trim_end_matches(' ').len());
            lines += &format!("\n{}", " ".repeat(margin));
            column = margin;
        }
        lines += word;
        column += word.chars().count();
    }
    lines
}

/// The parts of a text that are not broken: words, and netemctl commands shorter than `room`.
///
/// A command on one line can be copied.
fn units(text: &str, room: usize) -> Vec<&str> {
    let mut units = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let command =
            if rest.starts_with("netemctl ") { rest.find([';', ',', ')', '\n']).unwrap_or(rest.len()) } else { 0 };
        let within = if rest[..command].chars().count() < room { command } else { 0 };
        let end = rest[within..].find(' ').map_or(rest.len(), |space| within + space + 1);
        let (unit, others) = rest.split_at(end);
        units.push(unit);
        rest = others;
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_between_words_but_rows_and_long_words_stay_whole() {
        let text = "in force on 9 nodes: topology three\n  n1: no agent at /run/netemctl-lab/n1.sock here\n\
                    NODE  INTERFACE  STATE\n/run/netemctl-lab/nodes/n1\nÄÖÜ ÄÖÜ ÄÖÜ ÄÖÜ Ä\n";
        insta::assert_snapshot!(fitted(text, Some(17)), @r"
        in force on 9
          nodes: topology
          three
          n1: no agent at
            /run/netemctl-lab/n1.sock
            here
        NODE  INTERFACE  STATE
        /run/netemctl-lab/nodes/n1
        ÄÖÜ ÄÖÜ ÄÖÜ ÄÖÜ Ä
        ");
        assert_eq!(fitted(text, None), text);
    }

    #[test]
    fn a_command_stays_on_one_line_to_be_copied() {
        let text = "hint: see what it is: netemctl lab status; mend it: netemctl lab restart n1\n\
                    made a CA; next: netemctl pki issue NODE... --controller --viewer --more\n";
        insta::assert_snapshot!(fitted(text, Some(34)), @r"
        hint: see what it is:
          netemctl lab status; mend it:
          netemctl lab restart n1
        made a CA; next: netemctl pki
          issue NODE... --controller
          --viewer --more
        ");
    }
}
