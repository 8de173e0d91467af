//! Facts of a healthy host, and the finding on each change of a fact.
