//! Splits a shell line into its commands, and each command into words.

/// One word of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// True if the shell may replace the word by file names: it has a `[`, `*` or `?` outside quotes.
    pub(super) is_glob: bool,
}

/// The simple commands of a line, separated by `;`, `|` and `&`.
///
/// Comments and redirections are left out.
pub(super) fn commands(line: &str) -> Vec<Vec<Word>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None | Some('"'), '\\') => {
                // A backslash before a line break continues the line, and does not end the word.
                match characters.next() {
                    Some('\n') | None => {}
                    Some(next) => word.get_or_insert_default().text.push(next),
                }
            }
            (Some(_), _) => word.get_or_insert_default().text.push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => while characters.next_if(|next| *next != '\n').is_some() {},
            (None, '&') if word.as_ref().is_some_and(|word| word.text.ends_with('>')) => {
                word.get_or_insert_default().text.push('&');
            }
            (None, ';' | '|' | '&' | '\n') => {
                commands.last_mut().expect("the list is not empty").extend(word.take());
                commands.push(Vec::new());
            }
            (None, _) if character.is_whitespace() => {
                commands.last_mut().expect("the list is not empty").extend(word.take());
            }
            (None, _) => {
                let word = word.get_or_insert_default();
                word.is_glob |= matches!(character, '[' | '*' | '?');
                word.text.push(character);
            }
        }
    }
    commands.last_mut().expect("the list is not empty").extend(word);
    commands.into_iter().map(without_redirections).filter(|words| !words.is_empty()).collect()
}

fn without_redirections(words: Vec<Word>) -> Vec<Word> {
    let mut words = words.into_iter();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        let without_number = word.text.trim_start_matches(|digit: char| digit.is_ascii_digit());
        match without_number.trim_start_matches(['<', '>']) {
            _ if !without_number.starts_with(['<', '>']) => kept.push(word),
            // The file of the redirection is the next word.
            "" => drop(words.next()),
            _ => {}
        }
    }
    kept
}
