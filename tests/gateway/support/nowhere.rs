//! Addresses where nobody answers. Their ports stay taken, so that no other test comes to listen there.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;

pub struct Nowhere {
    pub address: SocketAddr,
    _held: Held,
    _runtime: Runtime,
}

/// What keeps the port, and is never looked at.
enum Held {
    Port { _socket: TcpSocket },
    FullQueue { _listener: TcpListener, _queue: Vec<TcpStream> },
}

impl Nowhere {
    /// Connections are refused.
    pub fn refusing() -> Self {
        Self::bound(|socket| Held::Port { _socket: socket })
    }

    /// Connections are neither taken nor refused, as by a machine that is gone: the queue of the listener is full.
    pub fn silent() -> Self {
        Self::bound(|socket| {
            let listener = socket.listen(0).expect("a bound socket can listen");
            let address = listener.local_addr().expect("a listener has an address");
            let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(200));
            let mut tries = (0..64).map(connect);
            let queue: Vec<_> = tries.by_ref().map_while(Result::ok).collect();
            let last = connect(0).expect_err("the queue is full");
            assert!(matches!(last.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{last}");
            Held::FullQueue { _listener: listener, _queue: queue }
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn bound(hold: impl FnOnce(TcpSocket) -> Held) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let in_runtime = runtime.enter();
        let socket = TcpSocket::new_v4().expect("descriptors are left");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
        let address = socket.local_addr().expect("a bound socket has an address");
        let held = hold(socket);
        drop(in_runtime);
        Nowhere { address, _held: held, _runtime: runtime }
    }
}
