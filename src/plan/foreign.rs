//! Finds the objects of netemctl that must stay because they hold objects of other programs ([`ForeignObject`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ClassMinor, DEFAULT_CLASS, IfName, MARK, Tree};

/// A qdisc, class or filter of another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForeignObject {
    /// The name of the object, as `tc` writes the name.
    pub what: String,
    /// The command that removes the object.
    pub remove: String,
    /// The object of netemctl that holds the foreign object.
    #[serde(skip)]
    pub within: Within,
}

/// The object of netemctl that holds a foreign object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Within {
    /// No object of netemctl.
    #[default]
    Elsewhere,
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
    Hook,
}

/// The names of foreign objects, separated by semicolons.
pub(super) fn list(objects: &[ForeignObject]) -> String {
    objects.iter().map(|object| object.what.as_str()).collect::<Vec<_>>().join("; ")
}

/// The commands that remove foreign objects, each command once. A command may remove several objects.
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
    /// True if our root holds a foreign object.
    pub(super) fn root_is_held(&self) -> bool {
        self.foreign.iter().any(|object| matches!(object.within, Within::Root { .. }))
    }

    /// True if clsact holds a foreign object.
    pub(super) fn hook_is_held(&self) -> bool {
        self.foreign.iter().any(|object| object.within == Within::Hook)
    }

    /// The chains with a foreign filter. These chains must stay, because a chain can only be removed as a whole.
    pub(super) fn held_chains(&self) -> BTreeSet<u32> {
        let chain = |object: &ForeignObject| match object.within {
            Within::Root { chain, .. } => chain,
            _ => None,
        };
        self.foreign.iter().filter_map(chain).collect()
    }

    /// The classes that must stay. A class must stay if it holds a foreign object or if a remaining filter leads to it.
    pub(super) fn held_classes(&self) -> BTreeSet<ClassMinor> {
        let class = |object: &ForeignObject| match object.within {
            Within::Root { class, .. } => class,
            _ => None,
        };
        let chains = self.held_chains();
        let slots =
            self.chains.iter().filter(|(chain, _)| chains.contains(chain)).flat_map(|(_, slots)| slots.values());
        let by_filters = slots.map(|slot| slot.class);
        // A remaining root sends packets without a matching filter to the default class.
        let default = self.root_is_held().then_some(DEFAULT_CLASS);
        self.foreign.iter().filter_map(class).chain(by_filters).chain(default).collect()
    }

    /// The objects of netemctl that stay on a cleared interface, each with the reason and the remedy.
    ///
    /// These objects affect no packet.
    pub fn remaining(&self, interface: &IfName) -> Vec<String> {
        let of = |is_meant: &dyn Fn(&Within) -> bool| -> Vec<ForeignObject> {
            self.foreign.iter().filter(|object| is_meant(&object.within)).cloned().collect()
        };
        let in_root = of(&|within| matches!(within, Within::Root { .. }));
        let in_hook = of(&|within| *within == Within::Hook);
        let root = (self.taken && !in_root.is_empty()).then(|| {
            format!(
                "the root qdisc htb {MARK:x}: stays on {interface}, without effect: it holds {} of other programs; remove that \
                 ({}), then run netemctl clear",
                list(&in_root),
                commands(&in_root)
            )
        });
        let hook = (self.hook && !in_hook.is_empty()).then(|| {
            format!(
                "the qdisc clsact stays on {interface}, without effect: it holds {} of other programs; to remove both: \
                 tc qdisc del dev {interface} clsact",
                list(&in_hook)
            )
        });
        root.into_iter().chain(hook).collect()
    }
}
