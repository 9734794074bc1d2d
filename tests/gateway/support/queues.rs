//! What the system holds of a connection, as `/proc/net/tcp` tells.

use std::net::{IpAddr, SocketAddr};

/// Bytes that have arrived at `local` from `remote`, and that `local` has not read.
#[track_caller]
pub fn unread(local: SocketAddr, remote: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("this is Linux");
    // Only the line that is looked for is taken apart: a busy machine has thousands.
    let ends = format!(" {} {} ", hex(local), hex(remote));
    let (_, found) = table.split_once(&ends).unwrap_or_else(|| panic!("no connection from {remote} to {local}"));
    let queues = found.split_whitespace().nth(1).expect("state and queues");
    let (_, received) = queues.split_once(':').expect("two queues");
    usize::from_str_radix(received, 16).expect("a number")
}

fn hex(address: SocketAddr) -> String {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is in another table") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port())
}
