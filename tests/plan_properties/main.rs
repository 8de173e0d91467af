//! Properties of every plan, for random wanted states on a fake kernel with a random history.
//!
//! Golden plans are in `plan.rs`. [`drawn`] has the random generators.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod changes;
mod deltas;
mod documents;
mod drawn;
#[path = "../fake_kernel/mod.rs"]
mod fake_kernel;

/// The value after a round trip through JSON.
fn over_the_wire<T: serde::Serialize + serde::de::DeserializeOwned>(here: &T) -> T {
    serde_json::from_str(&serde_json::to_string(here).unwrap()).unwrap()
}
