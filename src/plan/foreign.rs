//! Finds the objects of netemctl that must stay because they hold objects of other programs ([`ForeignObject`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ClassMinor, DEFAULT_CLASS, Direction, IfName, MARK, Tree};

/// A qdisc, class or filter of another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForeignObject {
    /// The name of the object, as `tc` writes the name.
    pub what: String,
    /// The command that removes the object.
    pub remove: String,
    /// The object of netemctl that holds the foreign object, if any.
    #[serde(skip)]
    pub within: Option<Within>,
}

/// The object of netemctl that holds a foreign object: the foreign object is below it in the qdisc tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Our root qdisc.
    Root {
        /// The class number that the foreign object occupies or needs.
        ///
        /// A foreign class occupies its own number. A foreign qdisc needs its parent class. A foreign filter needs its
        /// target class.
        class: Option<ClassMinor>,
        /// The chain of a foreign filter. `None` for chain 0.
        chain: Option<u32>,
    },
    /// The clsact qdisc.
    Hook {
        /// The chain of a filter at ingress. `None` for chain 0 and for filters at egress.
        chain: Option<u32>,
    },
}

/// The names of foreign objects, separated by semicolons.
pub(super) fn list<'a>(objects: impl IntoIterator<Item = &'a ForeignObject>) -> String {
    objects.into_iter().map(|object| object.what.as_str()).collect::<Vec<_>>().join("; ")
}

/// The commands that remove foreign objects, each command once. A command may remove several objects.
pub(super) fn commands<'a>(objects: impl IntoIterator<Item = &'a ForeignObject>) -> String {
    let mut commands: Vec<&str> = Vec::new();
    for object in objects {
        if !commands.contains(&&*object.remove) {
            commands.push(&object.remove);
        }
    }
    commands.join("; ")
}

impl Tree {
    /// The foreign objects that our root holds, each with the class of [`Within::Root`].
    fn in_root(&self) -> impl Iterator<Item = (&ForeignObject, Option<ClassMinor>)> {
        self.foreign.iter().filter_map(|object| match object.within {
            Some(Within::Root { class, .. }) => Some((object, class)),
            _ => None,
        })
    }

    /// The foreign objects that clsact holds.
    fn in_hook(&self) -> impl Iterator<Item = &ForeignObject> {
        self.foreign.iter().filter(|object| matches!(object.within, Some(Within::Hook { .. })))
    }

    /// True if our root holds a foreign object.
    pub(super) fn root_is_held(&self) -> bool {
        self.in_root().next().is_some()
    }

    /// True if clsact holds a foreign object.
    pub(super) fn hook_is_held(&self) -> bool {
        self.in_hook().next().is_some()
    }

    /// The chains except chain 0 that have a foreign filter. These chains must stay, because netemctl removes a chain
    /// only as a whole.
    pub(super) fn held_chains(&self, direction: Direction) -> BTreeSet<u32> {
        let chain = |object: &ForeignObject| match (direction, object.within?) {
            (Direction::Egress, Within::Root { chain, .. }) | (Direction::Ingress, Within::Hook { chain }) => chain,
            _ => None,
        };
        self.foreign.iter().filter_map(chain).collect()
    }

    /// The class numbers that must stay unchanged: of classes that a foreign object occupies or needs, and of classes
    /// to which the filters of a remaining chain lead. A remaining root also keeps the default class.
    pub(super) fn held_classes(&self) -> BTreeSet<ClassMinor> {
        let held = self.held_chains(Direction::Egress).into_iter();
        let by_filters = held.filter_map(|chain| self.egress.chains.get(&chain));
        let by_filters = by_filters.flat_map(|chain| chain.routes.values()).map(|route| route.class);
        // A remaining root sends packets without a matching filter to the default class.
        let default = self.root_is_held().then_some(DEFAULT_CLASS);
        self.in_root().filter_map(|(_, class)| class).chain(by_filters).chain(default).collect()
    }

    /// The qdiscs of netemctl that stay on a cleared interface, each with the reason and the remedy.
    ///
    /// These qdiscs affect no packet.
    pub fn remaining(&self, interface: &IfName) -> Vec<String> {
        let root = (self.taken && self.root_is_held()).then(|| {
            format!(
                "the root qdisc htb {MARK:x}: stays on {interface}, without effect: it holds {} of other programs; remove that \
                 ({}), then run netemctl clear",
                list(self.in_root().map(|(object, _)| object)),
                commands(self.in_root().map(|(object, _)| object))
            )
        });
        let hook = (self.hook && self.hook_is_held()).then(|| {
            format!(
                "the qdisc clsact stays on {interface}, without effect: it holds {} of other programs; to remove both: \
                 tc qdisc del dev {interface} clsact",
                list(self.in_hook())
            )
        });
        root.into_iter().chain(hook).collect()
    }
}
