//! Tests that netemctl understands every `netemctl` command in the documents and in the help.

use std::collections::BTreeSet;

use clap::{Parser, error::ErrorKind};

use super::{
    blocks::{Document, blocks, documents},
    console::steps,
    prose::spans,
    words::{Word, commands},
};
use crate::cli::{Cli, command};

/// Placeholders in commands that a document describes, each with an example value.
const PLACEHOLDERS: [(&str, &str); 5] =
    [("TIME", "1s"), ("SECS", "1"), ("PERCENT", "1"), ("N", "1"), ("NODES", "n[1-3]")];

/// Options of scripts/install, curl and cargo that documents name without the program.
const OTHER_OPTIONS: [&str; 7] = ["--uninstall", "--dry-run", "--prefix", "--cacert", "--cert", "--key", "--lib"];

/// Other programs that documents name with their options.
const OTHER_PROGRAMS: [&str; 5] = ["cargo", "scripts/bench", "scripts/test", "ssh", "systemd-analyze"];

/// The reason why a `netemctl` command is invalid; `None`: the command is valid, or is another program's.
fn mistake(words: &[Word], may_be_described: bool) -> Option<String> {
    let is_before = |word: &&Word| {
        ["sudo", "time", "!", "if", "then", "do", "while"].contains(&&*word.text)
            || (word.text.contains('=') && !word.text.starts_with('-'))
    };
    let mut words = words.iter().skip_while(is_before);
    if words.next()?.text != "netemctl" {
        return None;
    }
    let mut words: Vec<&Word> = words.collect();
    if let Some(glob) = words.iter().find(|word| word.is_glob) {
        return Some(format!("{} is not quoted, so the shell may take it for names of files", glob.text));
    }
    if let Some(at) = words.iter().position(|word| word.text == "--") {
        let inner: Vec<Word> = words[at + 1..].iter().map(|word| (*word).clone()).collect();
        if let Some(mistake) = mistake(&inner, may_be_described) {
            return Some(mistake);
        }
        words.truncate(at + 2);
    }
    let value =
        |word: &str| PLACEHOLDERS.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| value).to_owned();
    let arguments: Vec<String> = words.iter().map(|word| value(&word.text)).collect();
    // `netemctl COMMAND --help` means the help of any command.
    if may_be_described && arguments.first().is_none_or(|verb| verb == "COMMAND") {
        return None;
    }
    match Cli::try_parse_from(["netemctl".to_owned()].into_iter().chain(arguments)) {
        Ok(_) => None,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => None,
        // A sentence may name a command without its required arguments.
        Err(error)
            if may_be_described
                && matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                ) =>
        {
            None
        }
        Err(error) => error.to_string().lines().next().map(str::to_owned),
    }
}

/// The mistakes in the commands of a document's blocks.
fn mistakes_in_blocks(document: &Document) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut check = |line: usize, command: &str, may_be_described: bool| {
        let found = commands(command).iter().filter_map(|words| mistake(words, may_be_described)).collect::<Vec<_>>();
        mistakes.extend(found.iter().map(|mistake| format!("{}:{line}: {command}: {mistake}", document.0)));
    };
    for block in blocks(document) {
        match block.language.as_str() {
            "console" | "sh" => {
                for command in &block.first {
                    check(block.line, command, false);
                }
                for step in steps(&block) {
                    check(step.line, &step.command, false);
                }
            }
            // A block without a language is a picture. Its lines may begin with a command, or with options.
            "" => {
                for (text, line) in block.lines.iter().zip(block.line..) {
                    let left = text.split("  ").next().unwrap_or_default();
                    match left {
                        _ if left.starts_with("netemctl ") => check(line, left, true),
                        _ if left.starts_with("--") => check(line, &format!("netemctl partition {left}"), true),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    mistakes
}

#[test]
fn every_command_in_a_block_of_a_document_is_understood() {
    let mistakes: Vec<String> = documents().iter().flat_map(mistakes_in_blocks).collect();
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn every_command_in_a_sentence_of_a_document_is_understood() {
    let mut mistakes = Vec::new();
    for document in documents() {
        for (line, span) in spans(&document) {
            for words in commands(&span) {
                mistakes
                    .extend(mistake(&words, true).map(|mistake| format!("{}:{line}: `{span}`: {mistake}", document.0)));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// The command and all its subcommands, at every level.
fn all_commands(command: clap::Command) -> Vec<clap::Command> {
    let below: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    let mut all = vec![command];
    all.extend(below.into_iter().flat_map(all_commands));
    all
}

#[test]
fn every_option_in_a_sentence_of_a_document_exists() {
    let commands = all_commands(command());
    let arguments = commands.iter().flat_map(clap::Command::get_arguments);
    let mut known: BTreeSet<String> =
        arguments.filter_map(clap::Arg::get_long).map(|long| format!("--{long}")).collect();
    known.extend(["--help", "--version"].into_iter().chain(OTHER_OPTIONS).map(str::to_owned));
    let mut unknown = Vec::new();
    for document in documents() {
        for (line, span) in spans(&document) {
            if span.split(' ').any(|word| OTHER_PROGRAMS.contains(&word)) {
                continue;
            }
            let options = span.split([' ', '[', ']', '=']).filter(|word| word.len() > 2 && word.starts_with("--"));
            let missing = options.filter(|option| !known.contains(*option));
            unknown.extend(missing.map(|option| format!("{}:{line}: {option}", document.0)));
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn every_example_in_the_help_is_understood() {
    let mut mistakes = Vec::new();
    let mut examples = 0;
    for command in all_commands(command().max_term_width(1000)) {
        let help = command.clone().render_long_help().to_string();
        let lines = help.lines().filter_map(|line| line.trim_start().strip_prefix("netemctl "));
        for line in lines.map(|line| format!("netemctl {}", line.split("  ").next().unwrap_or_default())) {
            examples += 1;
            let found = commands(&line).iter().filter_map(|words| mistake(words, false)).collect::<Vec<_>>();
            mistakes.extend(found.iter().map(|mistake| format!("{}: {line}: {mistake}", command.get_name())));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(examples > 10, "{examples} examples");
}
