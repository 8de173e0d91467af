//! Serializes a duration as whole nanoseconds, so that a document read back from JSON is equal to the original.
//!
//! The JSON keys of durations end with `_ns`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the duration in nanoseconds, for `#[serde(with)]`. Durations above 584 years become `u64::MAX` nanoseconds.
pub(crate) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).serialize(serializer)
}

/// Reads a duration in nanoseconds, for `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_nanos)
}

/// The same serialization for an optional duration.
pub(crate) mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the duration in nanoseconds or `null`, for `#[serde(with)]`.
    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(crate) fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    /// Reads a duration in nanoseconds or `null`, for `#[serde(with)]`.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_nanos))
    }
}
