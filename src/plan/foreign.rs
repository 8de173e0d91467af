//! What somebody else put on an interface, and what of ours must stay there as long as that does.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ClassMinor, DEFAULT_CLASS, IfName, Tree};

/// A qdisc, class or filter that somebody else put on the interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForeignObject {
    /// As `tc` would name it.
    pub what: String,
    /// The command that removes it.
    pub remove: String,
    /// Where it is.
    #[serde(skip)]
    pub within: Within,
}

/// What of ours would be removed together with a foreign object, or would remove it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Within {
    /// Nothing.
    #[default]
    Elsewhere,
    /// Our root qdisc.
    Root {
        /// The class that it is, hangs below or leads to.
        class: Option<ClassMinor>,
        /// The chain that it is in, but for the first.
        chain: Option<u32>,
    },
    /// The clsact qdisc.
    Hook,
}

/// Foreign objects, in a line.
pub(super) fn list(objects: &[ForeignObject]) -> String {
    objects.iter().map(|object| object.what.as_str()).collect::<Vec<_>>().join("; ")
}

/// The commands that remove them, in a line. One command may remove several.
pub(super) fn commands(objects: &[ForeignObject]) -> String {
    let mut commands: Vec<&str> = Vec::new();
    for object in objects {
        if !commands.contains(&&*object.remove) {
            commands.push(&object.remove);
        }
    }
    commands.join("; ")
}

impl Tree {
    /// Whether our root holds something foreign.
    pub(super) fn root_is_held(&self) -> bool {
        self.foreign.iter().any(|object| matches!(object.within, Within::Root { .. }))
    }

    /// Whether clsact does.
    pub(super) fn hook_is_held(&self) -> bool {
        self.foreign.iter().any(|object| object.within == Within::Hook)
    }

    /// The chains that have a foreign filter. All filters of a chain go at once.
    pub(super) fn held_chains(&self) -> BTreeSet<u32> {
        let chain = |object: &ForeignObject| match object.within {
            Within::Root { chain, .. } => chain,
            _ => None,
        };
        self.foreign.iter().filter_map(chain).collect()
    }

    /// The classes that must stay: those that hold something foreign, and those that filters lead to which stay.
    pub(super) fn held_classes(&self) -> BTreeSet<ClassMinor> {
        let class = |object: &ForeignObject| match object.within {
            Within::Root { class, .. } => class,
            _ => None,
        };
        let chains = self.held_chains();
        let slots =
            self.chains.iter().filter(|(chain, _)| chains.contains(chain)).flat_map(|(_, slots)| slots.values());
        let by_filters = slots.map(|slot| slot.class);
        // What packets take that no filter of ours leads anywhere.
        let default = self.root_is_held().then_some(DEFAULT_CLASS);
        self.foreign.iter().filter_map(class).chain(by_filters).chain(default).collect()
    }

    /// What of ours stays on an interface that is given back, why, and what to do about it. It affects no packet.
    pub fn left(&self, interface: &IfName) -> Vec<String> {
        let of = |is_meant: &dyn Fn(&Within) -> bool| -> Vec<ForeignObject> {
            self.foreign.iter().filter(|object| is_meant(&object.within)).cloned().collect()
        };
        let in_root = of(&|within| matches!(within, Within::Root { .. }));
        let in_hook = of(&|within| *within == Within::Hook);
        let root = (self.taken && !in_root.is_empty()).then(|| {
            format!(
                "the root qdisc htb 4e7e: stays on {interface}, without effect: netemctl did not put there {}; remove that \
                 ({}), then run netemctl clear",
                list(&in_root),
                commands(&in_root)
            )
        });
        let hook = (self.hook && !in_hook.is_empty()).then(|| {
            format!(
                "the qdisc clsact stays on {interface}, without effect: netemctl did not put there {}; to remove both: \
                 tc qdisc del dev {interface} clsact",
                list(&in_hook)
            )
        });
        root.into_iter().chain(hook).collect()
    }
}
