//! The program as its users run it: arguments in, tables, JSON, messages and exit codes out.
//!
//! One file per command, one for what they write beside their results, one for what a service is not asked, three for
//! what goes wrong (graphs, stored messages, services), and one for certificates and tokens. Every test has a directory
//! of its own and runs the real binary in it; services are `testbed` servers in the test's own process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod support;

mod build;
mod demo;
mod direct;
mod doctor;
mod exec;
mod explain;
mod hostile_graphs;
mod hostile_messages;
mod hostile_services;
mod interrupt;
mod observe;
mod prime;
mod records;
mod secure;
mod show;
mod simulate;
mod usage;
