//! A block of commands as steps, each a command with the output that is shown below it, and the rule by which that
//! output is compared with what the command prints.

use super::blocks::Block;

/// A command with the output that is shown.
#[derive(Debug)]
pub(crate) struct Step {
    /// The number of the command's line in its document.
    pub(crate) line: usize,
    pub(crate) command: String,
    /// Nothing: the document shows no output, or the command prints none.
    pub(crate) shown: Vec<String>,
}

impl Step {
    /// Whether the document shows that the command fails.
    pub(crate) fn fails(&self) -> bool {
        self.shown.iter().any(|line| line.starts_with("error: "))
    }
}

/// The commands of a block. In a `console` block they stand behind `$ ` and the other lines are output; in a `sh` block
/// and an indented one every line is a command. A command goes on below a line that ends in a backslash.
pub(crate) fn steps(block: &Block) -> Vec<Step> {
    let is_console = block.language == "console";
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (text, line) in block.lines.iter().zip(block.line..) {
        let command = if is_console { text.strip_prefix("$ ") } else { Some(text.as_str()) };
        match (command, steps.last_mut()) {
            (_, Some(last)) if goes_on => last.command += &format!("\n{text}"),
            (Some(command), _) => steps.push(Step { line, command: command.to_owned(), shown: Vec::new() }),
            (None, Some(last)) => last.shown.push(text.clone()),
            (None, None) => panic!("{}: output without a command", block.place()),
        }
        goes_on = text.ends_with('\\') && (command.is_some() || goes_on);
    }
    steps.retain(|step| !step.command.trim().is_empty());
    steps
}

/// Whether a command prints what the document shows. Numbers may differ, digits, sign and decimal point alike, and so may
/// words of 32 hexadecimal digits and more, and the spaces of a table. `...` stands for any text, whole lines included.
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

/// A text with each number as `0`, each long hexadecimal word as `f`, and one space for several.
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
            // A full stop or a comma behind a number is no part of it.
            rest[..number].trim_end_matches(['.', ',']).len()
        } else {
            plain.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    plain
}
