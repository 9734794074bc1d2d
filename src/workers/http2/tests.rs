use std::convert::Infallible;
use std::io;

use http::{HeaderMap, Method};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A body of which nothing comes; it tells when it is asked for some.
struct Endless(Rc<Notify>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.notify_one();
        Poll::Pending
    }
}

async fn place(http2: &Http2<Endless>, listener: &TcpListener) -> io::Result<Place<Endless>> {
    let peer = listener.local_addr()?;
    let place = http2.dial(async { Ok((Stream::Plain(TcpStream::connect(peer).await?), peer)) });
    place.await.map_err(|error: Box<dyn Error + Send + Sync>| io::Error::other(error))
}

// Its connection may carry the next request before h2 knows.
#[test]
fn the_body_of_an_exchange_that_is_left_is_held_by_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let http2 = Http2::new(Duration::from_secs(60));
        let place = place(&http2, &listener).await.expect("a connection");
        let asked = Rc::new(Notify::new());
        let (method, uri, headers) = (Method::POST, Uri::from_static("/"), HeaderMap::new());
        let host = HeaderValue::from_static("a");
        let parts = RequestParts { method: &method, uri: &uri, headers: &headers, host: &host, upgrade: None };
        tokio::select! {
            _ = place.send(Scheme::Http, parts, Endless(asked.clone())) => panic!("nobody answers"),
            () = asked.notified() => {}
        }
        assert_eq!(Rc::strong_count(&asked), 1);
    });
}
