//! `smg`: a reverse proxy in front of model servers whose behaviour is extended, while it runs, by
//! WebAssembly modules.
//!
//! # Two planes
//!
//! The *data plane* is a number of [`shard`]s: each a thread with its own runtime, its own connections to
//! clients and workers, and its own guests. Nothing on the path of a request takes a lock that another shard
//! holds for longer than a scrape reads a counter, compiles anything, or looks anything up by name.
//!
//! The *control plane* is the main thread: the [`listeners`], the admin API, the [`fleet`] with its health checks and
//! names, deployments, [`reload`]s, signals. It builds immutable [`snapshot::Snapshot`]s and swaps one pointer; a request
//! keeps the one it started with to its last byte.
//!
//! # One request
//!
//! A shard gets a connection from a listener, which hands each to the shard that has the fewest, and serves it in a
//! task of its own ([`server`], [`connection`]): TLS, then HTTP/1.1 or HTTP/2. Each request goes through
//! [`gateway::Gateway::handle`]: first checks, route, key ([`keys`]), [`admission`], the on-request chain
//! ([`modules`]), a worker and its [`workers::Lease`], the answer's head, the on-response chain in reverse order, and
//! the body, in which the lease and the [`gateway::record::Record`] ride until its last byte. A failure anywhere is a
//! [`gateway::error::GatewayError`], and one table there makes a status and a body of it.
//!
//! With HTTP/1.1 the same task drives the client's connection, the request and the connection to the worker: no
//! hand-over between tasks, and a client that leaves takes everything with it. In HTTP/2 each stream has a task, and
//! hyper drives the connection. Messages of HTTP/1.1 are read and written by [`http1`] on both sides; it says why.
//!
//! # Guests
//!
//! A module is written for one of the interfaces in `modules::abi`; the files there translate, and nothing past
//! them knows which it was. What hooks are shown and may decide is the vocabulary of `modules::hook`: a
//! [`modules::Verdict`] continues, edits, or answers; tags go into the request's record.
//!
//! [`agent`] runs one module behind the Sentinel proxy's protocol instead of behind HTTP: the same guests, pools,
//! limits and policies, with a Unix socket in front.
//!
//! # Layers
//!
//! Downward only; each line may use those above it:
//!
//! | layer | modules |
//! |---|---|
//! | leaves | [`allocator`], [`config`], [`content_coding`], [`deadline`], [`headers`], [`http1`], [`http2`], [`metrics`] |
//! | | [`prompt`], [`rate`], [`stream`], [`telemetry`], [`tls`], [`echo`], [`panics`], [`unix_socket`] |
//! | on the leaves, not on each other | [`workers`], [`modules`], [`client`] and [`connection`], [`trace`], [`keys`] |
//! | | [`access_log`], [`admission`], [`model_name`], [`pressure`], [`routes`] |
//! | what exists | [`snapshot`], [`registry`], [`fleet`] |
//! | what is done with it | [`gateway`], [`admin`] |
//! | threads and sockets | [`server`], [`shard`], [`listeners`], [`scrape`], [`reload`], [`app`], [`agent`] |
//! | the process | [`run`], [`cli`], `main` |
//!
//! wasmtime is named only in [`modules`]; an error becomes a status only in [`gateway::error`] (and, for
//! mistakes of an administrator, in [`admin`]); the process ends only in `main`.

pub mod access_log;
pub mod admission;
pub mod allocator;
pub mod config;
pub mod content_coding;
pub mod deadline;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod metrics;
pub mod model_name;
pub mod panics;
pub mod patience;
pub mod pressure;
pub mod prompt;
pub mod rate;
pub mod routes;
pub mod stream;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod unix_socket;

pub mod client;
pub mod connection;
pub mod modules;
pub mod workers;

pub mod fleet;
pub mod keys;
pub mod registry;
pub mod snapshot;

pub mod admin;
pub mod gateway;

pub mod agent;
pub mod app;
pub mod listeners;
pub mod reload;
pub mod scrape;
pub mod server;
pub mod shard;

pub mod cli;
pub mod echo;
pub mod run;
