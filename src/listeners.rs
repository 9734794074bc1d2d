//! The sockets that clients connect to: bound here or handed over by who started the process, and accepted from until
//! the gateway drains.

mod socket;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use listenfd::ListenFd;
use tokio::net::TcpListener as AsyncListener;
use tokio::sync::watch;

use self::socket::Socket;
use crate::client::Offers;
use crate::config::{Config, ListenAddress};
use crate::gateway::metrics::CountedConnection;
use crate::pressure::{Level, Pressure};
use crate::server::{Arrival, ClientSocket};
use crate::shard::{Message, Shard};
use crate::tls::ServerTls;
use crate::unix_socket::SocketError;

/// Pause after a refused accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket to accept from.
pub struct Listener {
    pub address: ListenAddress,
    socket: Socket,
    pub serves: Serves,
    /// Another process accepts from the same address, or did.
    pub is_shared: bool,
    /// Whoever started the process holds the socket, too.
    pub is_handed_over: bool,
    /// The admin API is on it, and other users of this machine can connect to it.
    pub needs_key: bool,
}

/// Whom a listener is for.
#[derive(Debug, Clone, Copy)]
pub struct Serves {
    pub speaks: Speaks,
    pub offers: Offers,
}

/// What a listener's clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Plain,
    Tls,
}

/// Why a gateway can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("can't listen on {address} ({setting}): {cause}{}", hint_of(.address, .cause))]
    Bind { address: ListenAddress, setting: &'static str, cause: SocketError },
    #[error("the sockets that were handed over (LISTEN_FDS) can't be used: {0}")]
    HandedOver(#[source] io::Error),
    #[error(
        "the socket {0} was handed over (LISTEN_FDS) with a mode that lets other users connect, and the admin API there \
         has no key: set SocketMode=0600 in its systemd unit, or --admin-key"
    )]
    OpenToOthers(ListenAddress),
    #[error("listener {0} speaks TLS, and there is no certificate")]
    NoCertificate(ListenAddress),
}

/// All listeners of a configuration. Sockets that were handed over take the place of those to bind, in order.
pub async fn all(config: &Config) -> Result<Vec<Listener>, ListenError> {
    let mut handed_over = ListenFd::from_env();
    let listen = &config.listen;
    let has_flags = config.tls.tls_cert_path.is_some();
    let has_certificate = has_flags || !config.sections.certificates.is_empty();
    let speaks = |tls: bool| if tls { Speaks::Tls } else { Speaks::Plain };
    let main = ListenAddress::Tcp(SocketAddr::new(listen.host, listen.port));
    let main = ("--host, --port", main, speaks(has_flags), false);
    let others = config.sections.listeners.iter();
    let others = others
        .map(|listener| ("`listeners` of the file", listener.address.clone(), speaks(listener.tls), listener.admin));
    // Without one that is meant for it, the admin API answers everywhere. Where it has one, nothing else does there.
    let is_everywhere = !config.sections.listeners.iter().any(|listener| listener.admin);
    let has_keys = config.has_keys();
    let mut listeners = Vec::new();
    for (number, (setting, address, speaks, admin)) in std::iter::once(main).chain(others).enumerate() {
        if speaks == Speaks::Tls && !has_certificate {
            return Err(ListenError::NoCertificate(address));
        }
        let handed_over = Socket::handed_over(&mut handed_over, number, &address).map_err(ListenError::HandedOver)?;
        let is_handed_over = handed_over.is_some();
        let is_shared = is_handed_over || listen.reuse_port;
        let (socket, address) = match handed_over {
            Some(handed_over) => handed_over,
            None => {
                let bound = Socket::bind(&address, listen).await;
                bound.map_err(|cause| ListenError::Bind { address, setting, cause })?
            }
        };
        let offers = match admin {
            _ if is_everywhere => Offers::Everything,
            true => Offers::AdminApi,
            false => Offers::DataPlane,
        };
        // The admin API is on it. Without a key, the mode is the only gate: systemd's is 0666 unless it is told otherwise.
        let needs_key = is_handed_over && socket.is_open_to_others();
        if needs_key && !has_keys {
            return Err(ListenError::OpenToOthers(address));
        }
        let serves = Serves { speaks, offers };
        listeners.push(Listener { address, socket, serves, is_shared, is_handed_over, needs_key });
    }
    Ok(listeners)
}

/// One plain socket, for `/metrics`.
pub fn plain(address: SocketAddr) -> Result<AsyncListener, ListenError> {
    let failed = |cause: io::Error| ListenError::Bind {
        address: ListenAddress::Tcp(address),
        setting: "--prometheus-host, --prometheus-port",
        cause: cause.into(),
    };
    socket::bind(address, false).map_err(failed)
}

fn hint_of(address: &ListenAddress, cause: &SocketError) -> &'static str {
    match (address, cause) {
        (ListenAddress::Tcp(_), SocketError::Io(cause)) => hint(cause),
        _ => "",
    }
}

/// What to do about a port that can't be listened on.
pub fn hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::AddrInUse => "; another process listens there: stop it, or choose another port (0 takes a free one)",
        ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => "",
    }
}

/// What accepting needs besides the socket.
#[derive(Clone)]
pub struct Reception {
    pub shards: Rc<RefCell<Vec<Shard>>>,
    pub tls: Arc<ArcSwapOption<ServerTls>>,
    pub pressure: Arc<Pressure>,
}

impl Listener {
    /// Hands each connection to the shard with the fewest, until `stop` says so; then those that the system has
    /// accepted already, and no more.
    pub async fn accept(self, reception: Reception, mut stop: watch::Receiver<bool>) {
        let Self { socket, serves, .. } = self;
        let mut turn = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok(client) => reception.receive(&mut turn, client, serves),
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while reception.is_full() && !*stop.borrow() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        // Without the runtime, which may not have been told yet that somebody waits.
        let Ok(waiting) = socket.into_waiting() else { return };
        for _ in 0..socket::BACKLOG {
            match waiting.accept() {
                Ok(client) => reception.receive(&mut turn, client, serves),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(_) => return,
            }
        }
    }
}

impl Reception {
    /// What is left of the process's resources is for those who are here.
    fn is_full(&self) -> bool {
        let connections: u64 = self.shards.borrow().iter().map(Shard::load).sum();
        connections >= self.pressure.most_connections() || self.pressure.level() == Level::Critical
    }

    fn receive(&self, turn: &mut usize, socket: ClientSocket, serves: Serves) {
        let tls = match serves.speaks {
            Speaks::Plain => None,
            Speaks::Tls => self.tls.load_full(),
        };
        if let ClientSocket::Tcp(stream, _) = &socket
            && let Err(error) = stream.set_nodelay(true)
        {
            return tracing::debug!(%error, "a connection ended before it began");
        }
        let shards = self.shards.borrow();
        *turn = (*turn + 1) % shards.len().max(1);
        let turned = shards[*turn..].iter().chain(&shards[..*turn]);
        let Some(least) = turned.min_by_key(|shard| shard.load()) else { return };
        let counted = CountedConnection::new(&least.metrics);
        least.tell(Message::Client(Arrival { socket, tls, offers: serves.offers, counted }));
    }
}
