//! Filters HTTP/2 frames before h2 reads them, downstream and upstream.
//!
//! h2 implements HTTP/2 (RFC 9113), but if its HPACK decoder finds an invalid field, such as a CR in a value or a name
//! in upper case, it ends the whole connection. If an ingress multiplexes many users on one connection, one of them
//! could abort the requests of all others. RFC 9113 section 8.1.1 requires only a stream error.
//!
//! [`FilteredIo`] is the connection that h2 reads. It finds header blocks ([`filter`]), and [`hpack`] walks through each:
//! no field is decoded, but every literal is judged as h2 will judge it, and the sizes of the dynamic table's entries are
//! kept in step with h2's table. A block whose fields are all valid passes untouched. Any other is replaced by one that
//! leaves the same dynamic table behind and is malformed in a way that h2 answers with an error of the stream. What can't
//! be decoded at all never reaches h2, which might see it otherwise: it reads a block that it certainly refuses, and nothing
//! after it. On the clients' side, [`budget`] bounds the frames that cause work for nothing.
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

/// The longest frame that h2 takes, as its SETTINGS say nothing else (RFC 9113 section 4.2).
const LONGEST_FRAME: usize = 16_384;

/// What a client that knows that the gateway speaks HTTP/2 sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
