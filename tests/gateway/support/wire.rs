//! A buffered blocking socket that reads HTTP/1 messages piece by piece. Client and worker both read with it.

use super::message::{Framing, Head, Headers, latin1};
use super::tls::Channel;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How the reading of a body ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// As its framing promised.
    #[default]
    Clean,
    /// Too early, or not as HTTP.
    Broken(ErrorKind),
}

#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Headers,
}

pub struct Wire {
    channel: Channel,
    unread: Vec<u8>,
}

impl Wire {
    pub fn new(channel: impl Into<Channel>, patience: Duration) -> Self {
        let channel = channel.into();
        let stream = channel.tcp();
        stream.set_write_timeout(Some(patience)).expect("a timeout above zero is accepted");
        stream.set_nodelay(true).expect("TCP sockets take nodelay");
        let wire = Wire { channel, unread: Vec::new() };
        wire.set_patience(patience);
        wire
    }

    pub fn stream(&self) -> &TcpStream {
        self.channel.tcp()
    }

    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Ends the connection as it should end.
    pub fn end(&mut self) {
        self.channel.end();
    }

    /// Makes the connection end with a reset instead of an end of stream, once it is dropped.
    pub fn set_reset(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _in_runtime = runtime.enter();
        // std has no stable way to set it; the option belongs to the socket, not to the handle.
        let twin = self.stream().try_clone().expect("descriptors are left");
        twin.set_nonblocking(true).expect("a socket can");
        let twin = tokio::net::TcpStream::from_std(twin).expect("a non-blocking socket");
        twin.set_zero_linger().expect("a connected socket");
    }

    /// How long a read waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.stream().set_read_timeout(Some(patience)).expect("a timeout above zero is accepted");
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.channel.write_all(bytes)
    }

    /// What was received and not yet taken.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Takes what is there, or waits for something; empty at the end of the stream.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// The next head, `None` if the peer ended the stream before its first byte.
    pub fn read_head(&mut self) -> io::Result<Option<Head>> {
        let Some(end) = self.find(b"\r\n\r\n")? else {
            return Ok(None);
        };
        let raw: Vec<u8> = self.unread.drain(..end).collect();
        Head::parse(&raw).map(Some).map_err(|e| malformed(&e, &raw))
    }

    /// Reads a body into `body`, which keeps what came before an error.
    pub fn read_body(&mut self, framing: Framing, body: &mut Body) -> io::Result<()> {
        match framing {
            Framing::None => Ok(()),
            Framing::Length(length) => self.take(length, &mut body.bytes),
            Framing::Chunked => self.take_chunks(body),
            Framing::UntilClose => self.take_rest(&mut body.bytes),
        }
    }

    /// Waits until `needle` was received and takes everything up to its end; `None` at the end of an empty stream.
    pub fn read_until(&mut self, needle: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let end = self.find(needle)?;
        Ok(end.map(|end| self.unread.drain(..end).collect()))
    }

    fn take_chunks(&mut self, body: &mut Body) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = latin1(line.split(|&b| b == b';').next().unwrap_or_default());
            let size = u64::from_str_radix(&size, 16).map_err(|e| malformed(&e.to_string(), &line))?;
            if size == 0 {
                return self.take_trailers(body);
            }
            self.take(size, &mut body.bytes)?;
            let end = self.line()?;
            if !end.is_empty() {
                return Err(malformed("a chunk longer than its size", &end));
            }
        }
    }

    fn take_trailers(&mut self, body: &mut Body) -> io::Result<()> {
        let mut lines = Vec::new();
        loop {
            let line = latin1(&self.line()?);
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        body.trailers = Headers::parse(lines.iter().map(String::as_str)).map_err(|e| malformed(&e, b"trailers"))?;
        Ok(())
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let end = self.find(b"\r\n")?.ok_or(ErrorKind::UnexpectedEof)?;
        let mut line: Vec<u8> = self.unread.drain(..end).collect();
        line.truncate(end - 2);
        Ok(line)
    }

    fn take(&mut self, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let mut left = length as usize;
        while left > 0 {
            if self.unread.is_empty() && self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let some = left.min(self.unread.len());
            into.extend(self.unread.drain(..some));
            left -= some;
        }
        Ok(())
    }

    fn take_rest(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            into.append(&mut self.unread);
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }

    /// Where `needle` ends in the stream; `None` if the stream ended with nothing unread.
    fn find(&mut self, needle: &[u8]) -> io::Result<Option<usize>> {
        let mut searched = 0;
        loop {
            let window = self.unread[searched..].windows(needle.len()).position(|w| w == needle);
            if let Some(at) = window {
                return Ok(Some(searched + at + needle.len()));
            }
            searched = self.unread.len().saturating_sub(needle.len() - 1);
            if self.fill()? == 0 {
                let ended = if self.unread.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
                return ended;
            }
        }
    }

    /// Reads more; the number of bytes, 0 at the end of the stream.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.channel.read(&mut piece) {
                Ok(n) => {
                    self.unread.extend_from_slice(&piece[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(e) => return Err(e),
            }
        }
    }
}

fn malformed(why: &str, raw: &[u8]) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{why}: {:?}", latin1(raw)))
}
