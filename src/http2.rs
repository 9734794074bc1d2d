//! Filters HTTP/2 frames before h2 reads them, downstream and upstream.
//!
//! h2 implements HTTP/2 (RFC 9113), but if its HPACK decoder finds an invalid field, such as a CR in a value or a name
//! in upper case, it ends the whole connection. If an ingress multiplexes many users on one connection, one of them
//! could abort the requests of all others. RFC 9113 section 8.1.1 requires only a stream error.
//!
//! [`FilteredIo`] is the connection that h2 reads. It finds header blocks ([`filter`]), and [`hpack`] scans each of
//! them. The scan decodes no fields, but validates every literal as h2 will, and tracks the sizes of the entries in
//! h2's dynamic table. A block with only valid fields passes unchanged. Any other block is replaced by one that has the
//! same effect on the dynamic table and is malformed in a way that h2 answers with a stream error. On connections from
//! clients, [`budget`] limits frames that cause work without carrying anything.
//!
//! Why not another codec: apart from decoding, h2 does far more (flow control, stream states, flood limits), and hyper
//! is built on it.

mod budget;
mod filter;
mod hpack;
mod huffman;
mod io;

use self::budget::Budget;
pub use self::budget::Requests;
pub use self::filter::Limits;
pub use self::io::FilteredIo;

/// The connection preface that a client with prior knowledge sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
