//! `--help`, `-h` and `--version`. One snapshot has the help of all commands, so each change of a help text is visible.

use super::harness::{COLUMNS, Sandbox};

#[test]
fn the_help_of_every_command_is_as_it_was() {
    insta::assert_snapshot!("help", help_of(&Sandbox::new(), "", COLUMNS));
}

/// The help of a command and of all its subcommands, which are taken from the help text.
fn help_of(sandbox: &Sandbox, command: &str, columns: &str) -> String {
    help_by(sandbox, command, "--help", columns)
}

fn help_by(sandbox: &Sandbox, command: &str, option: &str, columns: &str) -> String {
    let script = format!("COLUMNS={columns} \"$NETEMCTL\" {command} {option}");
    let help = sandbox.run_other("sh", ["-c", &script]).ended(0);
    assert_eq!(help.stderr, "", "help goes to stdout");
    let mut text = format!("$ netemctl{command} {option}\n{}\n", help.stdout);
    let commands = help.stdout.split_once("\nCommands:\n").map_or("", |(_, commands)| commands);
    // A line with a command's name is indented by two spaces. Continuation lines are indented by more.
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let lines = commands.lines().take_while(|line| line.starts_with("  ")).filter(is_name);
    for name in lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        text += &help_by(sandbox, &format!("{command} {name}"), option, columns);
    }
    text
}

/// clap also wraps the text below the options. A wrapped example cannot be copied.
#[test]
fn examples_fit_on_a_terminal_of_80_columns() {
    let sandbox = Sandbox::new();
    let examples = |columns| -> Vec<String> {
        let help = help_of(&sandbox, "", columns);
        let is_example = |line: &&str| line.starts_with("  netemctl ") || line.contains("  # ");
        help.lines().filter(is_example).map(str::to_owned).collect()
    };
    let wide = examples("100");
    assert!(wide.len() > 10, "{wide:?}");
    assert_eq!(examples("80"), wide);
}

#[test]
fn the_short_help_is_the_summary_of_the_long_one() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["apply", "-h"]), @"
    --- stdout
    Put a topology in force on all nodes, or on none

    Usage: netemctl apply [OPTIONS] <TOPOLOGY>

    Arguments:
      <TOPOLOGY>  Topology file, or - for stdin

    Options:
          --fresh  Also remove all changes and partitions
      -h, --help   Print help (see more with '--help')

    Fleet:
          --wait <TIME>    Retry for this long
          --only <NODES>   Change these nodes only (hostlist)
          --allow-missing  Leave out nodes that do not answer

    Global options:
          --json[=<FORM>]     Print JSON, also for errors (=lines: on one line)
          --lab-dir <DIR>     Directory of the lab [env: NETEMCTL_LAB_DIR]
          --inventory <FILE>  Inventory of the nodes [env: NETEMCTL_INVENTORY]
          --tls-dir <DIR>     Certificate folder [env: NETEMCTL_TLS_DIR]
          --timeout <SECS>    End after this many seconds (changes roll back)

    SSH options:
          --ssh <COMMAND>       SSH command to run [env: NETEMCTL_SSH]
          --ssh-sudo            Run the remote agent with sudo -n
          --push                Copy this netemctl to hosts that lack this build
          --push-binary <FILE>  Copy this file instead of this netemctl
    --- stderr
    --- exit status: 0
    ");
}

#[test]
fn the_short_help_has_one_line_an_option_on_a_terminal_of_80_columns() {
    let sandbox = Sandbox::new();
    let verbs = [
        "new",
        "check",
        "show",
        "doctor",
        "plan",
        "apply",
        "verify",
        "status",
        "set",
        "unset",
        "partition",
        "heal",
        "agent",
    ];
    let help: String = verbs.iter().map(|verb| help_by(&sandbox, &format!(" {verb}"), "-h", "80")).collect();
    // A continuation line is indented as far as the descriptions.
    let second: Vec<&str> = help.lines().filter(|line| line.starts_with("            ")).collect();
    assert_eq!(second, [""; 0]);
}

#[test]
fn the_version_is_one_line() {
    insta::assert_snapshot!(Sandbox::new().run(["--version"]), @"
    --- stdout
    netemctl [VERSION]
    --- stderr
    --- exit status: 0
    ");
}
