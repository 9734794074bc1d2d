//! Web pages of other origins (the CORS protocol of the Fetch standard, section 3.3): which may call, and what their
//! browsers are told. Preflight requests are answered here; they carry no key. Workers have no say in it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body::Body;

use super::Gateway;
use super::answer::Answer;
use super::error::GatewayError;
use super::exchange::Exchange;
use super::upload::WorkerBody;
use crate::client::RequestBody;
use crate::config::Config;
use crate::headers::KEY_FIELDS;
use crate::http1::head::Request;
use crate::modules::RequestHead;

/// Methods that pages may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// Fields of answers that pages may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, x-smg-error-code, retry-after");
/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

impl Gateway {
    /// Serves a request if the configuration allows origins. Workers' own CORS fields are then removed.
    pub(super) async fn serve_page(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut Request,
        body: RequestBody,
        destination: impl AsyncFnOnce(&mut Exchange<'_>, &mut RequestHead, WorkerBody) -> Result<Answer, GatewayError>,
    ) -> Result<Answer, GatewayError> {
        let silenced = async |exchange: &mut Exchange<'_>, head: &mut RequestHead, body: WorkerBody| {
            let mut answer = destination(exchange, head, body).await?;
            silence(&mut answer.head.headers);
            Ok(answer)
        };
        let Some(origin) = allowed_origin(exchange.config(), &request.headers) else {
            if is_preflight(request) {
                return Err(GatewayError::Forbidden("This origin is not allowed."));
            }
            let mut answer = self.serve(exchange, request, body, silenced).await?;
            vary(exchange.config(), &mut answer.head.headers);
            return Ok(answer);
        };
        let mut answer = match is_preflight(request) {
            true => preflight(request),
            false => {
                let served = self.serve(exchange, request, body, silenced).await;
                served.unwrap_or_else(|error| Answer::of_error(&error, exchange.record))
            }
        };
        vary(exchange.config(), &mut answer.head.headers);
        allow(&mut answer.head.headers, origin);
        Ok(answer)
    }
}

/// The origin of the page that a request comes from, if such pages may call.
fn allowed_origin(config: &Config, headers: &HeaderMap) -> Option<HeaderValue> {
    let allowed = &config.access.cors_allowed_origins;
    if allowed.is_empty() {
        return None;
    }
    let origin = headers.get(header::ORIGIN)?;
    if allowed.iter().any(|one| one == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    allowed.iter().any(|one| origin.as_bytes().eq_ignore_ascii_case(one.as_bytes())).then(|| origin.clone())
}

/// A browser asks whether a page may send a request.
fn is_preflight(request: &Request) -> bool {
    let names = [header::ORIGIN, header::ACCESS_CONTROL_REQUEST_METHOD];
    request.method == Method::OPTIONS && names.iter().all(|name| request.headers.contains_key(name))
}

/// Whether the request may pass without a key, because browsers send none with a preflight. It must be a plain
/// preflight: with a body, or a field that some frameworks treat as the method, a worker could take it for another
/// request.
pub fn is_keyless(request: &Request, body: &impl Body) -> bool {
    let odd = ["x-http-method-override", "x-http-method", "x-method-override"];
    is_preflight(request)
        && body.is_end_stream()
        && request.uri.path().starts_with('/')
        && !KEY_FIELDS.iter().any(|name| request.headers.contains_key(name))
        && !odd.iter().any(|name| request.headers.contains_key(*name))
}

/// The answer to a browser whose page may.
fn preflight(request: &Request) -> Answer {
    let mut answer = Answer::empty(StatusCode::NO_CONTENT);
    let headers = &mut answer.head.headers;
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Some(asked) = request.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    answer
}

/// Removes what a worker says about pages: many let all of them read.
fn silence(headers: &mut HeaderMap) {
    let is_cors = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    while let Some(name) = headers.keys().find(is_cors).cloned() {
        headers.remove(name);
    }
}

/// Keeps caches from giving the answer for one page, or for none, to another (Fetch standard, section 3.3.6).
fn vary(config: &Config, headers: &mut HeaderMap) {
    let allowed = &config.access.cors_allowed_origins;
    if !allowed.is_empty() && allowed.iter().all(|one| one != "*") {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// Lets the page read an answer.
fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_whole() {
        let of = |flag: &str, origin: &'static str| {
            let headers = [(header::ORIGIN, HeaderValue::from_static(origin))].into_iter().collect();
            allowed_origin(&Config::of(&[flag]), &headers).map(|origin| origin.to_str().expect("text").to_owned())
        };
        let one = "--cors-allowed-origins=https://chat.example,http://localhost:3000";
        for (origin, allowed) in [
            ("https://chat.example", true),
            ("HTTPS://Chat.example", true),
            ("http://localhost:3000", true),
            ("http://localhost", false),
            ("https://chat.example.evil", false),
            ("https://evil.chat.example", false),
            ("null", false),
        ] {
            assert_eq!(of(one, origin).is_some(), allowed, "{origin}");
        }
        assert_eq!(of("--cors-allowed-origins=*", "https://any").as_deref(), Some("*"));
        assert_eq!(allowed_origin(&Config::of(&[]), &HeaderMap::new()), None);
    }
}
