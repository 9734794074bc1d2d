//! What an event is answered with, in the words of the proxy's protocol; both of its versions have the same.

use std::collections::BTreeMap;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, header};
use serde::Serialize;

use crate::modules::{Answer, Edit, FAILED, FAILED_OPEN, FailureKind, FieldEdits, Hook, Verdict};

/// The statuses that a proxy redirects with; it makes a 302 of all others.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// An answer to an event.
#[derive(Debug, Default, Serialize)]
pub struct Reply {
    version: u32,
    decision: Decision,
    request_headers: Vec<Change>,
    response_headers: Vec<Change>,
    routing_metadata: Empty,
    audit: Audit,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    #[default]
    Allow,
    Block {
        status: u16,
        body: Option<String>,
        headers: BTreeMap<String, String>,
    },
    Redirect {
        url: String,
        status: u16,
    },
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Set { name: String, value: String },
    Add { name: String, value: String },
    Remove { name: String },
}

#[derive(Debug, Default, Serialize)]
struct Empty {}

#[derive(Debug, Default, Serialize)]
struct Audit {
    tags: Vec<String>,
    rule_ids: Vec<String>,
    confidence: Option<f32>,
    reason_codes: Vec<String>,
    custom: Custom,
}

#[derive(Debug, Default, Serialize)]
struct Custom {
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
}

impl Reply {
    pub fn allow() -> Self {
        Self::default()
    }

    pub fn of_verdict(hook: Hook, verdict: Verdict) -> Self {
        match verdict {
            Verdict::Continue => Self::allow(),
            Verdict::Edit(edit) => Self::of_edit(hook, *edit),
            Verdict::Respond(answer) => Self::of_answer(hook, *answer),
        }
    }

    fn of_edit(hook: Hook, edit: Edit) -> Self {
        let (request, response) = match hook {
            Hook::Request => (edit.fields, edit.of_answer),
            Hook::Response => (FieldEdits::default(), edit.fields),
        };
        let audit = Audit { tags: edit.tags, ..Audit::default() };
        Self { request_headers: changes(request), response_headers: changes(response), audit, ..Self::allow() }
    }

    /// Proxies differ in what of a block's headers they use, so they are there twice. A redirect is one only
    /// where the proxy sends it as it is; elsewhere it is a block with a `Location`.
    fn of_answer(hook: Hook, answer: Answer) -> Self {
        let Answer { head, body, tags } = answer;
        let (status, headers) = (head.status, head.headers);
        let response_headers = headers.iter().map(|(name, value)| set(name, value)).collect();
        let location = headers.get(header::LOCATION).map(text);
        let decision = match location {
            Some(url) if hook == Hook::Request && headers.len() == 1 && REDIRECTS.contains(&status) => {
                Decision::Redirect { url, status: status.as_u16() }
            }
            // Where nothing is said of a body, the proxy puts a text of its own.
            _ => Decision::Block {
                status: status.as_u16(),
                body: body.map(|body| String::from_utf8_lossy(&body).into_owned()),
                headers: one_of_each(&headers),
            },
        };
        Self { decision, response_headers, audit: Audit { tags, ..Audit::default() }, ..Self::allow() }
    }

    /// The module failed, and the policy is to let pass.
    pub fn failed_open(kind: FailureKind) -> Self {
        let audit = failure(&[FAILED, FAILED_OPEN], kind);
        Self { audit, ..Self::allow() }
    }

    /// The module failed, and the policy is to block.
    pub fn failed_closed(kind: FailureKind, status: u16, text: Option<&str>) -> Self {
        let body = text.map(str::to_owned);
        let decision = Decision::Block { status, body, headers: BTreeMap::new() };
        Self { decision, audit: failure(&[FAILED], kind), ..Self::allow() }
    }

    /// The module refuses its configuration.
    pub fn refused(why: String) -> Self {
        let decision = Decision::Block { status: 500, body: Some(why), headers: BTreeMap::new() };
        Self { decision, ..Self::allow() }
    }

    pub fn tags(&self) -> &[String] {
        &self.audit.tags
    }

    /// For metrics and logs.
    pub fn label(&self) -> &'static str {
        match self.decision {
            Decision::Allow => "allow",
            Decision::Block { .. } => "block",
            Decision::Redirect { .. } => "redirect",
        }
    }

    /// As JSON. The id is how a proxy that speaks version 2 finds its request again.
    pub fn encode(mut self, version: u32, correlation_id: Option<String>) -> Vec<u8> {
        self.version = version;
        self.audit.custom.correlation_id = correlation_id;
        serde_json::to_vec(&self).expect("what we say can be said in JSON")
    }
}

fn failure(tags: &[&str], kind: FailureKind) -> Audit {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Audit { tags, reason_codes: vec![kind.label().to_owned()], ..Audit::default() }
}

fn changes(edits: FieldEdits) -> Vec<Change> {
    let FieldEdits { set: sets, add, remove } = edits;
    let sets = sets.iter().map(|(name, value)| set(name, value));
    let adds = add.iter().map(|(name, value)| Change::Add { name: name.to_string(), value: text(value) });
    sets.chain(adds).chain(remove.iter().map(|name| Change::Remove { name: name.to_string() })).collect()
}

fn set(name: &HeaderName, value: &HeaderValue) -> Change {
    Change::Set { name: name.to_string(), value: text(value) }
}

fn one_of_each(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn sent(reply: Reply) -> Value {
        serde_json::from_slice(&reply.encode(2, Some("id".to_owned()))).expect("JSON")
    }

    fn answer(status: u16, fields: &[(&'static str, &'static str)], body: Option<&'static str>) -> Box<Answer> {
        let mut answer = Answer::empty(StatusCode::from_u16(status).expect("a status"));
        for (name, value) in fields {
            answer.head.headers.insert(*name, HeaderValue::from_static(value));
        }
        answer.body = body.map(Bytes::from);
        Box::new(answer)
    }

    fn decision(hook: Hook, answer: Box<Answer>) -> Value {
        sent(Reply::of_verdict(hook, Verdict::Respond(answer)))["decision"].clone()
    }

    #[test]
    fn every_key_that_a_proxy_wants_is_there() {
        let audit = json!({"tags": [], "rule_ids": [], "confidence": null, "reason_codes": [], "custom": {"correlation_id": "id"}});
        let whole = json!({
            "version": 2, "decision": "allow", "request_headers": [], "response_headers": [], "routing_metadata": {},
            "audit": audit,
        });
        assert_eq!(sent(Reply::allow()), whole);
        let v1: Value = serde_json::from_slice(&Reply::allow().encode(1, None)).expect("JSON");
        assert_eq!((&v1["version"], &v1["audit"]["custom"]), (&json!(1), &json!({})));
    }

    #[test]
    fn edits_are_sets_adds_and_removals_in_this_order() {
        let field = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("v"));
        let fields = FieldEdits { set: vec![field("a")], add: vec![field("b")], remove: vec![field("c").0] };
        let of_answer = FieldEdits { set: vec![field("d")], ..FieldEdits::default() };
        let edit = || Box::new(Edit { fields, of_answer, tags: vec!["t".to_owned()], ..Edit::default() });
        let reply = sent(Reply::of_verdict(Hook::Request, Verdict::Edit(edit())));
        let changes = json!([{"set": {"name": "a", "value": "v"}}, {"add": {"name": "b", "value": "v"}}, {"remove": {"name": "c"}}]);
        assert_eq!(reply["request_headers"], changes);
        assert_eq!(reply["response_headers"], json!([{"set": {"name": "d", "value": "v"}}]));
        assert_eq!(reply["audit"]["tags"], json!(["t"]));
    }

    #[test]
    fn a_redirect_that_the_proxy_would_change_is_a_block_with_a_location() {
        let location = [("location", "/b")];
        assert_eq!(
            decision(Hook::Request, answer(307, &location, Some(""))),
            json!({"redirect": {"url": "/b", "status": 307}})
        );
        let block = |status: u16| json!({"block": {"status": status, "body": "", "headers": {"location": "/b"}}});
        assert_eq!(decision(Hook::Response, answer(307, &location, Some(""))), block(307));
        assert_eq!(decision(Hook::Request, answer(300, &location, Some(""))), block(300));
        let more = decision(Hook::Request, answer(302, &[("location", "/b"), ("x", "y")], Some("")));
        assert_eq!(more["block"]["headers"], json!({"location": "/b", "x": "y"}));
    }

    #[test]
    fn a_block_has_its_headers_in_both_places_and_no_body_is_null() {
        let reply = sent(Reply::of_verdict(Hook::Request, Verdict::Respond(answer(401, &[("x", "y")], None))));
        assert_eq!(reply["decision"], json!({"block": {"status": 401, "body": null, "headers": {"x": "y"}}}));
        assert_eq!(reply["response_headers"], json!([{"set": {"name": "x", "value": "y"}}]));
        assert_eq!(decision(Hook::Request, answer(403, &[], Some("no")))["block"]["body"], "no");
    }

    #[test]
    fn failures_carry_their_tags_and_kind() {
        let open = sent(Reply::failed_open(FailureKind::Trap));
        assert_eq!((&open["decision"], &open["audit"]["tags"]), (&json!("allow"), &json!(["wasm-error", "fail-open"])));
        assert_eq!(open["audit"]["reason_codes"], json!(["trap"]));
        let closed = sent(Reply::failed_closed(FailureKind::Timeout, 500, Some("Wasm Error")));
        assert_eq!(closed["decision"], json!({"block": {"status": 500, "body": "Wasm Error", "headers": {}}}));
        assert_eq!(closed["audit"]["tags"], json!(["wasm-error"]));
    }
}
