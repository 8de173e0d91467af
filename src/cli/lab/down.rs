//! `netemctl lab down`: ends the programs in the nodes, then the lab.

use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    cli::{Context, Exit, Failure},
    lab::{EndedProgram, LabError, by_name},
    topology::NodeName,
};

/// The document of `lab down`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Down {
    /// True if a lab was up.
    was_up: bool,
    /// The programs that were ended in the nodes.
    ended: Vec<EndedProgram>,
    /// Programs that continue without a network, because this command runs in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<Left>,
}

/// A program that was not ended.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Left {
    node: NodeName,
    pid: i32,
    program: String,
}

/// The ended programs in at most two lines: programs that SIGTERM ended, and programs that SIGKILL ended.
pub(super) fn draw_ended(ended: &[EndedProgram]) -> String {
    let lines = [(false, "ended"), (true, "killed (SIGTERM did not end them)")].map(|(killed, what)| {
        let programs = ended.iter().filter(|program| program.killed == killed);
        let names = by_name(programs.map(|ended| (&*ended.program, &ended.node)));
        if names.is_empty() { names } else { format!("{what}: {names}\n") }
    });
    lines.concat()
}

pub(super) fn down(context: &Context, if_idle: bool) -> Result<Exit, Failure> {
    let directory = context.lab_directory()?;
    let ended = ending(context, "ending the programs in the lab", move || directory.end(if_idle))?;
    let left = ended.left.into_iter().map(|program| {
        let name = program.process.name().to_owned();
        Left { node: program.node, pid: program.process.pid, program: name }
    });
    let down = Down { was_up: ended.was_up, ended: ended.programs, left: left.collect() };
    context.answer(&down, || {
        let rest = match &down.left[..] {
            [] => "its directory is removed".to_owned(),
            left => {
                let names = by_name(left.iter().map(|left| (&*left.program, &left.node)));
                format!("{names} still runs, without a network, because this command runs in it")
            }
        };
        let lab = match (down.was_up, &down.ended[..]) {
            (true, _) => format!("the lab is down; {rest}"),
            (false, []) => "no lab is up".to_owned(),
            (false, _) => "no lab is up; a killed lab was cleaned up".to_owned(),
        };
        format!("{}{lab}", draw_ended(&down.ended))
    })
}

/// Runs `work`, which ends programs. After an interrupt, the work may be partly done.
pub(super) fn ending<T: Send + 'static>(
    context: &Context,
    what: &str,
    work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
) -> Result<T, Failure> {
    context.act(Some(what), "ending the programs", async |interrupt| {
        let (tell, told) = oneshot::channel();
        // The work has its own thread, so that this process can end before the work ends.
        std::thread::spawn(move || drop(tell.send(work())));
        tokio::select! {
            biased;
            () = interrupt.cancelled() => {
                Err(Failure::new(Exit::Interrupted, "interrupted; run the command again to finish"))
            }
            done = told => match done {
                Ok(done) => Ok(done?),
                Err(_panicked) => Err(Failure::new(Exit::Failed, format!("{what} failed"))),
            },
        }
    })
}
