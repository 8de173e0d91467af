//! Properties of the plan on random wishes, over a kernel in memory that has been through random wishes before.
//!
//! Golden plans are in `plan.rs`; this says what holds of every plan. [`drawn`] has what is random.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod changes;
mod documents;
mod drawn;
#[path = "../fake_kernel/mod.rs"]
mod fake_kernel;

/// What comes out of a value's JSON.
fn over_the_wire<T: serde::Serialize + serde::de::DeserializeOwned>(here: &T) -> T {
    serde_json::from_str(&serde_json::to_string(here).unwrap()).unwrap()
}
