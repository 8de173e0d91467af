//! What a command prints: the answer on stdout, as data for programs or drawn for people; everything else on stderr.

use std::{
    io::{self, IsTerminal, Write},
    sync::PoisonError,
};

use serde::Serialize;

use super::{
    Context, Exit, Failure,
    failure::NodeFailure,
    render::{columns, escape, fitted, folded, saying},
};
use crate::topology::{Problem, Warnings};

/// How wide the lines of files are drawn on stderr.
fn width() -> usize {
    columns(io::stderr()).unwrap_or(100)
}

/// How documents are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum JsonForm {
    /// Indented, for people to read.
    Pretty,
    /// One document on one line.
    Lines,
}

/// What a command that failed prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Report<'a> {
    /// What the command ends with.
    exit_code: u8,
    error: &'a Failure,
}

impl Context {
    /// From now on nothing but the command itself says how it ends.
    pub(super) fn settle(&self) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Prints the answer: as data for programs, or drawn for people and fitted to their terminal, whichever is asked for.
    pub(super) fn answer(&self, data: &impl Serialize, drawn: impl Fn() -> String) -> Result<(), Failure> {
        self.answer_within(columns(io::stdout()), data, drawn)
    }

    /// The same for a text that is copied, a file or commands: its lines are as long as they are.
    pub(super) fn answer_as_is(&self, data: &impl Serialize, text: impl Fn() -> String) -> Result<(), Failure> {
        self.answer_within(None, data, text)
    }

    fn answer_within(
        &self,
        columns: Option<usize>,
        data: &impl Serialize,
        drawn: impl Fn() -> String,
    ) -> Result<(), Failure> {
        self.settle();
        self.print(columns, data, &drawn).map_err(|failure| {
            // What was done is done, and stderr is all that is left to say so.
            let drawn = drawn();
            match drawn.lines().next() {
                Some(first) => {
                    failure.hint(format!("the command has done its work: {}", first.trim_start_matches(escape::BOLD)))
                }
                None => failure,
            }
        })
    }

    fn print(&self, columns: Option<usize>, data: &impl Serialize, drawn: impl Fn() -> String) -> Result<(), Failure> {
        let failed = |error| Failure::new(Exit::Failed, error);
        let text = match self.json {
            Some(JsonForm::Pretty) => escape::document(&serde_json::to_string_pretty(data).map_err(failed)?),
            Some(JsonForm::Lines) => escape::document(&serde_json::to_string(data).map_err(failed)?),
            None => escape::drawing(&drawn(), Self::is_styled(&io::stdout()), columns),
        };
        let mut stdout = io::stdout().lock();
        let line_break = if text.ends_with('\n') { "" } else { "\n" };
        let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(line_break.as_bytes()));
        match printed.and_then(|()| stdout.flush()) {
            // Whoever reads our output has had enough of it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Unwritten, format!("cannot write the answer to stdout: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Reports a failure and answers with its exit code.
    pub(super) fn report(&self, failure: &Failure) -> Exit {
        self.settle();
        self.say(failure)
    }

    pub(super) fn say(&self, failure: &Failure) -> Exit {
        if self.json.is_some() {
            let report = Report { exit_code: failure.exit.code(), error: failure };
            // There is nobody left to tell if stdout is gone.
            drop(self.print(None, &report, String::new));
        }
        self.complain(failure);
        failure.exit
    }

    /// Says a failure on stderr, next to a document that has it as well.
    pub(super) fn complain(&self, failure: &Failure) {
        // On one terminal the sentences would be in the middle of the document.
        if self.json.is_some() && io::stdout().is_terminal() && io::stderr().is_terminal() {
            return;
        }
        let styled = Self::is_styled(&io::stderr());
        if let Some(rejected) = &failure.rejected {
            talk_styled(&rejected.render(styled, width()), styled);
        } else {
            talk_marked("error:", "1;31", &failure.message);
        }
        // What many nodes say alike is said once.
        let said = failure.nodes.iter().map(|(node, said)| (node, said.clone()));
        for (said, nodes) in folded(said.chain(failure.left.said().map(|(node, said)| (node, NodeFailure::of(said))))) {
            talk(&format!("  {}\n", saying(&said, &nodes)));
        }
        for hint in &failure.hints {
            talk(&format!("hint: {}\n", hint.text));
        }
    }

    /// Whether colours are wanted on this stream (`NO_COLOR`: no-color.org).
    pub(super) fn is_styled(stream: &impl IsTerminal) -> bool {
        stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Says on stderr what is probably not meant in a file, with the lines. For programs it is in the answer.
    pub(super) fn warn(&self, warnings: &Warnings) {
        if self.is_json() {
            return;
        }
        let styled = Self::is_styled(&io::stderr());
        talk_styled(&warnings.render(styled, width()), styled);
    }

    /// The same, in a line each.
    pub(super) fn mention(&self, warnings: &Warnings) {
        if self.is_json() {
            return;
        }
        for Problem { message, path, line, .. } in warnings.problems() {
            talk_marked("warning:", "1;33", &format!("{message} ({path}:{line})"));
        }
    }
}

/// Says what may have colours of ours.
fn talk_styled(text: &str, styled: bool) {
    talk_raw(&if styled { escape::coloured(text) } else { escape::escaped(text) });
}

/// Says a sentence behind a word that has a colour.
fn talk_marked(word: &str, colour: &str, text: &str) {
    let text = spoken(&format!("{word} {text}\n"));
    match text.strip_prefix(word).filter(|_| Context::is_styled(&io::stderr())) {
        Some(rest) => talk_raw(&format!("\x1b[{colour}m{word}\x1b[0m{rest}")),
        None => talk_raw(&text),
    }
}

/// Says something that is not the answer.
pub(super) fn talk(text: &str) {
    talk_raw(&spoken(text));
}

/// The text as stderr gets it.
fn spoken(text: &str) -> String {
    fitted(&escape::escaped(text), columns(io::stderr()))
}

/// The same with colours, or with what moves the cursor: text of ours alone.
pub(super) fn talk_raw(text: &str) {
    // There is nobody left to tell if stderr is gone.
    drop(io::stderr().write_all(text.as_bytes()));
}
