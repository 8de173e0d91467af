//! What `--help` and `--version` say: one snapshot of every command, so that a change of the help is seen.

use super::harness::{COLUMNS, Sandbox};

#[test]
fn the_help_of_every_command_is_as_it_was() {
    insta::assert_snapshot!("help", help_of(&Sandbox::new(), "", COLUMNS));
}

/// The help of a command and of all commands below it, found as a user would find them.
fn help_of(sandbox: &Sandbox, command: &str, columns: &str) -> String {
    help_by(sandbox, command, "--help", columns)
}

fn help_by(sandbox: &Sandbox, command: &str, option: &str, columns: &str) -> String {
    let script = format!("COLUMNS={columns} \"$NETEMCTL\" {command} {option}");
    let help = sandbox.run_other("sh", ["-c", &script]).ended(0);
    assert_eq!(help.stderr, "", "help that is asked for is data");
    let mut text = format!("$ netemctl{command} {option}\n{}\n", help.stdout);
    let commands = help.stdout.split_once("\nCommands:\n").map_or("", |(_, commands)| commands);
    // The name of a command is indented by two spaces, the second line of its description by more.
    let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let lines = commands.lines().take_while(|line| line.starts_with("  ")).filter(is_name);
    for name in lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        text += &help_by(sandbox, &format!("{command} {name}"), option, columns);
    }
    text
}

/// clap wraps what stands below the options as well, and an example that is wrapped cannot be copied.
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
    Put a topology in force: on all nodes or on none, read back from every kernel

    Usage: netemctl apply [OPTIONS] <TOPOLOGY>

    Arguments:
      <TOPOLOGY>  The topology file, or - for stdin

    Options:
          --fresh             Start without the changes and partitions that lie over what is in force
          --json[=<FORM>]     Print one JSON document on stdout, errors included; lines: on one line
          --lab-dir <DIR>     The lab's directory, if it is not the usual one [env: NETEMCTL_LAB_DIR]
          --inventory <FILE>  Where the nodes are: an inventory file, or a topology with an [inventory]
                              table [env: NETEMCTL_INVENTORY]
          --tls-dir <DIR>     The folder of the controller's certificate, as pki issue makes it [env:
                              NETEMCTL_TLS_DIR]
          --timeout <SECS>    End after so many seconds with exit code 124, rolled back as by Ctrl-C
      -h, --help              Print help (see more with '--help')

    Fleet:
          --wait <TIME>    Try again for so long, instead of failing, while another controller is at it
                           or a node does not answer
          --only <NODES>   Change these nodes only, a hostlist; status shows the others as behind
          --allow-missing  Change without the nodes that do not answer; status shows them as behind

    Agents by ssh:
          --ssh <COMMAND>       The ssh to run, with options if need be: a command for the shell [env:
                                NETEMCTL_SSH]
          --ssh-sudo            Run the agent there by sudo -n
          --push                Copy this netemctl to hosts that have none or another build of it, to
                                ~/.cache/netemctl
          --push-binary <FILE>  The same with another file, such as a static binary or one for the
                                machines there
    --- stderr
    --- exit status: 0
    ");
}

#[test]
fn the_short_help_has_one_line_an_option_on_a_terminal_of_80_columns() {
    let sandbox = Sandbox::new();
    let verbs = ["new", "check", "show", "plan", "apply", "verify", "status", "set", "unset", "partition", "heal", "agent"];
    let help: String = verbs.iter().map(|verb| help_by(&sandbox, &format!(" {verb}"), "-h", "80")).collect();
    // The second line of a description is indented as far as the descriptions.
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
