//! Splits a block of commands into steps: a command with its documented output. Also compares documented with real
//! output.

use super::blocks::Block;

/// A command with its documented output.
#[derive(Debug)]
pub(crate) struct Step {
    /// The number of the command's line in its document.
    pub(crate) line: usize,
    pub(crate) command: String,
    /// The documented output, line by line. Empty if the document shows no output.
    pub(crate) shown: Vec<String>,
}

impl Step {
    /// True if the documented output contains an error: the command has to fail.
    pub(crate) fn fails(&self) -> bool {
        self.shown.iter().any(|line| line.starts_with("error: "))
    }
}

/// The commands of a block. In a `console` block, commands follow `$ ` and all other lines are output. In a `sh` block
/// and in an indented block, each line is a command. A backslash at the end of a line continues the command.
pub(crate) fn steps(block: &Block) -> Vec<Step> {
    let is_console = block.language == "console";
    let mut steps: Vec<Step> = Vec::new();
    let mut continues = false;
    for (text, line) in block.lines.iter().zip(block.line..) {
        let command = if is_console { text.strip_prefix("$ ") } else { Some(text.as_str()) };
        match (command, steps.last_mut()) {
            (_, Some(last)) if continues => last.command += &format!("\n{text}"),
            (Some(command), _) => steps.push(Step { line, command: command.to_owned(), shown: Vec::new() }),
            (None, Some(last)) => last.shown.push(text.clone()),
            (None, None) => panic!("{}: output without a command", block.place()),
        }
        continues = text.ends_with('\\') && (command.is_some() || continues);
    }
    steps.retain(|step| !step.command.trim().is_empty());
    steps
}

/// True if the printed output matches the documented output. Numbers may differ in digits, sign and decimal point.
/// Words of 32 or more hexadecimal digits and the width of white space may differ too. `...` matches any text, across
/// lines.
pub(crate) fn is_as_shown(shown: &[String], printed: &str) -> bool {
    let shown = plain(&shown.join("\n"));
    let printed = plain(printed);
    let mut parts = shown.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        let at = if parts.peek().is_some() {
            rest.find(part)
        } else {
            rest.len().checked_sub(part.len()).filter(|at| rest.is_char_boundary(*at) && rest[*at..] == *part)
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// The text with `0` for each number, `f` for each long hexadecimal word, and single spaces.
fn plain(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| {
        let words: Vec<String> = line.split_whitespace().map(plain_word).collect();
        words.join(" ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn plain_word(word: &str) -> String {
    let mut plain = String::new();
    let mut rest = word
        .strip_prefix(['+', '-'])
        .filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        .unwrap_or(word);
    while let Some(first) = rest.chars().next() {
        let hex = rest.len() - rest.trim_start_matches(|digit: char| digit.is_ascii_hexdigit()).len();
        let number = rest.len()
            - rest.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == '.' || digit == ',').len();
        let length = if hex >= 32 {
            plain.push('f');
            hex
        } else if first.is_ascii_digit() {
            plain.push('0');
            // A full stop or comma after a number is punctuation.
            rest[..number].trim_end_matches(['.', ',']).len()
        } else {
            plain.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    plain
}
