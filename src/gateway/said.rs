//! Reads what decides the destination of a request: the model that it names, and its prompt.
//!
//! A short body is read whole, because of several models the last counts, or none. Of a longer one no more is held than it takes
//! to find a model. It is sent on then, and what follows is watched: a body that names another model further on breaks
//! off, so no worker gets to see what its pool was not chosen for.
//!
//! What can't be judged is passed on as if it said nothing: the worker knows better what is wrong with it. But a body
//! in which one worker reads one model and another worker another is refused where the model decides.

mod coded;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::uri::PathAndQuery;
use http_body::Body;

pub use self::coded::Decoding;
use super::error::GatewayError;
use super::exchange::Exchange;
use super::upload::{Stopped, WorkerBody};
use crate::content_coding::{Coding, UnknownCoding};
use crate::model_name::{self, Format, Found, Model, Place, Scanner, Spelling};
use crate::modules::RequestHead;
use crate::prompt::Prompt;

/// What to read from a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wants {
    /// The model, because it selects the pool.
    pub choice: bool,
    /// The model, although the pool is known: it may be an alias, which has to be replaced.
    pub name: bool,
    pub prompt: bool,
}

impl Wants {
    pub fn something(self) -> bool {
        self.choice || self.name || self.prompt
    }

    fn model(self) -> bool {
        self.choice || self.name
    }
}

/// What was read from a request.
#[derive(Default)]
pub struct Said {
    /// `Unsaid` also if the model was not wanted.
    pub model: Model,
    named: Named,
    /// The body, if it may have a prompt and the prompt is wanted.
    text: Option<Bytes>,
}

/// Where the request names its model.
#[derive(Default)]
enum Named {
    #[default]
    Nowhere,
    InQuery(Vec<Place>),
    InBody {
        places: Vec<Place>,
        spelling: Spelling,
        /// If set, `places` refer to the decoded body.
        coding: Option<Coding>,
    },
}

impl Said {
    /// Reads what is wanted from a request.
    pub async fn read(
        wants: Wants,
        exchange: &Exchange<'_>,
        head: &RequestHead,
        body: WorkerBody,
    ) -> Result<(WorkerBody, Self), GatewayError> {
        let (body, mut said) = Self::in_body(wants, exchange, head, body).await?;
        if said.model == Model::Unsaid
            && wants.model()
            && let Some(query) = head.uri.query()
        {
            let Found { model, places, .. } = model_name::in_query(query);
            (said.model, said.named) = (model, Named::InQuery(places.into_vec()));
        }
        Ok((body, said))
    }

    async fn in_body(
        wants: Wants,
        exchange: &Exchange<'_>,
        head: &RequestHead,
        body: WorkerBody,
    ) -> Result<(WorkerBody, Self), GatewayError> {
        let length = body.size_hint();
        let format = Format::of(&head.headers, length.exact().is_some()).filter(|_| !body.is_end_stream());
        let Some(format) = format else { return Ok((body, Self::default())) };
        let most = exchange.config().retries.max_buffered_request_bytes;
        let wants_text = wants.prompt && format == Format::Json && length.lower() <= most;
        if !wants.model() && !wants_text {
            return Ok((body, Self::default()));
        }
        let scanned = if wants.model() { exchange.config().limits.max_scanned_request_bytes } else { 0 };
        let search = Search { wants, wants_text, most, limit: scanned.max(most) };
        match Coding::of(&head.headers) {
            Ok(None) if wants.model() => search.plain(exchange, &format, body).await,
            Ok(None) => search.text(exchange, body).await,
            Ok(Some(coding)) => search.coded(exchange, &format, coding, body).await,
            Err(UnknownCoding) if wants.choice => Err(GatewayError::UnknownCoding),
            Err(UnknownCoding) => Ok((body, Self::default())),
        }
    }

    /// Parses the prompt, which takes time.
    pub fn prompt(&self) -> Option<Prompt<'_>> {
        Prompt::read(self.text.as_ref()?).ok()
    }

    /// Drops the prompt, which is not needed any more.
    pub fn forget_prompt(&mut self) {
        self.text = None;
    }

    /// Replaces the model's name in the request with `name`.
    pub async fn rename(
        &self,
        name: &str,
        exchange: &Exchange<'_>,
        head: &mut RequestHead,
        mut body: WorkerBody,
    ) -> Result<WorkerBody, GatewayError> {
        match &self.named {
            Named::Nowhere => {}
            Named::InQuery(places) => rename_query(head, places, name),
            Named::InBody { places, .. } if places.is_empty() => {}
            Named::InBody { places, spelling, coding } => {
                let upload = exchange.record.upload();
                if let Some(coding) = coding {
                    body = coded::decoded(exchange, *coding, body).await?;
                    head.headers.remove(header::CONTENT_ENCODING);
                }
                body.rewrite(&upload, places, &spelling.of(name).into());
                // The client's length no longer applies.
                head.headers.remove(header::CONTENT_LENGTH);
                remove_digests(&mut head.headers);
            }
        }
        Ok(body)
    }
}

/// Removes what a client says of a body's bytes (RFC 9530, and what was before it): they have changed.
pub fn remove_digests(headers: &mut HeaderMap) {
    static DIGESTS: [HeaderName; 4] = [
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-md5"),
    ];
    for name in &DIGESTS {
        headers.remove(name);
    }
}

fn rename_query(head: &mut RequestHead, places: &[Place], name: &str) {
    let Some(query) = head.uri.query() else { return };
    let target = format!("{}?{}", head.uri.path(), model_name::renamed_query(query, places, name));
    // The name is escaped, and the rest was a valid target before.
    if let Ok(target) = PathAndQuery::try_from(target) {
        head.uri = target.into();
    }
}

/// The parameters of a search in a body.
struct Search {
    wants: Wants,
    /// The prompt is wanted, and the body may have one and is short enough.
    wants_text: bool,
    /// Longest body, in bytes, that is read whole even if its model is found early.
    most: u64,
    /// Longest part of a body that is held, in bytes.
    limit: u64,
}

impl Search {
    /// Reads a body without a content coding for its model, and for its prompt.
    async fn plain(
        &self,
        exchange: &Exchange<'_>,
        format: &Format,
        body: WorkerBody,
    ) -> Result<(WorkerBody, Said), GatewayError> {
        let mut scanner = format.scanner();
        let reading = body.hold(self.limit, |piece, held| {
            scanner.push(piece);
            let wants_text = self.wants_text && held <= self.most && scanner.is_object();
            !wants_text && (scanner.is_done() || (held > self.most && is_known(&scanner)))
        });
        let (mut body, stopped) = reading.await?;
        if stopped == Stopped::Whole {
            scanner.finish();
        }
        if !self.is_enough(stopped, &scanner)? {
            return Ok((body, Said::default()));
        }
        let has_text = self.wants_text && scanner.is_object();
        let text = if has_text { body.join(&exchange.record.upload()) } else { None };
        let (spelling, Found { model, places, .. }) = (scanner.spelling(), scanner.found().clone());
        if stopped != Stopped::Whole && !scanner.is_done() {
            body.watch(scanner);
        }
        let named = Named::InBody { places: places.into_vec(), spelling, coding: None };
        Ok((body, Said { model, named, text }))
    }

    /// Whether enough of the body was read to know its model.
    fn is_enough(&self, stopped: Stopped, scanner: &Scanner) -> Result<bool, GatewayError> {
        match stopped {
            Stopped::Whole | Stopped::Enough => Ok(true),
            Stopped::TooLong | Stopped::NoRoom if is_known(scanner) => Ok(true),
            Stopped::TooLong if self.wants.choice => Err(GatewayError::BodyTooLarge(self.limit)),
            Stopped::NoRoom if self.wants.choice => Err(GatewayError::Pressed),
            Stopped::TooLong | Stopped::NoRoom => Ok(false),
        }
    }

    /// Reads a body for its prompt alone. Stops early if the body does not begin like a JSON object.
    async fn text(&self, exchange: &Exchange<'_>, body: WorkerBody) -> Result<(WorkerBody, Said), GatewayError> {
        let mut begins = None;
        let reading = body.hold(self.limit, |piece, _| {
            begins = begins.or_else(|| piece.trim_ascii_start().first().copied());
            begins.is_some_and(|first| first != b'{')
        });
        let (mut body, stopped) = reading.await?;
        let is_object = stopped == Stopped::Whole && begins == Some(b'{');
        let text = if is_object { body.join(&exchange.record.upload()) } else { None };
        Ok((body, Said { text, ..Said::default() }))
    }
}

/// Whether a model is found and the rest of the body can be watched.
fn is_known(scanner: &Scanner) -> bool {
    scanner.found().model != Model::Unsaid && !scanner.ends_with_body()
}
