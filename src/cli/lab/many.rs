//! Runs the user's program in several nodes at once, or in the background.
//!
//! Each program starts as a child netemctl, which enters the node and replaces itself (`single::run_for_parent`). This
//! process stays outside the nodes and waits for all children.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::unistd::Pid;
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinSet,
};

use super::single::{StartError, end_groups, exit_code, text};
use crate::{
    cli::{Context, Exit, Failure, NodeFailure, OrFail},
    lab::Lab,
    topology::{NodeName, hostlist},
};

/// The longest line, in bytes.
///
/// A longer line is printed in pieces.
const LONGEST_LINE: usize = 64 * 1024;

/// The exit codes and the output of a program in several nodes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct RanInNodes {
    /// The first exit code that is not 0, in the order of the nodes.
    exit_code: u8,
    nodes: BTreeMap<NodeName, RanInNode>,
}

/// The exit code and the output in one node.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RanInNode {
    /// 128 plus the signal's number if a signal ended the program, as in shells.
    exit_code: u8,
    /// Bytes that are not UTF-8 are replaced by U+FFFD.
    stdout: String,
    stderr: String,
    /// The reason why the program could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The programs in the background.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Detached {
    /// 0, or the exit code of the first node where the program cannot be started.
    exit_code: u8,
    nodes: BTreeMap<NodeName, Background>,
}

/// A program in the background of one node.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
enum Background {
    /// The program runs.
    Runs {
        pid: u32,
        /// The log file of the program's output.
        ///
        /// `lab down` removes the file.
        log: PathBuf,
    },
    /// The program cannot be started.
    Failed {
        /// 127: no such program; 126: it cannot be run.
        exit_code: u8,
        error: String,
    },
}

/// Runs the program in all hosts, and waits until all programs have ended.
pub(super) fn run(context: &Context, hosts: &[NodeName], program: &[OsString]) -> Result<Exit, Failure> {
    let directory = context.lab_directory()?.path().to_owned();
    let is_json = context.is_json();
    let nodes = context.act(None, "ending the program in all nodes", async |interrupt| {
        let mut groups = Vec::new();
        let mut running = JoinSet::new();
        let mut start_in = |node: &NodeName| -> io::Result<()> {
            let mut command = command(&directory, node, program);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
            let (child, report) = start(command)?;
            groups.extend(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
            let node = node.clone();
            running.spawn(async move { (node.clone(), attend(&node, child, report, is_json).await) });
            Ok(())
        };
        let started = hosts.iter().try_for_each(&mut start_in);
        let mut nodes = BTreeMap::new();
        let mut all = Box::pin(async {
            while let Some(ended) = running.join_next().await {
                nodes.extend(ended.ok());
            }
        });
        if started.is_ok() {
            tokio::select! {
                biased;
                () = &mut all => {
                    drop(all);
                    return Ok(nodes);
                }
                () = interrupt.cancelled() => {}
            }
        }
        end_groups(&groups, &mut all).await;
        started.or_fail(Exit::Failed, "cannot start netemctl")?;
        Err(Failure::new(Exit::Interrupted, "interrupted; the program was ended in all nodes"))
    })?;
    let exit_code = nodes.values().map(|ran| ran.exit_code).find(|code| *code != 0).unwrap_or(0);
    if is_json {
        context.answer(&RanInNodes { exit_code, nodes }, String::new)?;
        return Ok(Exit::OfProgram(exit_code));
    }
    let said = |ran: &RanInNode| ran.error.clone().unwrap_or_else(|| format!("exit code {}", ran.exit_code));
    let failures = nodes.iter().filter(|(_, ran)| ran.exit_code != 0);
    failed(exit_code, nodes.len(), failures.map(|(node, ran)| (node.clone(), said(ran))).collect())
}

/// The result of a command in `of` nodes, with the messages of the nodes in which it failed.
fn failed(exit_code: u8, of: usize, failures: BTreeMap<NodeName, String>) -> Result<Exit, Failure> {
    if failures.is_empty() {
        return Ok(Exit::Ok);
    }
    let names = hostlist::fold(failures.keys());
    let share = if of == 1 { String::new() } else { format!(" ({} of {of} nodes)", failures.len()) };
    let message = format!("failed in {names}{share}");
    let nodes = failures.into_iter().map(|(node, said)| (node, NodeFailure::of(said))).collect();
    Err(Failure { nodes, ..Failure::new(Exit::OfProgram(exit_code), message) })
}

/// Starts the program in the background of all hosts.
pub(super) fn detach(context: &Context, hosts: &[NodeName], program: &[OsString]) -> Result<Exit, Failure> {
    let lab = context.lab()?;
    let directory = context.lab_directory()?.path().to_owned();
    let nodes = context.act(None, "starting the program", async |interrupt| {
        let mut nodes = BTreeMap::new();
        for node in hosts {
            let background = tokio::select! {
                biased;
                () = interrupt.cancelled() => {
                    let running = hostlist::fold(nodes.keys());
                    let running = if running.is_empty() { "no node".to_owned() } else { running };
                    return Err(Failure::new(Exit::Interrupted, format!("interrupted; the program runs in {running}")));
                }
                background = in_background(&lab, &directory, node, program) => background?,
            };
            drop(nodes.insert(node.clone(), background));
        }
        Ok(nodes)
    })?;
    let codes = nodes.values().map(|background| match background {
        Background::Runs { .. } => 0,
        Background::Failed { exit_code, .. } => *exit_code,
    });
    let exit_code = codes.into_iter().find(|code| *code != 0).unwrap_or(0);
    let name = program.first().map(|name| name.display().to_string()).unwrap_or_default();
    let detached = Detached { exit_code, nodes };
    let runs = detached.nodes.iter().filter_map(|(node, background)| match background {
        Background::Runs { pid, log } => Some(format!("{node}: {name} runs as process {pid}, log {}\n", log.display())),
        Background::Failed { .. } => None,
    });
    let runs: String = runs.collect();
    if !runs.is_empty() || context.is_json() {
        context.answer(&detached, || format!("{runs}netemctl lab down ends the program and removes the log\n"))?;
    }
    if context.is_json() {
        return Ok(Exit::OfProgram(exit_code));
    }
    let failures = detached.nodes.iter().filter_map(|(node, background)| match background {
        Background::Failed { error, .. } => Some((node.clone(), error.clone())),
        Background::Runs { .. } => None,
    });
    failed(exit_code, detached.nodes.len(), failures.collect())
}

async fn in_background(
    lab: &Lab,
    directory: &Path,
    node: &NodeName,
    program: &[OsString],
) -> Result<Background, Failure> {
    let what = format!("cannot start the program in {node}");
    let at = |path: &Path| format!("{what}: {}", path.display());
    let folder = lab.folder(node);
    // The controller host has no agent, so its folder may be missing.
    fs::create_dir_all(&folder).or_fail(Exit::Failed, at(&folder))?;
    let started = tempfile::Builder::new().prefix("started-").suffix(".log").tempfile_in(&folder);
    let started = started.or_fail(Exit::Failed, at(&folder))?;
    let log = || started.as_file().try_clone().or_fail(Exit::Failed, &what);
    let mut command = command(directory, node, program);
    command.stdout(log()?).stderr(log()?);
    let (mut child, report) = start(command).or_fail(Exit::Failed, &what)?;
    let pid = child.id().unwrap_or_default();
    if let Some(error) = start_error(report).await {
        let _status = child.wait().await.or_fail(Exit::Failed, &what)?;
        return Ok(Background::Failed { exit_code: error.exit_code, error: error.message });
    }
    let name = program.first().map(|name| Path::new(name).file_name().unwrap_or(name).display().to_string());
    let log = folder.join(format!("{}-{pid}.log", name.unwrap_or_default()));
    let _file = started.persist(&log).map_err(|error| error.error).or_fail(Exit::Failed, at(&log))?;
    Ok(Background::Runs { pid, log })
}

/// The child netemctl, which enters the node.
#[expect(clippy::disallowed_methods, reason = "running the user's program is what this is for")]
fn command(directory: &Path, node: &NodeName, program: &[OsString]) -> Command {
    // /proc/self/exe is the running program, even if another version has been installed since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("netemctl").arg("--lab-dir").arg(directory);
    command.args(["lab", "exec", "--child", node.as_str(), "--"]).args(program);
    command
}

/// Starts the child. Its stdin is a socket, on which the child reports a [`StartError`].
fn start(mut command: Command) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((command.stdin(OwnedFd::from(theirs)).spawn()?, ours))
}

/// Waits until the program has started. Returns the error if it cannot start.
async fn start_error(report: UnixStream) -> Option<StartError> {
    let mut said = Vec::new();
    let _length = tokio::net::UnixStream::from_std(report).ok()?.read_to_end(&mut said).await.ok()?;
    serde_json::from_slice(&said).ok()
}

/// Prints or keeps the output of the program until the program ends.
async fn attend(node: &NodeName, mut child: Child, report: UnixStream, keep: bool) -> RanInNode {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (failure, stdout, stderr, ended) = tokio::join!(
        start_error(report),
        take(node, stdout, (!keep).then(io::stdout)),
        take(node, stderr, (!keep).then(io::stderr)),
        child.wait(),
    );
    let ended = ended.map_or(u8::MAX, exit_code);
    let (exit_code, error) = failure.map_or((ended, None), |error| (error.exit_code, Some(error.message)));
    RanInNode { exit_code, stdout: text(&stdout), stderr: text(&stderr), error }
}

/// Reads to the end.
///
/// Prints each line to `to`, after the node's name; without `to`, returns the bytes.
async fn take(node: &NodeName, from: Option<impl AsyncRead + Unpin>, to: Option<impl Write>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let mut kept = Vec::new();
    let Some(mut to) = to else {
        // A read error counts as the end of the output.
        drop(from.read_to_end(&mut kept).await);
        return kept;
    };
    while let Ok(1..) = from.read_buf(&mut kept).await {
        let whole = kept.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let whole = if kept.len() - whole > LONGEST_LINE { kept.len() } else { whole };
        if print(node, &kept[..whole], &mut to).is_err() {
            // Our stdout is closed. The program gets EPIPE at its next write.
            return Vec::new();
        }
        drop(kept.drain(..whole));
    }
    drop(print(node, &kept, &mut to));
    Vec::new()
}

fn print(node: &NodeName, lines: &[u8], to: &mut impl Write) -> io::Result<()> {
    let mut text = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(format!("{node}: ").as_bytes());
        text.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        text.push(b'\n');
    }
    to.write_all(&text)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_line_begins_with_the_nodes_name_and_ends_with_a_line_break() {
        let node: NodeName = "n1".parse().unwrap();
        let mut printed = Vec::new();
        let kept = take(&node, Some(&b"one\n\ntwo \xff\nthree"[..]), Some(&mut printed)).await;
        assert_eq!(printed, b"n1: one\nn1: \nn1: two \xff\nn1: three\n");
        assert!(kept.is_empty());
        let kept = take(&node, Some(&b"one\ntwo"[..]), None::<Vec<u8>>).await;
        assert_eq!(kept, b"one\ntwo");
    }

    #[tokio::test]
    async fn a_line_without_an_end_does_not_fill_the_memory() {
        let node: NodeName = "n1".parse().unwrap();
        let mut printed = Vec::new();
        let long = vec![b'x'; 3 * LONGEST_LINE];
        let _nothing = take(&node, Some(&long[..]), Some(&mut printed)).await;
        assert_eq!(printed.iter().filter(|byte| **byte == b'x').count(), long.len());
    }
}
