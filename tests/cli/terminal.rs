//! The output on a terminal of 80 columns, compared with the output to a pipe.

use super::harness::{Answer, Lab, Sandbox};

const WIDTH: usize = 80;

/// Runs netemctl by script(1), with a terminal as stdin, stdout and stderr.
fn on_terminal(sandbox: &Sandbox, columns: usize, arguments: &str) -> String {
    let command = format!("stty cols {columns}; exec \"$NETEMCTL\" {arguments}");
    let printed = sandbox.run_other("script", ["-qec", &command, "/dev/null"]).stdout.replace("\r\n", "\n");
    // Progress texts are erased by `\r` and `ESC [K`, so they are removed here too.
    let lines = printed.lines().map(|line| line.rsplit('\r').next().unwrap_or_default().replace("\x1b[K", "") + "\n");
    lines.collect()
}

fn too_long(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.chars().count() > WIDTH).collect()
}

/// Regression: `status`, `inventory check` and the result of a change printed lines of up to 105 columns.
#[test]
fn prose_fits_the_terminal_and_has_one_line_a_statement_in_a_pipe() {
    let lab = Lab::up("uniform-3-rtt100");
    lab.sandbox.kill(lab.sandbox.agent("n3"));
    let mut wrapped = 0;
    for arguments in ["status", "partition n1", "inventory check", "inventory show", "lab status"] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let Answer { stdout, stderr, .. } = lab.sandbox.run_words(&words);
        let piped = stdout + &stderr;
        let shown = on_terminal(&lab.sandbox, WIDTH, arguments);
        assert_eq!(too_long(&shown), [""; 0], "{arguments}");
        assert!(shown.split_whitespace().eq(piped.split_whitespace()), "{arguments}: {piped}\n{shown}");
        wrapped += too_long(&piped).len();
        // Some terminals report a width of 0.
        assert_eq!(on_terminal(&lab.sandbox, 0, arguments), piped, "{arguments}");
    }
    assert!(wrapped > 0, "{wrapped} piped lines are longer than 80 columns");
    let _again = lab.run(["lab", "restart", "n3"]).ended(0);
}

#[test]
fn json_and_commands_to_copy_are_not_wrapped_on_a_terminal() {
    let lab = Lab::up("uniform-3-rtt100");
    for arguments in ["status --json", "apply nosuch.toml --json"] {
        let shown = on_terminal(&lab.sandbox, WIDTH, arguments);
        let _document: serde_json::Value = serde_json::from_str(&shown).expect(&shown);
    }
    let plan = "plan uniform-3-rtt100.toml --as-tc --offline";
    let words: Vec<&str> = plan.split(' ').collect();
    let piped = lab.sandbox.run_words(&words).ended(0).stdout;
    assert_eq!(on_terminal(&lab.sandbox, WIDTH, plan), piped);
    assert!(!too_long(&piped).is_empty(), "{piped}");
}

/// Regression: netemctl's own messages had colours; those of clap had none.
#[test]
fn a_dumb_terminal_gets_no_colours() {
    let sandbox = Sandbox::new();
    let in_terminal = |terminal: &str| {
        let command = format!("exec env -u NO_COLOR TERM={terminal} \"$NETEMCTL\" check nosuch.toml");
        sandbox.run_other("script", ["-qec", &command, "/dev/null"]).stdout
    };
    let (dumb, coloured) = (in_terminal("dumb"), in_terminal("xterm"));
    assert!(!dumb.contains('\x1b') && dumb.contains("nosuch.toml: no such file"), "{dumb:?}");
    assert!(coloured.contains("\x1b[1;31merror:\x1b[0m"), "{coloured:?}");
}

/// Regression: commands were cut after seven characters. `ssh -tt` from a program makes a terminal without a width.
#[test]
fn programs_are_listed_in_full_where_the_width_is_not_known() {
    let lab = Lab::up("uniform-3-rtt0");
    let _started = lab.run(["lab", "exec", "--detach", "n1", "--", "sleep", "1000000"]).ended(0);
    let programs = on_terminal(&lab.sandbox, 0, "lab ps");
    assert!(programs.contains("sleep 1000000\n"), "{programs}");
}
