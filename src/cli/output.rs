//! Prints the answer of a command on stdout, and everything else on stderr.
//!
//! The answer is a JSON document for programs, or a drawing for people.

use std::{
    io::{self, IsTerminal, Write},
    sync::PoisonError,
};

use serde::Serialize;

use super::{
    Context, Exit, Failure, NodeFailure,
    render::{columns, escape, fitted, is_styled, lines_of_nodes},
};
use crate::topology::{FileReport, Problem};

/// The width of excerpts from files on stderr, in columns.
fn width() -> usize {
    columns(io::stderr()).unwrap_or(100)
}

/// The format of JSON documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum JsonForm {
    /// Indented, for people to read.
    Pretty,
    /// One document on one line.
    Lines,
}

/// The document of a command that failed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Report<'a> {
    /// The exit code of the command.
    exit_code: u8,
    error: &'a Failure,
}

impl Context {
    /// Stops [`Context::watch`]: from now on, the command itself reports how it ends.
    pub(super) fn settle(&self) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Prints the answer: as JSON if `--json` is given, otherwise as a drawing that fits the terminal.
    ///
    /// Returns the exit code of a successful command.
    pub(super) fn answer(&self, data: &impl Serialize, drawn: impl Fn() -> String) -> Result<Exit, Failure> {
        self.answer_within(columns(io::stdout()), data, drawn)
    }

    /// Like [`Self::answer`], for a text that users copy, such as a file or commands.
    ///
    /// Does not break its lines.
    pub(super) fn answer_as_is(&self, data: &impl Serialize, text: impl Fn() -> String) -> Result<Exit, Failure> {
        self.answer_within(None, data, text)
    }

    fn answer_within(
        &self,
        columns: Option<usize>,
        data: &impl Serialize,
        drawn: impl Fn() -> String,
    ) -> Result<Exit, Failure> {
        self.settle();
        let printed = self.print(columns, data, &drawn);
        printed.map(|()| Exit::Ok).map_err(|failure| match drawn().lines().next() {
            // The command has done its work, and only stderr can report this.
            Some(first) => failure.hint(format!("the command succeeded: {}", first.trim_start_matches(escape::BOLD))),
            None => failure,
        })
    }

    fn print(&self, columns: Option<usize>, data: &impl Serialize, drawn: impl Fn() -> String) -> Result<(), Failure> {
        let text = match self.json {
            Some(form) => document(data, form)?,
            None => escape::drawing(&drawn(), is_styled(&io::stdout()), columns),
        };
        let mut stdout = io::stdout().lock();
        let line_break = if text.ends_with('\n') { "" } else { "\n" };
        let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(line_break.as_bytes()));
        match printed.and_then(|()| stdout.flush()) {
            // A broken pipe is no failure: the reader of stdout, such as head(1), has ended.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Unwritten, format!("cannot write the answer to stdout: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Clears the screen of a terminal, for an answer that replaces the one before.
    pub(super) fn clear_screen(&self) {
        if !self.is_json() && is_styled(&io::stdout()) {
            // If the terminal is gone, printing the answer reports it.
            drop(io::stdout().write_all(b"\x1b[H\x1b[2J"));
        }
    }

    /// Reports a failure and returns its exit code.
    pub(super) fn report(&self, failure: &Failure) -> Exit {
        self.settle();
        self.say(failure)
    }

    /// Like [`Self::report`], for [`Self::watch`], which holds the lock of `settled`.
    pub(super) fn say(&self, failure: &Failure) -> Exit {
        if self.json.is_some() {
            let report = Report { exit_code: failure.exit.code(), error: failure };
            // If stdout is closed, nobody reads the report.
            drop(self.print(None, &report, String::new));
        }
        self.complain(failure);
        failure.exit
    }

    /// Prints a failure on stderr.
    ///
    /// With `--json`, the document on stdout has the failure as well.
    pub(super) fn complain(&self, failure: &Failure) {
        // If both streams are the same terminal, these lines would be in the middle of the document.
        if self.json.is_some() && io::stdout().is_terminal() && io::stderr().is_terminal() {
            return;
        }
        let styled = is_styled(&io::stderr());
        if let Some(rejected) = &failure.rejected {
            talk_styled(&rejected.render(styled, width()), styled);
        } else {
            talk_marked("error:", "1;31", &failure.message);
        }
        // An error of several nodes is printed once.
        let said = failure.nodes.iter().map(|(node, said)| (node, said.clone()));
        let left = failure.left.said().map(|(node, said)| (node, NodeFailure::of(said)));
        for line in lines_of_nodes(said.chain(left)).lines() {
            talk(&format!("  {line}\n"));
        }
        for hint in &failure.hints {
            talk(&format!("hint: {}\n", hint.text));
        }
    }

    /// Prints warnings about a file on stderr, with the lines of the file.
    ///
    /// With `--json`, the answer has the warnings.
    pub(super) fn warn(&self, warnings: &FileReport) {
        if self.is_json() {
            return;
        }
        let styled = is_styled(&io::stderr());
        talk_styled(&warnings.render(styled, width()), styled);
    }

    /// Like [`Self::warn`], but prints each warning on one line, without the lines of the file.
    pub(super) fn mention(&self, warnings: &FileReport) {
        for Problem { message, path, line, .. } in warnings.problems() {
            self.warn_of(&format!("{message} ({path}:{line})"));
        }
    }

    /// Prints a warning on stderr. With `--json`, the answer has the warning.
    pub(super) fn warn_of(&self, warning: &str) {
        if !self.is_json() {
            talk_marked("warning:", "1;33", warning);
        }
    }
}

/// The JSON document of a command's answer.
pub(super) fn document(data: &impl Serialize, form: JsonForm) -> Result<String, Failure> {
    let text = match form {
        JsonForm::Pretty => serde_json::to_string_pretty(data),
        JsonForm::Lines => serde_json::to_string(data),
    };
    Ok(escape::document(&text.map_err(|error| Failure::new(Exit::Failed, error))?))
}

/// Prints a text on stderr that may have netemctl's own colours.
fn talk_styled(text: &str, styled: bool) {
    talk_raw(&if styled { escape::coloured(text) } else { escape::escaped(text) });
}

/// Prints a coloured word and a sentence on stderr.
fn talk_marked(word: &str, colour: &str, text: &str) {
    let text = spoken(&format!("{word} {text}\n"));
    match text.strip_prefix(word).filter(|_| is_styled(&io::stderr())) {
        Some(rest) => talk_raw(&format!("\x1b[{colour}m{word}\x1b[0m{rest}")),
        None => talk_raw(&text),
    }
}

/// Prints a text on stderr that is not the answer.
pub(super) fn talk(text: &str) {
    talk_raw(&spoken(text));
}

/// The text, escaped and fitted to the terminal of stderr.
fn spoken(text: &str) -> String {
    fitted(&escape::escaped(text), columns(io::stderr()))
}

/// Prints a text on stderr without changes.
///
/// Only for escaped text, and for netemctl's own escape sequences.
pub(super) fn talk_raw(text: &str) {
    // If stderr is closed, nobody reads the text.
    drop(io::stderr().write_all(text.as_bytes()));
}
