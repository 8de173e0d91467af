//! `netemctl lab ps`: shows the programs that run in the nodes.

use std::io;

use serde::Serialize;

use crate::{
    cli::{
        Context, Exit, Failure,
        overlays::time,
        render::{columns, escape::on_one_line, table},
    },
    lab::CONTROLLER,
    topology::{NodeName, hostlist},
};

/// The document of `lab ps`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Programs {
    programs: Vec<Running>,
}

/// A running program.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Running {
    node: NodeName,
    pid: i32,
    /// The seconds since the program's start.
    age_s: f64,
    /// The program and its arguments.
    command: Vec<String>,
}

pub(super) fn ps(context: &Context, words: &[String]) -> Result<Exit, Failure> {
    let lab = context.lab()?;
    let mut hosts = lab.hosts(words)?;
    if words.is_empty() {
        hosts = lab.hosts(&["*".to_owned()])?;
        // `CONTROLLER` is a valid name, so `parse` does not fail.
        hosts.extend(lab.state.controller.and_then(|_| CONTROLLER.parse().ok()));
    }
    let running = |program: crate::lab::Program| Running {
        node: program.node,
        pid: program.process.pid,
        age_s: program.process.age.as_secs_f64(),
        command: program.process.command,
    };
    let programs = Programs { programs: lab.programs(&hosts)?.into_iter().map(running).collect() };
    context.answer(&programs, || match (&programs.programs[..], words) {
        ([], []) => "no program runs in the nodes".to_owned(),
        ([], _) => format!("no program runs in {}", hostlist::fold(&hosts)),
        (programs, _) => draw(programs),
    })
}

fn draw(programs: &[Running]) -> String {
    let rows = programs.iter().map(|running| {
        let (pid, age) = (running.pid.to_string(), time(running.age_s));
        vec![running.node.to_string(), pid, age, on_one_line(&running.command.join(" "))]
    });
    let header = ["NODE", "PID", "AGE", "COMMAND"];
    let mut rows: Vec<Vec<String>> = rows.collect();
    // Like ps(1), cuts lines at the width of the terminal.
    if let Some(columns) = columns(io::stdout()) {
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let others: usize = (0..3).map(|column| width(column).max(header[column].len()) + 2).sum();
        let left = columns.saturating_sub(others).max(header[3].len());
        for command in rows.iter_mut().filter_map(|row| row.last_mut()) {
            *command = command.chars().take(left).collect();
        }
    }
    table(&header, rows)
}
