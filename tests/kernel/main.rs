//! Tests of the command line on a real kernel, with network namespaces, agents and netem.
//!
//! `scripts/test` runs the tests inside `scripts/with-netem`. On a kernel without netem, every test fails; no test is
//! skipped. The bands for measured values hold on a slow and noisy machine.

#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

mod abilities;
mod addresses;
mod changes;
mod clocks;
mod counters;
mod deaths;
mod docs;
mod doctor;
mod drift;
mod encapsulation;
mod firewalls;
mod guard;
mod https;
mod interfaces;
mod inventory;
mod lab;
mod link_local;
mod links;
mod live;
mod measuring;
mod orchestrators;
mod partitions;
mod ports;
mod profiles;
mod proxy;
mod recovery;
mod rejects;
mod service;
mod sockets;
mod ssh;
mod sshd;
#[path = "../strategies/mod.rs"]
mod strategies;
mod tcp;
mod timing;
mod wan;
