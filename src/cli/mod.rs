//! The command line of netemctl.
//!
//! Each verb has a file with a clap struct and a `run` function.

mod agent;
mod apply;
mod check;
mod clear;
mod context;
mod counters;
mod doctor;
mod exit;
mod failure;
mod heal;
mod inventory;
mod inventory_in_use;
mod lab;
mod log;
mod new;
mod node_lookup;
mod output;
mod overlays;
mod partition;
mod partitions;
mod pki;
mod plan;
mod progress;
mod render;
mod report;
mod routed;
mod running;
mod scope;
mod send_namespace_socket;
mod set;
mod show;
mod ssh;
mod status;
mod timing;
mod topology_file;
mod unjudged;
mod unset;
mod verify;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};
use serde::Serialize;

pub use exit::Exit;

use self::{
    context::{Context, Deadline},
    failure::{Failure, NodeFailure, OrFail, exit_of},
    inventory_in_use::InventoryArgument,
    output::JsonForm,
};

/// Emulate the WAN of a topology file on a LAN; partition and measure it
#[derive(Debug, Parser)]
#[command(name = "netemctl", version, max_term_width = 100, next_help_heading = "Global options", after_long_help = AFTER_HELP)]
struct Cli {
    /// Print JSON, also for errors (=lines: on one line)
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "pretty",
        hide_possible_values = true
    )]
    json: Option<JsonForm>,

    #[arg(long, global = true, value_name = "DIR", help = "Directory of the lab [env: NETEMCTL_LAB_DIR]")]
    lab_dir: Option<PathBuf>,

    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Inventory of the nodes [env: NETEMCTL_INVENTORY]",
        long_help = "Inventory of the nodes: an inventory file, or a topology with an [inventory] table [env: NETEMCTL_INVENTORY]"
    )]
    inventory: Option<PathBuf>,

    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help = "Certificate folder [env: NETEMCTL_TLS_DIR]",
        long_help = "Folder of the controller's certificate, as pki issue makes it [env: NETEMCTL_TLS_DIR]"
    )]
    tls_dir: Option<PathBuf>,

    /// End after this many seconds (changes roll back)
    ///
    /// The exit code is 124 then.
    #[arg(long, global = true, value_name = "SECS", value_parser = seconds)]
    timeout: Option<Duration>,

    #[command(flatten)]
    ssh: ssh::Ssh,

    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
A first session on this machine:
  netemctl new --zones 3 > wan.toml     describe nine nodes in three zones
  netemctl lab up wan.toml              start nine network namespaces
  netemctl apply wan.toml               delay packets as in a WAN
  netemctl verify                       measure every pair of nodes
  netemctl set Z1 Z3 loss=5% --for 30s  change some links for 30 s
  netemctl partition Z3                 cut zone Z3 off
  netemctl heal                         end all partitions
  netemctl clear                        restore every interface
  netemctl lab down

Exit codes:
  0 ok, 1 failed, 2 usage, 3 bad file, 4 differs from what is wanted,
  5 refused, 6 unreachable, 7 not supported by the kernel, 8 no permission,
  9 conflict with another change, 10 answer not written, 124 timed out,
  126 cannot run the program, 127 no such program, 130 interrupted";

#[derive(Debug, Subcommand)]
enum Verb {
    New(new::New),
    Check(check::Check),
    Show(show::Show),
    Doctor(doctor::Doctor),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Verify(verify::Verify),
    Status(status::Status),
    Set(set::Set),
    Unset(unset::Unset),
    Partition(partition::Partition),
    Heal(heal::Heal),
    Clear(clear::Clear),
    Inventory(inventory::InventoryArgs),
    Lab(lab::LabArgs),
    Pki(pki::PkiArgs),
    Agent(agent::Agent),
    #[command(hide = true)]
    SendNamespaceSocket(send_namespace_socket::SendNamespaceSocket),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => match wanted_json() {
            Some(form) => return answer_of_clap(form, &error).into(),
            None => error.exit(),
        },
    };
    // netemctl reads the variables itself: an error of clap would name the option, even if only the variable is set.
    let lab_dir = cli.lab_dir.or_else(|| std::env::var_os("NETEMCTL_LAB_DIR").map(PathBuf::from));
    let tls_dir = cli.tls_dir.or_else(|| std::env::var_os("NETEMCTL_TLS_DIR").map(PathBuf::from));
    let context = Context {
        ssh: cli.ssh.options(cli.verb.changes_fleet(), cli.json.is_some()),
        json: cli.json,
        lab_dir,
        tls_dir,
        inventory: InventoryArgument::new(cli.inventory),
        deadline: cli.timeout.map(Deadline::after),
        ..Context::default()
    };
    match run(&context, cli.verb) {
        Ok(exit) => exit.into(),
        Err(failure) => context.report(&context.with_timeout_as_cause(failure.of_command(&called(&matches)))).into(),
    }
}

/// The command line, in which the help of each command has only the global options that the command uses.
fn command() -> clap::Command {
    let mut root = Cli::command();
    root.build();
    let global: Vec<_> = root.get_arguments().filter(|argument| argument.is_global_set()).cloned().collect();
    root.mut_subcommands(|command| {
        let verb = command.get_name().to_owned();
        with_hidden(command, &|id| {
            let is_used = match (verb.as_str(), id) {
                (_, "json") => true,
                ("agent", _) => false,
                ("new" | "check" | "show" | "pki", id) => id == "timeout",
                ("lab", id) => matches!(id, "lab_dir" | "timeout"),
                _ => true,
            };
            !is_used && global.iter().any(|argument| argument.get_id() == id)
        })
    })
}

/// Hides options of a command and of its subcommands from the help.
fn with_hidden(command: clap::Command, is_hidden: &dyn Fn(&str) -> bool) -> clap::Command {
    let command = command.mut_args(|argument| {
        let hide = argument.is_hide_set() || is_hidden(argument.get_id().as_str());
        argument.hide(hide)
    });
    command.mut_subcommands(|inner| with_hidden(inner, is_hidden))
}

/// The command that was called, with all of its options.
fn called(mut matches: &ArgMatches) -> clap::Command {
    let mut command = command();
    while let Some((name, inner)) = matches.subcommand()
        && let Some(subcommand) = command.find_subcommand(name)
    {
        command = subcommand.clone();
        matches = inner;
    }
    command
}

/// The form of `--json` in the command line, found without clap.
///
/// clap parses no options if it returns an error, the help or the version. netemctl prints these texts as a document
/// if `--json` is given. Arguments after `--` are for another program.
fn wanted_json() -> Option<JsonForm> {
    let mut arguments = std::env::args_os().take_while(|argument| argument != "--");
    arguments.find_map(|argument| match argument.to_str()? {
        "--json=lines" => Some(JsonForm::Lines),
        argument if argument == "--json" || argument.starts_with("--json=") => Some(JsonForm::Pretty),
        _ => None,
    })
}

/// The document of `--help` or `--version`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
enum Asked {
    /// The text of the help.
    Help(String),
    /// The version of netemctl.
    Version(&'static str),
}

/// Prints clap's answer as a document: an error, the help, or the version.
fn answer_of_clap(form: JsonForm, error: &clap::Error) -> Exit {
    let context = Context { json: Some(form), ..Context::default() };
    let asked = match error.kind() {
        ErrorKind::DisplayHelp => Asked::Help(error.to_string()),
        ErrorKind::DisplayVersion => Asked::Version(env!("CARGO_PKG_VERSION")),
        _ => return context.report(&usage(error)),
    };
    context.answer(&asked, String::new).unwrap_or_else(|failure| context.report(&failure))
}

/// A usage error from clap's text: the first paragraph is the message, and the other paragraphs are hints.
fn usage(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(Exit::Usage, "a command is missing").hint("list the commands: netemctl --help");
    }
    let text = error.to_string();
    let paragraphs = text.trim_start_matches("error: ").trim_end().split("\n\n").map(str::trim);
    let mut paragraphs = paragraphs
        .filter(|paragraph| !paragraph.starts_with("For more information"))
        .map(|paragraph| paragraph.strip_prefix("tip: ").unwrap_or(paragraph));
    let failure = Failure::new(Exit::Usage, paragraphs.next().unwrap_or_default());
    paragraphs.fold(failure, Failure::hint)
}

/// The longest `--timeout`, in seconds: one year.
const LONGEST_TIMEOUT: f64 = 365.0 * 86_400.0;

fn seconds(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('s').unwrap_or(text).parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= LONGEST_TIMEOUT => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write seconds above 0, such as 30 or 0.5".to_owned()),
    }
}

impl Verb {
    /// True if the command changes the state of the agents.
    fn changes_fleet(&self) -> bool {
        matches!(
            self,
            Self::Apply(_) | Self::Set(_) | Self::Unset(_) | Self::Partition(_) | Self::Heal(_) | Self::Clear(_)
        )
    }
}

/// Makes the allocator of glibc use freed memory again, instead of returning it to the kernel.
///
/// glibc maps large blocks directly, until the program frees such a block: then its size is the new limit (mallopt(3),
/// `M_MMAP_THRESHOLD`). A large inventory needs 40 MB of tokens and values for a moment. Without this function, the
/// kernel maps these pages twice.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20)));
}

fn run(context: &Context, verb: Verb) -> Result<Exit, Failure> {
    match &verb {
        // A timeout must not end an agent: without its agent, a node does not end timed changes.
        Verb::Agent(_) if context.is_limited() => {
            return Err(
                Failure::new(Exit::Usage, "--timeout does not apply to an agent").hint("an agent runs until SIGTERM")
            );
        }
        Verb::Agent(_) => {}
        Verb::Lab(verb) if verb.enters_namespaces() => {}
        Verb::Lab(verb) if verb.ends_programs() => context.watch("repeat the command to finish"),
        _ => {
            keep_freed_memory();
            context.watch("nothing was changed");
        }
    }
    match verb {
        Verb::New(verb) => verb.run(context),
        Verb::Check(verb) => verb.run(context),
        Verb::Show(verb) => verb.run(context),
        Verb::Doctor(verb) => verb.run(context),
        Verb::Plan(verb) => verb.run(context),
        Verb::Apply(verb) => verb.run(context),
        Verb::Verify(verb) => verb.run(context),
        Verb::Status(verb) => verb.run(context),
        Verb::Set(verb) => verb.run(context),
        Verb::Unset(verb) => verb.run(context),
        Verb::Partition(verb) => verb.run(context),
        Verb::Heal(verb) => verb.run(context),
        Verb::Clear(verb) => verb.run(context),
        Verb::Inventory(verb) => verb.run(context),
        Verb::Lab(verb) => verb.run(context),
        Verb::Pki(verb) => verb.run(context),
        Verb::Agent(verb) => verb.run(context),
        Verb::SendNamespaceSocket(verb) => verb.run(),
    }
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod schema;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io};

    use super::*;
    use crate::{
        fleet::{CallError, Phase, TransactionError},
        lab::LabError,
    };

    /// The commands without subcommands: the words of each command, and its options.
    ///
    /// The options include those of the parent commands.
    fn commands() -> Vec<(Vec<String>, clap::Command)> {
        fn below(words: &[String], command: &clap::Command, all: &mut Vec<(Vec<String>, clap::Command)>) {
            if !command.has_subcommands() {
                all.push((words.to_vec(), command.clone()));
            }
            for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
                below(&[words, &[subcommand.get_name().to_owned()]].concat(), subcommand, all);
            }
        }
        let mut all = Vec::new();
        below(&[], &command(), &mut all);
        all
    }

    /// One failure for each hint that several commands can give.
    fn failures() -> Vec<Failure> {
        let nobody = |phase| TransactionError::Nodes {
            phase,
            failures: {
                let error = io::Error::from_raw_os_error(111);
                BTreeMap::from([("n1".parse().unwrap(), CallError::Unreachable { at: "n1.sock".to_owned(), error })])
            },
            left: BTreeMap::new(),
        };
        let labs = [LabError::Down, LabError::NoController, LabError::InUse(String::new())];
        let of_changes = [
            TransactionError::Disagreement(BTreeMap::new()),
            TransactionError::Changing("n1".parse().unwrap()),
            nobody(Phase::Read),
            nobody(Phase::Confirm),
        ];
        let of_changes = of_changes.into_iter().map(Failure::from);
        labs.into_iter().map(Failure::from).chain(of_changes).chain([node_lookup::no_inventory(None)]).collect()
    }

    /// The command that a clause of a hint is about: the command in the clause, or else the failed command.
    fn meant<'a>(clause: &str, all: &'a [(Vec<String>, clap::Command)], own: &'a clap::Command) -> &'a clap::Command {
        let Some((_, words)) = clause.split_once("netemctl ") else { return own };
        let named = all.iter().find(|(names, _)| words.starts_with(&names.join(" ")));
        &named.unwrap_or_else(|| panic!("no command: {clause}")).1
    }

    #[test]
    fn no_hint_names_an_option_that_the_command_lacks() {
        let all = commands();
        for (words, command) in &all {
            for hint in failures().into_iter().flat_map(|failure| failure.of_command(command).hints) {
                for clause in hint.text.split([',', ';']) {
                    let options = clause.split_whitespace().filter_map(|word| word.strip_prefix("--"));
                    let meant = meant(clause, &all, command);
                    for option in options.map(|option| option.trim_end_matches(|c: char| !c.is_alphanumeric())) {
                        let has = meant.get_arguments().any(|argument| argument.get_long() == Some(option));
                        assert!(has, "{} lacks --{option}: {}", words.join(" "), hint.text);
                    }
                }
            }
        }
    }

    #[test]
    fn every_command_with_an_option_gives_the_hint_about_the_option() {
        let hint_at = |option: &str| {
            let has_hint = |command: &clap::Command| {
                let hints = failures().into_iter().flat_map(|failure| failure.of_command(command).hints);
                hints.into_iter().any(|hint| hint.text.ends_with(option))
            };
            let commands = commands().into_iter().filter(|(_, command)| has_hint(command));
            commands.map(|(words, _)| words.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(hint_at("--wait 30s"), ["apply", "set", "unset", "partition", "heal", "clear"]);
        assert_eq!(hint_at("--allow-missing"), ["apply", "verify", "set", "unset", "partition", "heal", "clear"]);
        assert_eq!(hint_at("--if-idle"), ["lab down"]);
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        for (_, code, meaning) in Exit::ALL {
            // The help may have a line break between any two words.
            let help = AFTER_HELP.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(help.contains(&format!("{code} {meaning}")), "{code}");
        }
    }

    #[test]
    fn every_exit_code_is_in_the_readme_and_in_docs_orchestrating() {
        for text in [include_str!("../../README.md"), include_str!("../../docs/orchestrating.md")] {
            for (_, code, meaning) in Exit::ALL {
                assert!(text.contains(&format!("| {code} | {meaning} |")), "{code}");
            }
        }
    }
}
