//! What the tests stand on: a real gateway as a child process, scripted workers and a raw client, all with
//! blocking sockets on port 0, so that every byte and its timing is the test's own choice.

mod agent;
mod bomb;
mod client;
mod component;
mod conn;
mod event;
mod files;
mod frames;
mod gateway;
mod log;
mod message;
mod metrics;
mod modules;
mod process;
mod proxy;
mod refusal;
mod reply;
mod sentinel;
mod timings;
mod wait;
mod wire;
mod worker;

pub use agent::Agent;
pub use bomb::{bomb, locals};
pub use client::{Client, Response, request};
pub use component::{Component, FOR_EVER};
pub use conn::{Conn, ReceivedRequest};
pub use event::{Event, Version, kind};
pub use files::Files;
pub use frames::Frames;
pub use gateway::{Builder, Gateway, guest};
pub use message::Headers;
pub use metrics::{Metrics, Series};
pub use modules::{Module, obliging};
pub use process::{Ran, executable, run};
pub use proxy::{Proxy, handshake, shake_hands};
pub use refusal::{BadRequest, bad, refuses};
pub use reply::{Decision, Op};
pub use sentinel::{BEHAVIOURS, Sentinel};
pub use timings::Timings;
pub use wait::{Gate, eventually, holds_for};
pub use wire::End;
pub use worker::Worker;
