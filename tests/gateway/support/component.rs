//! Components of guest interface v1 written as text: what no compiler would produce can be put into them.

/// Where the static data of a component lies, and where its bump allocator begins.
const REQUEST_DATA: u32 = 1024;
const RESPONSE_DATA: u32 = 16_384;
const FREE: u32 = 32_768;

/// Aligns the next free byte; what is handed out is never taken back, for a guest does not live long.
const BUMP: &str = "(local $at i32)
    (local.set $at (i32.and
      (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at)";

/// Continues: case 0 of the action, at an address that holds zeros.
const CONTINUE: &str = "(i32.const 0)";

/// For any place that takes code: it never ends.
pub const FOR_EVER: &str = "(loop $again (br $again)) (unreachable)";

/// A component with both hooks, each of which continues, until a part of it is replaced.
#[derive(Clone)]
pub struct Component {
    memory: String,
    items: String,
    realloc: String,
    on_request: String,
    on_response: String,
    post_return: String,
    exports: [Option<&'static str>; 2],
    more: String,
}

impl Default for Component {
    fn default() -> Self {
        Component {
            memory: "(memory (export \"memory\") 16)".to_owned(),
            items: String::new(),
            realloc: BUMP.to_owned(),
            on_request: CONTINUE.to_owned(),
            on_response: CONTINUE.to_owned(),
            post_return: String::new(),
            exports: [Some("smg:gateway/middleware-on-request"), Some("smg:gateway/middleware-on-response")],
            more: String::new(),
        }
    }
}

impl Component {
    /// Adds `mark` to the fields `x-request-mark` of a request and `x-response-mark` of a response.
    pub fn marking(mark: &str) -> Self {
        let request = adding(REQUEST_DATA, &[("x-request-mark".to_owned(), mark.to_owned())]);
        let response = adding(RESPONSE_DATA, &[("x-response-mark".to_owned(), mark.to_owned())]);
        Component::default()
            .items(&(request + &response))
            .on_request(&format!("(i32.const {REQUEST_DATA})"))
            .on_response(&format!("(i32.const {RESPONSE_DATA})"))
    }

    /// Adds `count` headers to a request, `x-MARK-0` and so on.
    pub fn flooding(mark: &str, count: usize) -> Self {
        let headers: Vec<_> = (0..count).map(|n| (format!("x-{mark}-{n}"), "1".to_owned())).collect();
        let data = adding(REQUEST_DATA, &headers);
        Component::default().items(&data).on_request(&format!("(i32.const {REQUEST_DATA})"))
    }

    /// The core module's memory, in place of 16 pages.
    pub fn memory(mut self, memory: &str) -> Self {
        memory.clone_into(&mut self.memory);
        self
    }

    /// More items of the core module: functions, tables, data, a start function.
    pub fn items(mut self, items: &str) -> Self {
        self.items += items;
        self
    }

    /// Code of the allocator that the host calls; parameters `$old $old-size $align $size`.
    pub fn realloc(mut self, code: &str) -> Self {
        code.clone_into(&mut self.realloc);
        self
    }

    /// Code of the request hook; its result is the address of the action.
    pub fn on_request(mut self, code: &str) -> Self {
        code.clone_into(&mut self.on_request);
        self
    }

    pub fn on_response(mut self, code: &str) -> Self {
        code.clone_into(&mut self.on_response);
        self
    }

    /// Code that the host calls when it has read the result.
    pub fn post_return(mut self, code: &str) -> Self {
        code.clone_into(&mut self.post_return);
        self
    }

    /// The names of the exported interfaces; `None` leaves the hook out.
    pub fn exports(mut self, request: Option<&'static str>, response: Option<&'static str>) -> Self {
        self.exports = [request, response];
        self
    }

    /// More items of the component itself, before all others: imports, further modules.
    pub fn more(mut self, items: &str) -> Self {
        self.more += items;
        self
    }

    pub fn text(&self) -> String {
        let Component { memory, items, realloc, on_request, on_response, post_return, exports, more } = self;
        let [request, response] = exports.map(|name| name.map(|name| format!("(export {name:?} (instance ")));
        let request = request.map(|export| {
            format!("(instance $request-hook (export \"on-request\" (func $on-request))) {export} $request-hook))")
        });
        let response = response.map(|export| {
            format!("(instance $response-hook (export \"on-response\" (func $on-response))) {export} $response-hook))")
        });
        let (request, response) = (request.unwrap_or_default(), response.unwrap_or_default());
        format!(
            r#"(component
  {more}
  (core module $m
    {memory}
    (global $free (mut i32) (i32.const {FREE}))
    {items}
    (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
      (result i32) {realloc})
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64) (result i32) {on_request})
    (func (export "on-response") (param i32 i32 i32 i32 i32) (result i32) {on_response})
    (func (export "post-return") (param i32) {post_return}))
  (core instance $i (instantiate $m))
  {TYPES}
  (func $on-request (param "req" $request) (result $action)
    (canon lift (core func $i "on-request") (memory (core memory $i "memory"))
      (realloc (core func $i "cabi_realloc")) (post-return (core func $i "post-return"))))
  (func $on-response (param "resp" $response) (result $action)
    (canon lift (core func $i "on-response") (memory (core memory $i "memory"))
      (realloc (core func $i "cabi_realloc")) (post-return (core func $i "post-return"))))
  {request}
  {response})"#
        )
    }
}

/// The types of the interface; a function that is exported may only use types that are exported too.
const TYPES: &str = r#"(type $header' (record (field "name" string) (field "value" string)))
  (export $header "header" (type $header'))
  (type $request' (record (field "method" string) (field "path" string) (field "query" string)
    (field "headers" (list $header)) (field "body" (list u8)) (field "request-id" string) (field "now-epoch-ms" u64)))
  (export $request "request" (type $request'))
  (type $response' (record (field "status" u16) (field "headers" (list $header)) (field "body" (list u8))))
  (export $response "response" (type $response'))
  (type $modify' (record (field "status" (option u16)) (field "headers-set" (list $header))
    (field "headers-add" (list $header)) (field "headers-remove" (list string)) (field "body-replace" (option (list u8)))))
  (export $modify "modify-action" (type $modify'))
  (type $action' (variant (case "continue") (case "reject" u16) (case "modify" $modify)))
  (export $action "action" (type $action'))"#;

/// Data at `at`: an action that adds headers.
fn adding(at: u32, headers: &[(String, String)]) -> String {
    let lines_at = at + 64;
    let mut text_at = lines_at + 16 * headers.len() as u32;
    let modify = [2, 0, 4, 0, lines_at, headers.len() as u32, 4, 0, 0, 0, 0];
    let (mut lines, mut text) = (Vec::new(), String::new());
    for part in headers.iter().flat_map(|(name, value)| [name, value]) {
        lines.extend([text_at, part.len() as u32]);
        text_at += part.len() as u32;
        text += part;
    }
    assert!(
        text_at < if at == REQUEST_DATA { RESPONSE_DATA } else { FREE },
        "there is no room for {} headers",
        headers.len()
    );
    let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    data(at, &bytes(&modify))
        + &data(lines_at, &bytes(&lines))
        + &data(lines_at + 16 * headers.len() as u32, text.as_bytes())
}

fn data(at: u32, bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {at}) \"{escaped}\")\n")
}
