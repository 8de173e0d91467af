//! `netemctl lab down`: the programs in the nodes are ended, then the lab.

use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    cli::{Context, Exit, Failure},
    lab::{EndedProgram, LabError, by_name},
    topology::NodeName,
};

/// A lab that was taken down.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Down {
    /// Whether there was a lab to take down.
    was_up: bool,
    /// The programs in its nodes that were ended.
    ended: Vec<Gone>,
    /// Programs that go on without a network, since this command runs in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<Left>,
}

/// A program that was ended.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Gone {
    node: NodeName,
    pid: i32,
    program: String,
    /// Whether it had to be killed.
    killed: bool,
}

/// A program that was not ended.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Left {
    node: NodeName,
    pid: i32,
    program: String,
}

impl From<EndedProgram> for Gone {
    fn from(ended: EndedProgram) -> Self {
        let EndedProgram { node, pid, name: program, killed } = ended;
        Self { node, pid, program, killed }
    }
}

impl Gone {
    /// Which programs were ended, a line if there are any.
    pub(super) fn said(ended: &[Self]) -> String {
        let lines = [(false, "ended"), (true, "killed (SIGTERM did not end them)")].map(|(killed, what)| {
            let programs: Vec<&Self> = ended.iter().filter(|gone| gone.killed == killed).collect();
            let names = by_name(programs.iter().map(|gone| (&*gone.program, &gone.node)));
            if programs.is_empty() { String::new() } else { format!("{what}: {names}\n") }
        });
        lines.concat()
    }
}

pub(super) fn down(context: &Context, if_idle: bool) -> Result<Exit, Failure> {
    let directory = context.lab_directory()?;
    let ended = ending(context, "ending the programs in the lab", move || directory.end(if_idle))?;
    let left = ended.left.into_iter().map(|program| {
        let name = program.process.name().to_owned();
        Left { node: program.node, pid: program.process.pid, program: name }
    });
    let ended_programs = ended.programs.into_iter().map(Gone::from).collect();
    let down = Down { was_up: ended.was_up, ended: ended_programs, left: left.collect() };
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
        format!("{}{lab}", Gone::said(&down.ended))
    })?;
    Ok(Exit::Ok)
}

/// Does work that ends programs, unless the command is interrupted; then a part of it may be done.
pub(super) fn ending<T: Send + 'static>(
    context: &Context,
    what: &str,
    work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
) -> Result<T, Failure> {
    context.act(Some(what), "ending the programs", async |interrupt| {
        let (tell, told) = oneshot::channel();
        // A thread of its own, so that this process can end before the work does.
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
