//! A proxy between a controller and its agents. A rule of the test decides for each request and each answer whether the
//! proxy forwards the message.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use serde_json::Value;

use crate::lab::Lab;

/// A request to an agent, or the answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) node: String,
    /// The name of the call, such as `commit`.
    pub(crate) call: String,
    pub(crate) is_answer: bool,
}

/// Returns true if the proxy forwards the message. Otherwise, the proxy closes the connections to both sides.
type Rule = Box<dyn FnMut(&Passing) -> bool + Send>;

/// A lab directory with some nodes of a lab. The agent sockets in the directory belong to the proxy.
pub(crate) struct Proxy {
    directory: PathBuf,
    rule: Arc<Mutex<Rule>>,
}

impl Proxy {
    pub(crate) fn start(lab: &Lab, nodes: &[String]) -> Self {
        // The path is short, because the path of a Unix socket has at most 107 bytes.
        let directory = PathBuf::from(format!("/run/p{}-{}", std::process::id(), nodes[0]));
        fs::create_dir_all(&directory).unwrap();
        // The lock file is shared with the lab. A held lock means that the lab is up.
        fs::hard_link(lab.directory().join("lock"), directory.join("lock")).unwrap();
        let mut state: Value = serde_json::from_slice(&fs::read(lab.directory().join("lab.json")).unwrap()).unwrap();
        let members = state["layout"]["members"].as_array_mut().unwrap();
        members.retain(|member| nodes.iter().any(|node| member["node"] == node.as_str()));
        fs::write(directory.join("lab.json"), state.to_string()).unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| true)));
        for node in nodes {
            let socket = |lab: &Path| lab.join("nodes").join(node).join("agent.sock");
            let (front, behind) = (socket(&directory), socket(lab.directory()));
            fs::create_dir_all(front.parent().unwrap()).unwrap();
            let listener = UnixListener::bind(&front).unwrap();
            let (node, rule) = (node.clone(), Arc::clone(&rule));
            thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let (node, rule) = (node.clone(), Arc::clone(&rule));
                    let (front, behind) = (front.clone(), behind.clone());
                    // Either side may close the connection at any time.
                    thread::spawn(move || pass(client, &front, &behind, &node, &rule).ok());
                }
            });
        }
        Self { directory, rule }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reverts [`hide`].
    pub(crate) fn show(&self, node: &str) {
        let home = self.directory.join("nodes").join(node);
        fs::rename(home.join("hidden.sock"), home.join("agent.sock")).unwrap();
    }

    /// Replaces the rule.
    pub(crate) fn let_pass(&self, rule: impl FnMut(&Passing) -> bool + Send + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }
}

/// Moves the socket of a node away. Connections then fail, as they do to a dead agent.
pub(crate) fn hide(directory: &Path, node: &str) {
    let home = directory.join("nodes").join(node);
    fs::rename(home.join("agent.sock"), home.join("hidden.sock")).unwrap();
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The rule may own values of the test, so it is dropped.
        self.let_pass(|_| true);
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// Forwards the requests and the answers of one connection until either side closes or [`hide`] moves `front` away.
fn pass(mut client: UnixStream, front: &Path, behind: &Path, node: &str, rule: &Mutex<Rule>) -> io::Result<()> {
    let passes = |call: &str, is_answer| {
        let passing = Passing { node: node.to_owned(), call: call.to_owned(), is_answer };
        rule.lock().unwrap_or_else(PoisonError::into_inner)(&passing)
    };
    let mut requests = BufReader::new(client.try_clone()?);
    while front.exists() {
        let request = message(&mut requests)?;
        let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
        let call = line.split_whitespace().nth(1).and_then(|path| path.strip_prefix("/v1/")).unwrap_or_default();
        if !passes(call, false) {
            break;
        }
        let mut agent = UnixStream::connect(behind)?;
        agent.write_all(&request)?;
        let answer = message(&mut BufReader::new(&agent))?;
        if !passes(call, true) {
            break;
        }
        client.write_all(&answer)?;
    }
    Ok(())
}

/// Reads one HTTP message. `Content-Length` has the length of the body.
fn message(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let mut length = 0;
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        message.extend(&line);
        let line = String::from_utf8_lossy(&line).to_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    stream.take(length).read_to_end(&mut message)?;
    Ok(message)
}
