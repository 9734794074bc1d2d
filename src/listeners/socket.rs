//! A socket that is listened on, of either kind: bound here, or handed over by who started the process.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener as StdUnixListener;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::config::{Listen, ListenAddress};
use crate::server::ClientSocket;
use crate::unix_socket::{Bound, InUse, SocketError, SocketFile};

/// Connections that may wait to be accepted.
pub const BACKLOG: u32 = 4096;

/// Everything for the group and for others.
const OTHERS: u32 = 0o077;

pub enum Socket {
    Tcp(TcpListener),
    /// The file is there if it is ours to remove.
    Unix(UnixListener, Option<SocketFile>),
}

impl Socket {
    /// Where it is in the end: a port may have been chosen by the system.
    pub async fn bind(address: &ListenAddress, listen: &Listen) -> Result<(Self, ListenAddress), SocketError> {
        match address {
            ListenAddress::Tcp(address) => {
                let socket = bind(*address, listen.reuse_port)?;
                let address = socket.local_addr()?;
                Ok((Self::Tcp(socket), ListenAddress::Tcp(address)))
            }
            ListenAddress::Unix(path) => {
                let in_use = if listen.reuse_port { InUse::TakeOver } else { InUse::Refuse };
                let Bound { listener, file } = Bound::new(path, in_use).await?;
                Ok((Self::Unix(listener, Some(file)), address.clone()))
            }
        }
    }

    /// The one with this number, which must be of the same kind as the one that it stands for.
    pub fn handed_over(
        sockets: &mut ListenFd,
        number: usize,
        address: &ListenAddress,
    ) -> io::Result<Option<(Self, ListenAddress)>> {
        match address {
            ListenAddress::Tcp(_) => sockets.take_tcp_listener(number)?.map(|socket| {
                socket.set_nonblocking(true)?;
                let address = socket.local_addr()?;
                Ok((Self::Tcp(TcpListener::from_std(socket)?), ListenAddress::Tcp(address)))
            }),
            ListenAddress::Unix(_) => sockets.take_unix_listener(number)?.map(|socket| {
                socket.set_nonblocking(true)?;
                let path = socket.local_addr()?.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()));
                Ok((Self::Unix(UnixListener::from_std(socket)?, None), path.unwrap_or_else(|| address.clone())))
            }),
        }
        .transpose()
    }

    /// Whether it is a Unix socket that users other than its owner may connect to, as far as can be seen: one without a
    /// file has no mode that would keep them out.
    pub fn is_open_to_others(&self) -> bool {
        let Self::Unix(listener, _) = self else { return false };
        let address = listener.local_addr();
        let mode = address.ok().and_then(|address| Some(fs::symlink_metadata(address.as_pathname()?).ok()?.mode()));
        mode.is_none_or(|mode| mode & OTHERS != 0)
    }

    pub async fn accept(&self) -> io::Result<ClientSocket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(ClientSocket::Tcp(stream.into_std()?, peer))
            }
            Self::Unix(listener, _) => Ok(ClientSocket::Unix(listener.accept().await?.0.into_std()?)),
        }
    }

    /// To accept what the system has accepted already.
    pub fn into_waiting(self) -> io::Result<Waiting> {
        match self {
            Self::Tcp(listener) => Ok(Waiting::Tcp(listener.into_std()?)),
            Self::Unix(listener, file) => Ok(Waiting::Unix(listener.into_std()?, file)),
        }
    }
}

/// A socket that is about to be closed.
pub enum Waiting {
    Tcp(StdTcpListener),
    Unix(StdUnixListener, #[expect(dead_code, reason = "the file goes with the socket")] Option<SocketFile>),
}

impl Waiting {
    /// The next connection that waits; none is waited for.
    pub fn accept(&self) -> io::Result<ClientSocket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(ClientSocket::Tcp(stream, peer))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(ClientSocket::Unix(stream))
            }
        }
    }
}

pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
