//! What the gateway looks at below h2: frames as they arrive, on both sides of the gateway.
//!
//! h2 speaks HTTP/2 (RFC 9113), but ends the whole connection where its HPACK decoder meets a field that is not valid:
//! a CR in a value, a name in upper case. Behind an ingress that puts many users on one connection, one of them would
//! end the requests of all others. RFC 9113 section 8.1.1 asks for an error of the stream.
//!
//! [`FilteredIo`] is the connection that h2 reads. It finds header blocks ([`filter`]), and [`hpack`] walks through each:
//! no field is decoded, but every literal is judged as h2 will judge it, and the sizes of the dynamic table's entries are
//! kept in step with h2's table. A block whose fields are all valid passes untouched. Any other is replaced by one that
//! leaves the same dynamic table behind and is malformed in a way that h2 answers with an error of the stream. On the
//! clients' side, [`budget`] bounds the frames that cause work for nothing.
//!
//! Why not another codec: what h2 does beside decoding (flow control, states of streams, limits against floods) is far
//! more than this, and hyper is built on it.

mod budget;
mod filter;
mod hpack;
mod huffman;
mod io;

use self::budget::Budget;
pub use self::budget::Requests;
pub use self::filter::Limits;
pub use self::io::FilteredIo;

/// What a client that knows that the gateway speaks HTTP/2 sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
