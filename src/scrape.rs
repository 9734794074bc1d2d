//! The second listener: `/metrics` for everybody who can connect to it, so nobody may keep anything of it for long.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

use crate::gateway::error::ERROR_CODE;

/// Time for a connection, from its first byte to its last.
const TIME: Duration = Duration::from_secs(10);
/// Connections at once. One more ends the oldest: a scrape takes milliseconds, and who holds connections shuts nobody
/// out.
const MOST_CONNECTIONS: usize = 32;
/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers scrapes with what `metrics` gives, for as long as it is polled; one on each connection.
pub async fn serve(listener: TcpListener, metrics: impl Fn() -> Response<Bytes> + Clone + 'static) {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.add(spawn_local(serve_one(stream, metrics.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a scraper's connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The tasks of those that are open, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<JoinHandle<()>>);

impl Connections {
    fn add(&mut self, connection: JoinHandle<()>) {
        self.0.retain(|connection| !connection.is_finished());
        self.0.push_back(connection);
        if self.0.len() > MOST_CONNECTIONS {
            self.0.pop_front().iter().for_each(JoinHandle::abort);
        }
    }
}

async fn serve_one(stream: TcpStream, metrics: impl Fn() -> Response<Bytes>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/metrics") => metrics(),
            _ => {
                let mut response = Response::new(Bytes::from_static(b"only GET /metrics is here\n"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response.headers_mut().insert(&ERROR_CODE, HeaderValue::from_static("not_found"));
                response
            }
        };
        async move { Ok::<_, Infallible>(response.map(Full::new)) }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).max_buf_size(MAX_HEAD);
    match timeout(TIME, builder.serve_connection(TokioIo::new(stream), service)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a scraper's connection failed"),
        Err(_) => tracing::debug!("a scraper took too long"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let start = Instant::now();
        let told = async {
            let mut silent = TcpStream::connect(address).await.expect("it listens");
            silent.read_to_end(&mut Vec::new()).await.expect("an orderly end")
        };
        let serving = serve(listener, || Response::new(Bytes::new()));
        LocalSet::new()
            .run_until(async {
                tokio::select! { () = serving => {}, read = told => assert_eq!(read, 0) }
            })
            .await;
        assert!(start.elapsed() >= TIME);
    }
}
