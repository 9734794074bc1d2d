//! What the tests stand on: a real gateway as a child process, scripted workers and a raw client, all with
//! blocking sockets on port 0, so that every byte and its timing is the test's own choice.

mod bomb;
mod client;
mod component;
mod conn;
mod files;
mod gateway;
mod log;
mod message;
mod metrics;
mod modules;
mod refusal;
mod wait;
mod wire;
mod worker;

pub use bomb::{bomb, locals};
pub use client::{Client, Response, request};
pub use component::{Component, FOR_EVER};
pub use conn::{Conn, ReceivedRequest};
pub use files::Files;
pub use gateway::{Builder, Gateway, guest, run};
pub use metrics::{Metrics, Series};
pub use modules::{Module, obliging};
pub use refusal::{BadRequest, bad, refuses};
pub use wait::{Gate, eventually, holds_for};
pub use wire::End;
pub use worker::Worker;
