//! A TCP connection to a worker, at whichever of its addresses takes it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::addresses::Addresses;
use super::names::NameError;

/// How long one address is waited for before the next one is tried beside it, if the time allows for that with all.
const STAGGER: Duration = Duration::from_millis(250);
/// Connects that one request may have under way at a time.
const MOST_AT_ONCE: usize = 8;

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

impl DialError {
    /// The worker's host, or a router on the way, answers that nobody listens there. A timeout is not as clear.
    pub fn is_refused(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
        let clear = [ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable];
        matches!(self, Self::Io(error) if clear.contains(&error.kind()))
    }

    /// The refusal came at once, so that another try costs no time. An unreachable host is reported after seconds.
    pub fn is_refused_at_once(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset};
        matches!(self, Self::Io(error) if matches!(error.kind(), ConnectionRefused | ConnectionReset))
    }

    /// This machine has run out of descriptors, ports or memory: that says nothing about the worker.
    pub fn is_local(&self) -> bool {
        let Self::Io(error) = self else { return false };
        let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::NOMEM];
        Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
    }
}

/// Connects to whichever address takes the connection first; the error is the last one's. The next address is tried
/// as soon as one refuses, and after a moment beside one that stays silent (RFC 8305 section 5), soon enough that the
/// last one has its chance, too. `limit` is the time for the name and all tries together: a worker that can't be
/// reached must not hold a request.
pub async fn dial(addresses: &Addresses, limit: Duration) -> Result<(TcpStream, SocketAddr), DialError> {
    let deadline = Instant::now() + limit;
    let known = timeout_at(deadline, addresses.first()).await.unwrap_or_else(|_| addresses.next());
    let tries = known.map_err(DialError::Name)?;
    let (stream, address) = match tries.as_slice() {
        [only] => (connect(*only, deadline).await?, *only),
        several => race(addresses, several, deadline).await?,
    };
    stream.set_nodelay(true)?;
    Ok((stream, address))
}

async fn connect(address: SocketAddr, deadline: Instant) -> Result<TcpStream, DialError> {
    let connected = timeout_at(deadline, TcpStream::connect(address)).await.map_err(|_| DialError::Timeout)?;
    Ok(connected?)
}

async fn race(
    addresses: &Addresses,
    tries: &[SocketAddr],
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let stagger = left.div_f64((tries.len() + 1) as f64).min(STAGGER);
    let longest = if tries.len() > MOST_AT_ONCE { stagger * MOST_AT_ONCE as u32 } else { left };
    let (mut waiting, mut silent) = (tries.iter().copied(), Vec::new());
    let mut running = FuturesUnordered::new();
    let mut last = DialError::Timeout;
    loop {
        if let Some(address) = waiting.next() {
            silent.push(address);
            let end = deadline.min(Instant::now() + longest);
            running.push(async move { (address, connect(address, end).await) });
        }
        let until = if waiting.len() > 0 { deadline.min(Instant::now() + stagger) } else { deadline };
        match timeout_at(until, running.next()).await {
            Ok(Some((address, Ok(stream)))) => {
                addresses.reached(address);
                // Those before it had more time, and those after it hardly any.
                silent.iter().take_while(|other| **other != address).for_each(|slow| addresses.not_reached(*slow));
                return Ok((stream, address));
            }
            Ok(Some((address, Err(error)))) => {
                if !error.is_local() {
                    addresses.not_reached(address);
                }
                silent.retain(|other| *other != address);
                last = error;
            }
            Ok(None) => return Err(last),
            Err(_) if Instant::now() < deadline => {}
            Err(_) => {
                silent.iter().for_each(|slow| addresses.not_reached(*slow));
                return Err(DialError::Timeout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);

    fn named() -> Addresses {
        Addresses::of(&"http://w.test:80".parse().expect("a URL"))
    }

    #[test]
    fn what_a_failed_connect_says_of_the_worker() {
        let of = |errno: Errno| {
            let error = DialError::Io(errno.into());
            (error.is_refused(), error.is_refused_at_once(), error.is_local())
        };
        for at_once in [Errno::CONNREFUSED, Errno::CONNRESET] {
            assert_eq!(of(at_once), (true, true, false), "{at_once}");
        }
        for late in [Errno::HOSTUNREACH, Errno::NETUNREACH] {
            assert_eq!(of(late), (true, false, false), "{late}");
        }
        for ours in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::NOMEM] {
            assert_eq!(of(ours), (false, false, true), "{ours}");
        }
        assert_eq!(of(Errno::PERM), (false, false, false));
        let timeout = DialError::Timeout;
        assert!(!timeout.is_refused() && !timeout.is_local());
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

    /// A listener whose queue is full, so that connects to it stay without an answer; it with what fills it.
    async fn silent(ip: [u8; 4]) -> (tokio::net::TcpListener, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((ip, 0).into()).expect("a free port");
        let listener = socket.listen(0).expect("a bound socket can listen");
        let address = listener.local_addr().expect("an address");
        let mut queue = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queue.push(stream);
        }
        (listener, queue)
    }

    #[tokio::test]
    async fn the_one_that_listens_is_found_among_silent_ones_and_comes_first_from_then_on() {
        let listener = tokio::net::TcpListener::bind("127.0.0.9:0").await.expect("a free port");
        let listening = listener.local_addr().expect("an address");
        let mut all = vec![listening];
        let mut held = Vec::new();
        for last in 1..=4 {
            held.push(silent([127, 0, 0, last]).await);
            all.push(held[held.len() - 1].0.local_addr().expect("an address"));
        }
        all.sort_unstable();
        let addresses = named();
        addresses.publish(&all);
        let limit = Duration::from_secs(1);
        let mut times = Vec::new();
        for _ in 0..6 {
            let start = std::time::Instant::now();
            assert_eq!(dial(&addresses, limit).await.expect("a connection").1, listening);
            times.push(start.elapsed());
        }
        assert!(times[0] >= Duration::from_millis(600), "four had their moment: {times:?}");
        assert!(times[1..].iter().sum::<Duration>() < Duration::from_millis(500), "{times:?}");
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
