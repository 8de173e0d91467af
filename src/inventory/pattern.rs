//! Reads a text for several nodes: a hostlist with one text for each node, or one text with the placeholder `{node}`.

use std::borrow::Cow;

use crate::topology::{Finding, Hostlist, NodeName, Word};

/// The placeholder for a node's name.
const NODE: &str = "{node}";

/// The longest text of a node: the length of the longest DNS name. The path of a Unix socket is shorter.
const MAX_CHARS: usize = 253;

/// A text for several nodes.
#[derive(Clone, Debug)]
pub(super) struct Pattern<'t> {
    pub(super) word: Word<'t>,
    /// One text for all nodes, or one text for each node.
    texts: Vec<Cow<'t, str>>,
}

impl<'t> Pattern<'t> {
    pub(super) fn read(word: Word<'t>, findings: &mut Vec<Finding>) -> Option<Self> {
        let text = *word.get_ref();
        let place = word.span();
        let texts = if text.contains(['[', ']', ',']) {
            match Hostlist::parse_up_to(text, MAX_CHARS) {
                Ok(list) => list.names().into_iter().map(Cow::Owned).collect(),
                Err(error) => {
                    return Finding::new(place, error.to_string()).help(error.help()).refuse(findings);
                }
            }
        } else {
            vec![Cow::Borrowed(text.trim())]
        };
        if texts.iter().any(|text| text.is_empty()) {
            return Finding::new(place, "the text is empty").label("empty").refuse(findings);
        }
        if texts.iter().flat_map(|text| text.split(NODE)).any(|part| part.contains(['{', '}'])) {
            let finding = Finding::new(place, format!("`{text}` has an unknown placeholder"));
            return finding.help("the only placeholder is `{node}`, the node's name").refuse(findings);
        }
        Some(Self { word, texts })
    }

    /// The text of each node. Fails if a hostlist has more or fewer texts than there are nodes.
    pub(super) fn of(&self, nodes: &[NodeName]) -> Result<Vec<Cow<'_, str>>, Box<Finding>> {
        let of_node = |(number, node): (usize, &NodeName)| {
            let text = self.texts.get(number).or_else(|| self.texts.first()).map_or("", |text| &**text);
            if text.contains(NODE) { text.replace(NODE, node.as_str()).into() } else { text.into() }
        };
        if self.texts.len() == 1 || self.texts.len() == nodes.len() {
            return Ok(nodes.iter().enumerate().map(of_node).collect());
        }
        let whose = match nodes.len() {
            1 => "one node".to_owned(),
            count => format!("{count} nodes"),
        };
        Err(Finding::new(self.word.span(), format!("a hostlist of {} for {whose}", self.texts.len()))
            .help("write one name for each node, or one text with `{node}`")
            .into())
    }
}
