//! The body of a worker's answer, in whichever version of HTTP it comes.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::client::Connections;
use super::http2::Answering;
use super::link::{Link, LinkError};
use crate::http1::wire::Wire;
use crate::stream::Stream;

/// Pieces of an unwanted answer that are passed over, to use the connection again.
const MOST_PASSED_OVER: usize = 16;

/// Is shown each piece of a body as it passes, until it breaks.
pub type BodyObserver = Box<dyn FnMut(&[u8]) -> ControlFlow<()>>;

/// See the module's documentation. Once it has been read to its end, its connection is free for another exchange.
pub struct AnswerBody<B>(Source<B>);

enum Source<B> {
    /// Without a home, the connection is closed at the end.
    Http1(Box<Link<B>>, Option<Rc<Connections<B>>>),
    Http2(Answering<B>),
    /// A variant of its own, so that bodies without an observer cost nothing.
    Observed(Box<Observed<B>>),
    Ended,
}

struct Observed<B> {
    body: AnswerBody<B>,
    observer: Option<BodyObserver>,
}

impl<B> Observed<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(observer) = &mut self.observer
            && let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && observer(data).is_break()
        {
            self.observer = None;
        }
        Poll::Ready(frame)
    }
}

impl<B> AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn http1(link: Box<Link<B>>, home: Option<Rc<Connections<B>>>) -> Self {
        Self(Source::Http1(link, home))
    }

    pub fn http2(body: Answering<B>) -> Self {
        Self(Source::Http2(body))
    }

    /// Shows `observer` the pieces that pass from here on.
    pub fn observe(&mut self, observer: BodyObserver) {
        let body = Self(std::mem::replace(&mut self.0, Source::Ended));
        self.0 = Source::Observed(Box::new(Observed { body, observer: Some(observer) }));
    }

    /// Gives the connection back at once if there is no body.
    #[must_use]
    pub fn settled(mut self) -> Self {
        if self.is_end_stream() {
            self.finish();
        }
        self
    }

    /// What has not been read of the request's body. The worker gets no more of it.
    pub fn take_back(&mut self) -> Option<B> {
        match &mut self.0 {
            Source::Http1(link, _) => link.take_back(),
            Source::Http2(body) => body.take_back(),
            Source::Observed(observed) => observed.body.take_back(),
            Source::Ended => None,
        }
    }

    /// The connection, if it is HTTP/1.1's and this answer has ended HTTP on it.
    pub fn into_wire(self) -> Result<Wire<Stream>, Self> {
        match self.0 {
            Source::Http1(link, _) => Ok(link.into_wire()),
            Source::Observed(observed) => observed.body.into_wire(),
            source => Err(Self(source)),
        }
    }

    /// Nobody wants it: what is here of it is passed over, and the connection is kept if that is all.
    pub fn pass_over(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let is_more = |_: &usize| matches!(Pin::new(&mut self).poll_frame(&mut cx), Poll::Ready(Some(Ok(_))));
        let _passed = (0..MOST_PASSED_OVER).take_while(is_more).count();
    }

    /// It will come in one piece, if that can be had.
    pub fn expect_whole(&mut self) {
        match &mut self.0 {
            Source::Http1(link, _) => link.expect_whole(),
            Source::Observed(observed) => observed.body.expect_whole(),
            Source::Http2(_) | Source::Ended => {}
        }
    }

    /// No more than `count` bytes of it are read at once. Over HTTP/2 its frames are small, and their window bounds them.
    pub fn limit_reads(&mut self, count: usize) {
        if let Source::Http1(link, _) = &mut self.0 {
            link.limit_reads(count);
        }
    }

    /// Bytes that are here and have not been handed out.
    pub fn read_ahead(&self) -> usize {
        match &self.0 {
            Source::Http1(link, _) => link.read_ahead(),
            Source::Observed(observed) => observed.body.read_ahead(),
            Source::Http2(_) | Source::Ended => 0,
        }
    }

    fn finish(&mut self) {
        if let Source::Http1(link, Some(home)) = std::mem::replace(&mut self.0, Source::Ended)
            && link.is_reusable()
        {
            home.keep(link);
        }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let frame = ready!(match &mut self.0 {
            Source::Http1(link, _) => link.poll_body(cx),
            Source::Http2(body) => Pin::new(body).poll_frame(cx),
            Source::Observed(observed) => observed.poll_frame(cx),
            Source::Ended => Poll::Ready(None),
        });
        match &frame {
            Some(Err(_)) => self.0 = Source::Ended,
            None => self.finish(),
            Some(Ok(_)) if self.is_end_stream() => self.finish(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1(link, _) => link.is_ended(),
            Source::Http2(body) => body.is_end_stream(),
            Source::Observed(observed) => observed.body.is_end_stream(),
            Source::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1(link, _) => link.body_size_hint(),
            Source::Http2(body) => body.size_hint(),
            Source::Observed(observed) => observed.body.size_hint(),
            Source::Ended => SizeHint::with_exact(0),
        }
    }
}
