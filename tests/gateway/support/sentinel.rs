//! Core modules of the Sentinel ABI: written as text, where no compiler would produce what a test needs, and the guest
//! that is told what to return.

use super::client::Response;
use super::files::Files;
use super::gateway::{Gateway, guest};
use super::modules::Module;
use serde_json::Value;
use std::collections::BTreeMap;

/// Where the results of the two handlers lie, and where inputs are written.
const REQUEST_RESULT: u32 = 1024;
const RESPONSE_RESULT: u32 = 32_768;
const INPUT: u32 = 65_536;

/// What `sentinel-hostile` can do, with the kind of the failure; `None` for what is none.
pub const BEHAVIOURS: [(&str, Option<&str>); 19] = [
    ("trap", Some("trap")),
    ("stack", Some("stack")),
    ("loop", Some("timeout")),
    ("dealloc-loop", Some("timeout")),
    ("length-max", Some("output")),
    ("past-end", Some("output")),
    ("straddle", Some("output")),
    ("wrap", Some("output")),
    ("not-utf8", Some("output")),
    ("not-json", Some("output")),
    ("no-decision", Some("output")),
    ("huge", Some("output")),
    ("headers-many", Some("output")),
    ("empty", None),
    ("null-pointer", None),
    ("zero-length", None),
    ("deep", None),
    ("grow", None),
    ("dealloc-trap", None),
];

/// A module with all that the ABI knows of, each handler of which allows, until a part of it is replaced.
#[derive(Clone)]
pub struct Sentinel {
    parts: BTreeMap<&'static str, String>,
    items: String,
}

impl Default for Sentinel {
    fn default() -> Self {
        let nothing = "(param i32 i32) (result i64) (i64.const 0)";
        Sentinel { parts: BTreeMap::new(), items: String::new() }
            .part("memory", "(memory (export \"memory\") 4)")
            .function("alloc", &format!("(param i32) (result i32) (i32.const {INPUT})"))
            .function("dealloc", "(param i32 i32)")
            .function("on_request_headers", nothing)
            .function("on_response_headers", nothing)
    }
}

impl Sentinel {
    /// Returns `request` and `response`, whatever it is shown.
    pub fn replying(request: &Value, response: &Value) -> Self {
        Sentinel::default().result("on_request_headers", REQUEST_RESULT, request).result(
            "on_response_headers",
            RESPONSE_RESULT,
            response,
        )
    }

    /// Takes so many milliseconds of the processor for each call, then allows.
    pub fn slow(ms: u32) -> Self {
        let now = "(drop (call $clock (i32.const 1) (i64.const 0) (i32.const 8)))";
        let code = format!(
            "(param i32 i32) (result i64) (local $end i64)
            {now} (local.set $end (i64.add (i64.load (i32.const 8)) (i64.const {ms}000000)))
            (loop $again {now} (br_if $again (i64.lt_u (i64.load (i32.const 8)) (local.get $end))))
            (i64.const 0)"
        );
        let clock = "(func $clock (param i32 i64 i32) (result i32))";
        Sentinel::default()
            .items(&format!("(import \"wasi_snapshot_preview1\" \"clock_time_get\" {clock})"))
            .function("on_request_headers", &code)
            .function("on_response_headers", &code)
    }

    fn result(self, handler: &'static str, at: u32, json: &Value) -> Self {
        let bytes = json.to_string().into_bytes();
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let packed = u64::from(at) << 32 | bytes.len() as u64;
        self.items(&format!("(data (i32.const {at}) \"{escaped}\")"))
            .function(handler, &format!("(param i32 i32) (result i64) (i64.const {packed})"))
    }

    /// The exported function `name`: its type and its code.
    pub fn function(self, name: &'static str, code: &str) -> Self {
        self.part(name, &format!("(func (export \"{name}\") {code})"))
    }

    /// The item that is known as `name`, in place of the one that is there.
    pub fn part(mut self, name: &'static str, text: &str) -> Self {
        self.parts.insert(name, text.to_owned());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.parts.remove(name).expect("a part that is there");
        self
    }

    /// More items of the module; imports must be the first.
    pub fn items(mut self, items: &str) -> Self {
        self.items += items;
        self
    }

    pub fn text(&self) -> String {
        let parts: String = self.parts.values().map(|part| format!("\n  {part}")).collect();
        format!("(module\n  {}{parts})", self.items)
    }
}

impl Files {
    /// Writes the module into the file `NAME.wasm`; its absolute path.
    #[track_caller]
    pub fn sentinel(&self, name: &str, module: &Sentinel) -> String {
        self.assemble(name, &module.text())
    }
}

impl Module {
    /// The guest of the Sentinel ABI that does what the header `x-hostile` of a request, or of a response, says.
    pub fn sentinel() -> Self {
        Self::new("sentinel", &guest("sentinel-hostile"))
    }
}

impl Gateway {
    /// A request for which that guest returns `json` as it is.
    #[track_caller]
    pub fn ask_for(&self, json: &str) -> Response {
        self.request("GET", "/", &[("X-Hostile", "reply"), ("X-Reply", json)], b"")
    }

    /// A request to whose answer an obliging worker adds that the guest shall return `json`.
    #[track_caller]
    pub fn ask_for_on_response(&self, json: &str) -> Response {
        self.request("GET", "/", &[("X-Answer", "X-Hostile: reply"), ("X-Answer", &format!("X-Reply: {json}"))], b"")
    }

    /// How often modules left this tag.
    #[track_caller]
    pub fn tagged(&self, tag: &str) -> u64 {
        self.metrics().sum("smg_wasm_tags_total", &[("tag", tag)]) as u64
    }
}
