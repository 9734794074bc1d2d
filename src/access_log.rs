//! The access log: one line for each request, with the fields that the operator chose, in their order.
//!
//! Lines look as if `tracing` had written them, as the rest of the log is, but its macros fix the fields of an event
//! when the gateway is compiled. So they are put together here, and go to the same writer.

mod clock;
mod line;

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing_appender::non_blocking::NonBlocking;

use self::clock::Clock;
use self::line::Line;
use crate::telemetry::{self, ModuleRun};
use crate::trace::TraceId;

/// Something that can be told of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Time,
    Id,
    Client,
    Method,
    Path,
    Query,
    Status,
    Error,
    Cause,
    Worker,
    Model,
    Key,
    Attempts,
    HeadMs,
    TotalMs,
    BytesIn,
    BytesOut,
    Modules,
    Tags,
    End,
    Protocol,
    Host,
    UserAgent,
    Referer,
    TraceId,
    Tls,
    CorrelationId,
}

impl Field {
    /// In the order of the discriminants.
    const ALL: [(Field, &'static str); 27] = [
        (Field::Time, "time"),
        (Field::Id, "id"),
        (Field::Client, "client"),
        (Field::Method, "method"),
        (Field::Path, "path"),
        (Field::Query, "query"),
        (Field::Status, "status"),
        (Field::Error, "error"),
        (Field::Cause, "cause"),
        (Field::Worker, "worker"),
        (Field::Model, "model"),
        (Field::Key, "key"),
        (Field::Attempts, "attempts"),
        (Field::HeadMs, "head_ms"),
        (Field::TotalMs, "total_ms"),
        (Field::BytesIn, "bytes_in"),
        (Field::BytesOut, "bytes_out"),
        (Field::Modules, "modules"),
        (Field::Tags, "tags"),
        (Field::End, "end"),
        (Field::Protocol, "protocol"),
        (Field::Host, "host"),
        (Field::UserAgent, "user_agent"),
        (Field::Referer, "referer"),
        (Field::TraceId, "trace_id"),
        (Field::Tls, "tls"),
        (Field::CorrelationId, "correlation_id"),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What `--log-fields` says: names with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields(Arc<[Field]>);

/// What a line has unless somebody says otherwise.
pub const DEFAULT_FIELDS: &str = "time,id,client,method,path,status,error,cause,worker,head_ms,total_ms,bytes_in,\
                                  bytes_out,modules,tags,end,correlation_id";

impl Fields {
    /// Whether it need be known at all.
    pub fn has(&self, field: Field) -> bool {
        self.0.contains(&field)
    }
}

impl FromStr for Fields {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = Vec::new();
        for name in text.split(',').map(str::trim) {
            let Some((field, _)) = Field::ALL.iter().find(|(_, known)| *known == name) else {
                let known = Field::ALL.map(|(_, name)| name).join(",");
                return Err(format!("`{name}` is not one of {known}"));
            };
            if fields.contains(field) {
                return Err(format!("`{name}` is there twice"));
            }
            fields.push(*field);
        }
        Ok(Self(fields.into()))
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|field| field.name()).collect();
        f.write_str(&names.join(","))
    }
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// What is known of a request at its end. What is not known is empty.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub id: &'a [u8],
    pub client: &'a [u8],
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub status: u16,
    pub error: &'a str,
    pub cause: &'a str,
    pub worker: &'a str,
    pub model: &'a str,
    /// The name of the caller's key, never the key.
    pub key: &'a str,
    pub attempts: u32,
    pub to_head: Duration,
    pub total: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub modules: &'a [ModuleRun],
    pub tags: &'a [Arc<str>],
    pub end: &'a str,
    pub protocol: &'a str,
    pub host: &'a [u8],
    pub user_agent: &'a [u8],
    pub referer: &'a [u8],
    pub trace_id: Option<TraceId>,
    /// The version of TLS, empty without TLS.
    pub tls: &'a str,
    /// What the client calls the transaction.
    pub correlation_id: &'a [u8],
}

/// Where lines go, and how they look.
#[derive(Debug, Clone)]
pub struct Output<W = NonBlocking> {
    pub fields: Fields,
    pub format: Format,
    pub writer: W,
}

/// What one shard writes lines with.
pub struct AccessLog<W = NonBlocking> {
    pub fields: Fields,
    /// Some of the request's own fields are shown.
    pub shows_headers: bool,
    pub shows_correlation_id: bool,
    format: Format,
    writer: RefCell<W>,
    buffers: RefCell<Buffers>,
}

/// Kept from line to line.
#[derive(Default)]
struct Buffers {
    line: Vec<u8>,
    list: String,
    clock: Clock,
}

impl<W: Write> AccessLog<W> {
    pub fn new(output: Output<W>) -> Self {
        let Output { fields, format, writer } = output;
        let shows_headers = [Field::Host, Field::UserAgent, Field::Referer].iter().any(|field| fields.has(*field));
        let shows_correlation_id = fields.has(Field::CorrelationId);
        Self {
            fields,
            shows_headers,
            shows_correlation_id,
            format,
            writer: RefCell::new(writer),
            buffers: RefCell::default(),
        }
    }

    /// Whether the log's filter lets lines through.
    pub fn is_on(&self) -> bool {
        telemetry::has_access_lines()
    }

    pub fn write(&self, entry: &Entry, now: SystemTime) {
        let mut buffers = self.buffers.borrow_mut();
        let Buffers { line, list, clock } = &mut *buffers;
        line.clear();
        let time = self.fields.has(Field::Time).then(|| clock.show(now));
        let mut line = Line::begin(line, self.format, time);
        self.fields.0.iter().for_each(|field| write_field(&mut line, list, *field, entry));
        let line = line.end();
        // A writer that takes nothing costs lines, never requests.
        let _ = self.writer.borrow_mut().write_all(line);
    }
}

/// In text, what is mostly a word has quotes only where it needs them.
fn write_field(line: &mut Line, list: &mut String, field: Field, entry: &Entry) {
    let name = field.name();
    match field {
        // At the beginning of the line, wherever it is listed.
        Field::Time => {}
        Field::Id => line.bare(name, entry.id),
        Field::Client => line.bare(name, entry.client),
        Field::Method => line.bare(name, entry.method.as_bytes()),
        Field::Path => line.bare(name, entry.path.as_bytes()),
        Field::Query => line.quoted(name, entry.query.as_bytes()),
        Field::Status => line.number(name, entry.status),
        Field::Error => line.quoted(name, entry.error.as_bytes()),
        Field::Cause => line.bare(name, entry.cause.as_bytes()),
        Field::Worker => line.quoted(name, entry.worker.as_bytes()),
        Field::Model => line.quoted(name, entry.model.as_bytes()),
        Field::Key => line.quoted(name, entry.key.as_bytes()),
        Field::Attempts => line.number(name, entry.attempts),
        Field::HeadMs => line.millis(name, entry.to_head),
        Field::TotalMs => line.millis(name, entry.total),
        Field::BytesIn => line.number(name, entry.bytes_in),
        Field::BytesOut => line.number(name, entry.bytes_out),
        Field::Modules => line.bare(name, runs(list, entry.modules)),
        Field::Tags => line.bare(name, join(list, entry.tags)),
        Field::End => line.quoted(name, entry.end.as_bytes()),
        Field::Protocol => line.bare(name, entry.protocol.as_bytes()),
        Field::Host => line.quoted(name, entry.host),
        Field::UserAgent => line.quoted(name, entry.user_agent),
        Field::Referer => line.quoted(name, entry.referer),
        Field::TraceId => match entry.trace_id {
            Some(id) => line.bare(name, &id.hex()),
            None => line.bare(name, b""),
        },
        Field::Tls => line.bare(name, entry.tls.as_bytes()),
        // Most requests have none.
        Field::CorrelationId if entry.correlation_id.is_empty() => {}
        Field::CorrelationId => line.quoted(name, entry.correlation_id),
    }
}

/// `auth:continue,redact:modify`
fn runs<'a>(list: &'a mut String, runs: &[ModuleRun]) -> &'a [u8] {
    list.clear();
    for run in runs {
        add(list, &run.module);
        list.push(':');
        list.push_str(run.verdict);
    }
    list.as_bytes()
}

fn join<'a>(list: &'a mut String, names: &[Arc<str>]) -> &'a [u8] {
    list.clear();
    names.iter().for_each(|name| add(list, name));
    list.as_bytes()
}

/// No name may look like two.
fn add(list: &mut String, name: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    let one = |character: char| if character == ',' || character.is_whitespace() { '_' } else { character };
    list.extend(name.chars().map(one));
}

#[cfg(test)]
mod tests;
