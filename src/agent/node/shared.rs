//! A document that several states of a node share: [`Shared`].

use std::{
    collections::BTreeSet,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::plan::{Absent, Stamp, TimedId, Wanted};

/// A document. Copies share its memory, because the document of 10,000 nodes has megabytes. The stamp is computed once.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Stamped>);

#[derive(Debug, Default)]
struct Stamped {
    document: Wanted,
    stamp: OnceLock<Stamp>,
}

impl Shared {
    /// The document, and its stamp if it is known.
    pub(super) fn new(document: Wanted, stamp: Option<Stamp>) -> Self {
        Self(Arc::new(Stamped { document, stamp: stamp.map(OnceLock::from).unwrap_or_default() }))
    }

    /// The stamp of the document.
    pub(super) fn stamp(&self) -> Stamp {
        self.0.stamp.get_or_init(|| self.0.document.stamp()).clone()
    }

    /// True if both are the same object. Equal documents may be different objects.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// As [`Wanted::without`].
    pub(super) fn without(&self, gone: &BTreeSet<TimedId>) -> Self {
        if self.timed().any(|id| gone.contains(&id)) { self.0.document.without(gone).into() } else { self.clone() }
    }

    /// As [`Wanted::in_force`].
    pub(super) fn in_force(&self, absent: &Absent) -> Self {
        let is_absent = |id: TimedId| absent.ended.contains(&id) || absent.inactive.contains(&id);
        if self.timed().any(is_absent) { self.0.document.in_force(absent).into() } else { self.clone() }
    }
}

impl Deref for Shared {
    type Target = Wanted;

    fn deref(&self) -> &Wanted {
        &self.0.document
    }
}

impl From<Wanted> for Shared {
    fn from(document: Wanted) -> Self {
        Self::new(document, None)
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || **self == **other
    }
}

impl Eq for Shared {}

impl Serialize for Shared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wanted::deserialize(deserializer).map(Self::from)
    }
}
