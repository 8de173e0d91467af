//! Serializes sets of nodes as hostlists, so that a side of 10,000 nodes takes some bytes instead of 100 kB.
//!
//! A set of names has exactly one hostlist, because the set sorts the names. So the digests of equal documents are equal.
//! Reading also accepts a list of names: journals of earlier versions and other clients write lists.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::topology::{NodeName, hostlist};

/// A set of nodes whose JSON is a hostlist: `"n[1-9],gw"`. The JSON of the empty set is `""`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeSet(pub(super) BTreeSet<NodeName>);

impl NodeSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Hostlist(String),
    Names(BTreeSet<NodeName>),
}

impl Serialize for NodeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for NodeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hostlist = match Form::deserialize(deserializer)? {
            Form::Names(names) => return Ok(Self(names)),
            Form::Hostlist(hostlist) if hostlist.is_empty() => return Ok(Self::default()),
            Form::Hostlist(hostlist) => hostlist,
        };
        let names = hostlist::expand(&hostlist).map_err(D::Error::custom)?;
        let names = names.into_iter().map(|name| NodeName::try_from(name).map_err(D::Error::custom));
        names.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for NodeSet {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NodeSet".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A set of nodes as a hostlist: \"n[1-9],gw\". The empty set is \"\". Requests may have a list of names instead.",
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

/// Writes a set as a hostlist, for `#[serde(with)]`.
pub(super) fn serialize<S: Serializer>(nodes: &BTreeSet<NodeName>, serializer: S) -> Result<S::Ok, S::Error> {
    hostlist::fold(nodes).serialize(serializer)
}

/// Reads a set from a hostlist or from a list of names, for `#[serde(with)]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<NodeName>, D::Error> {
    NodeSet::deserialize(deserializer).map(|NodeSet(nodes)| nodes)
}

/// The same serialization for a list of sets.
pub(super) mod list {
    use super::{BTreeSet, Deserialize, Deserializer, NodeName, NodeSet, Serialize, Serializer, hostlist};

    /// Writes each set as a hostlist.
    pub(crate) fn serialize<S: Serializer>(sets: &[BTreeSet<NodeName>], serializer: S) -> Result<S::Ok, S::Error> {
        sets.iter().map(hostlist::fold).collect::<Vec<_>>().serialize(serializer)
    }

    /// Reads each set from a hostlist or from a list of names.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BTreeSet<NodeName>>, D::Error> {
        Ok(Vec::<NodeSet>::deserialize(deserializer)?.into_iter().map(|NodeSet(nodes)| nodes).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_is_read_back_from_its_hostlist_and_from_its_names(
            names in prop::collection::btree_set("[a0-9][a0-2.]{0,3}|n[0-9]{1,3}", 0..40),
        ) {
            let set: BTreeSet<NodeName> = names.iter().map(|name| name.parse().unwrap()).collect();
            let folded = serde_json::to_string(&NodeSet(set.clone())).unwrap();
            prop_assert_eq!(&serde_json::from_str::<NodeSet>(&folded).unwrap().0, &set);
            let listed = serde_json::to_string(&names).unwrap();
            prop_assert_eq!(serde_json::from_str::<NodeSet>(&listed).unwrap().0, set);
        }
    }

    #[test]
    fn a_large_set_takes_some_bytes_and_an_invalid_hostlist_is_an_error() {
        let set = (1..=10_000).map(|number| format!("n{number}").parse().unwrap()).collect();
        assert_eq!(serde_json::to_string(&NodeSet(set)).unwrap(), "\"n[1-10000]\"");
        for invalid in ["\"n[1-\"", "\"n[1-3],,\"", "\"!\"", "[\"!\"]", "3"] {
            assert!(serde_json::from_str::<NodeSet>(invalid).is_err(), "{invalid}");
        }
    }
}
