//! The warning about routes to networks behind other nodes.
//!
//! Packets on these routes are not shaped.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    topology::{NodeName, hostlist},
    wire::Routed,
};

/// One warning for all nodes that have such routes; `None`: no node has such routes.
pub(super) fn warning<'a>(nodes: impl IntoIterator<Item = (&'a NodeName, &'a Routed)>) -> Option<String> {
    let nodes: BTreeMap<&NodeName, &Routed> = nodes.into_iter().collect();
    if nodes.is_empty() {
        return None;
    }
    let senders = hostlist::fold(nodes.keys());
    let routers: BTreeSet<_> = nodes.values().flat_map(|routed| &routed.through).collect();
    let routers = hostlist::fold(routers);
    let forward = match hostlist::fold(nodes.iter().filter(|(_, routed)| routed.forwards).map(|(node, _)| node)) {
        none if none.is_empty() => none,
        forwarders => format!(" {forwarders} can forward packets of other hosts there."),
    };
    Some(format!(
        "warning: packets of {senders} to other networks go through {routers}; netemctl does not delay, cut or measure \
         these packets.{forward}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_route_through_each_other_share_one_warning() {
        let node = |name: &str| name.parse::<NodeName>().unwrap();
        let routed = |through: &str, forwards| Routed { through: [node(through)].into(), forwards };
        let nodes = [(node("h1"), routed("h2", true)), (node("h2"), routed("h1", false))];
        let warned = warning(nodes.iter().map(|(node, routed)| (node, routed))).unwrap();
        assert!(warned.starts_with("warning: packets of h[1-2] to other networks go through h[1-2];"), "{warned}");
        assert!(warned.contains(" h1 can forward "), "{warned}");
        assert_eq!(warning([]), None);
    }
}
