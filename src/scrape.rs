//! The second listener: `/metrics` for everybody who can connect to it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

const HEAD_TIME: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers scrapes with what `metrics` gives, for as long as it is polled.
pub async fn serve(listener: TcpListener, metrics: impl Fn() -> Response<Bytes> + Clone + 'static) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(spawn_local(serve_one(stream, metrics.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a scraper's connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
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
                response
            }
        };
        async move { Ok::<_, Infallible>(response.map(Full::new)) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a scraper's connection failed");
    }
}
