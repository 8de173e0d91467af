//! Measurements of every parameter of a link.
//!
//! Each test states the number of packets that its tolerance requires. These tests also check the figures
//! of docs/links.md that depend on the machine.

mod chances;
mod delay;
mod goodput;
mod loss;
mod measure;
mod pairs;
mod queue;
mod rate;
mod seed;
mod statistics;

use std::io::Write;

use crate::lab::Lab;

/// A lab of nodes n1, n2 and so on, without shaped links.
fn lab(nodes: u16) -> Lab {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(topology(nodes, "default = { rtt = '0ms' }").as_bytes()).unwrap();
    Lab::up(file.path())
}

fn topology(nodes: u16, links: &str) -> String {
    format!("name = 'measured'\nnodes = 'n[1-{nodes}]'\n[links]\n{links}\n")
}

/// Applies a topology of nodes n1 and so on with this content of `[links]`.
#[track_caller]
fn shape(lab: &Lab, nodes: u16, links: &str) {
    lab.apply(&lab.topology(&topology(nodes, links)));
}

/// Applies one link from n1 to each other node, n2 first. The opposite directions have no parameters.
#[track_caller]
fn shape_star(lab: &Lab, links: &[&str]) {
    let rule = |(to, link): (u16, &&str)| format!("[[links.override]]\nfrom = 'n1'\nto = 'n{to}'\n{link}\n");
    let rules: String = (2..).zip(links).map(rule).collect();
    let nodes = u16::try_from(links.len()).unwrap() + 1;
    shape(lab, nodes, &format!("default = {{ rtt = '0ms' }}\n{rules}"));
}
