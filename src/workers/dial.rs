//! A TCP connection to a worker, at whichever of its addresses takes it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::addresses::Addresses;
use super::names::NameError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("no connection in time")]
    Timeout,
    #[error("the worker's name is not resolved: {0}")]
    Name(#[source] Arc<NameError>),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Connects to the next address, and to those after it while none takes the connection; the error is the
/// last one's. An address that stays silent gets its share of the time that is left, so that it does not use
/// up that of the others. `limit` is the time for the name and all tries together: a worker that can't be reached must
/// not hold a request.
pub async fn dial(addresses: &Addresses, limit: Duration) -> Result<(TcpStream, SocketAddr), DialError> {
    let deadline = Instant::now() + limit;
    let known = timeout_at(deadline, addresses.first()).await.unwrap_or_else(|_| addresses.next());
    let tries = known.map_err(DialError::Name)?;
    let mut last = DialError::Timeout;
    for (at, address) in tries.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left.div_f64((tries.len() - at) as f64);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok((stream, *address));
            }
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = DialError::Timeout,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);

    fn named() -> Addresses {
        Addresses::of(&"http://w.test:80".parse().expect("a URL"))
    }

    #[tokio::test]
    async fn a_refused_connect_goes_to_the_next_address() {
        // Bound and not listening: the port stays ours, and refuses.
        let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
        closed.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let refusing = closed.local_addr().expect("an address");
        let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("a free port");
        let listening = listener.local_addr().expect("an address");
        let addresses = named();
        addresses.publish(&[refusing, listening]);
        for _ in 0..2 {
            assert_eq!(dial(&addresses, LIMIT).await.expect("a connection").1, listening);
        }
        addresses.publish(&[refusing]);
        assert!(matches!(dial(&addresses, LIMIT).await, Err(DialError::Io(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_address_the_error_says_so() {
        let addresses = named();
        let before = Instant::now();
        let error = dial(&addresses, LIMIT).await.expect_err("the name is never resolved");
        assert!(matches!(error, DialError::Name(why) if matches!(*why, NameError::Pending)));
        assert_eq!(before.elapsed(), LIMIT);
        addresses.fail(Arc::new(NameError::NotFound));
        let error = dial(&addresses, LIMIT).await.expect_err("the name does not exist");
        assert!(matches!(error, DialError::Name(why) if matches!(*why, NameError::NotFound)));
    }
}
