//! The gRPC client against servers that answer what a test tells them to.
#![cfg(feature = "grpc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests may fail like tests")]

mod byte_stream;
mod cas;
mod direct;
mod execution;
mod names;
mod retry;
mod support;
mod tls;
mod token;
