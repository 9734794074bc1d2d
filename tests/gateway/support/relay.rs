//! TLS in front of a worker that has none of its own.

use super::tls::Acceptor;
use std::net::SocketAddr;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// Accepts TLS, and passes on what is in it; until it is dropped.
pub struct Relay {
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Relay {
    pub fn start(acceptor: Acceptor, to: SocketAddr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let (stop, stopped) = oneshot::channel();
        std::thread::spawn(move || {
            runtime.spawn(relay(listener, TlsAcceptor::from(acceptor.config()), to));
            let _ = runtime.block_on(stopped);
        });
        Relay { address, _stop: stop }
    }
}

async fn relay(listener: TcpListener, acceptor: TlsAcceptor, to: SocketAddr) {
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let mut client = acceptor.accept(client).await.ok()?;
            let mut worker = TcpStream::connect(to).await.ok()?;
            let _ = worker.set_nodelay(true);
            copy_bidirectional(&mut client, &mut worker).await.ok()
        });
    }
}
