//! Agents behind HTTPS, and who may talk to whom: a real server and real clients on the loopback, over a kernel in memory.
//!
//! Read [`site`] first; each other module is one subject.

mod hostile;
mod rotation;
mod site;
mod trust;
