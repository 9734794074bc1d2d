//! Bodies in which one worker reads one model and another worker another. Where the model decides they are refused: the
//! request would get past the rules of its model's pool.

use crate::support::{ConfigFile, Gateway, Worker, codings, gzip};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const MULTIPART: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=q");

struct Pools {
    gateway: Gateway,
    workers: [Worker; 2],
}

impl Pools {
    /// Of the models `a` and `b`.
    fn new() -> Self {
        let workers = ["a", "b"].map(|name| Worker::new(move |_, conn| conn.answer(200, name)));
        let [a, b] = workers.each_ref().map(Worker::url);
        let pools = format!("pools:\n- {{model: a, workers: [{a}]}}\n- {{model: b, workers: [{b}]}}\n");
        let gateway = ConfigFile::new(format!("disable_health_check: true\n{pools}")).gateway().start();
        Pools { gateway, workers }
    }

    #[track_caller]
    fn refuses(&self, headers: &[(&str, &str)], body: &[u8]) {
        let shown = String::from_utf8_lossy(body);
        let answer = self.gateway.request("POST", "/v1/x", headers, body);
        assert_eq!(answer.status, 400, "{headers:?} {shown}: {}", answer.text());
        answer.assert_error(400, "invalid_request");
        assert!(self.workers.iter().all(|worker| worker.requests().is_empty()), "{headers:?} {shown}");
    }

    #[track_caller]
    fn sends_to(&self, name: &str, headers: &[(&str, &str)], body: &[u8]) {
        let answer = self.gateway.request("POST", "/v1/x", headers, body);
        assert_eq!((answer.status, answer.text().as_str()), (200, name), "{headers:?}");
    }
}

fn field(model: &str) -> String {
    format!("--q\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n")
}

#[test]
fn a_form_that_is_json_besides() {
    let pools = Pools::new();
    pools.refuses(&[FORM], b"{\"model\":\"a\"}=1&model=b");
    pools.refuses(&[FORM], b" \n{\"model\":\"a\"}=1&m%6Fdel=b");
    pools.sends_to("b", &[FORM], b"{\"x\":\"a\"}=1&model=b");
    pools.sends_to("b", &[FORM], b"{\"model\":\"b\",\"x\":\"y=z&w\"}");
}

// Some take the first, some the last.
#[test]
fn a_form_with_several_models() {
    let pools = Pools::new();
    pools.refuses(&[FORM], b"model=a&model=b");
    pools.refuses(&[FORM], b"model=a&x=y&model=");
    pools.refuses(&[MULTIPART], (field("a") + &field("b") + "--q--\r\n").as_bytes());
}

#[test]
fn a_form_with_one_model_twice() {
    let pools = Pools::new();
    pools.sends_to("b", &[FORM], b"model=b&model=b");
    pools.sends_to("b", &[MULTIPART], (field("b") + &field("b") + "--q--\r\n").as_bytes());
}

// Many workers don't look at `Content-Encoding`.
#[test]
fn a_compressed_body_that_says_something_else_as_it_is() {
    let pools = Pools::new();
    for (coding, coded) in codings(b"model=a") {
        let headers = [FORM, ("Content-Encoding", coding)];
        pools.refuses(&headers, &[&coded[..], b"&model=b"].concat());
    }
    let multipart = |model: &str| field(model) + "--q--\r\n";
    // The others leave so short a text as it is, with its last delimiter.
    let short =
        codings(multipart("a").as_bytes()).into_iter().filter(|(coding, _)| ["gzip", "deflate"].contains(coding));
    for (coding, coded) in short {
        let headers = [MULTIPART, ("Content-Encoding", coding)];
        pools.refuses(&headers, &[&coded[..], b"\r\n", multipart("b").as_bytes()].concat());
    }
    // Some take what comes before the fault.
    let text = format!("{{\"model\":\"a\",\"x\":\"{}\"}}", "0123456789abcdefghijkl".repeat(1000));
    let coded = gzip(text.as_bytes());
    pools.refuses(&[JSON, ("Content-Encoding", "gzip")], &coded[..coded.len() - 10]);
}

#[test]
fn a_compressed_body_that_says_one_thing() {
    let pools = Pools::new();
    let form = format!("x={}&model=b", "0123456789".repeat(1000));
    pools.sends_to("b", &[FORM, ("Content-Encoding", "gzip")], &gzip(form.as_bytes()));
    for (coding, coded) in codings((field("b") + "--q--\r\n").as_bytes()) {
        pools.sends_to("b", &[MULTIPART, ("Content-Encoding", coding)], &coded);
    }
}

// Python's `json.loads` reads it from bytes, in which a scanner for UTF-8 may see another object.
#[test]
fn json_that_is_not_in_utf_8() {
    let pools = Pools::new();
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let hidden = [wide("{\"x\":\""), b",,\"model\":\"a\",".to_vec(), wide("\",\"model\":\"b\"}")].concat();
    let text = "{\"model\":\"b\"}";
    for body in [
        hidden,
        wide(text),
        wide(&format!("\u{feff}{text}")),
        wide(&format!(" \n{text}")),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        text.chars().flat_map(|char| u32::from(char).to_le_bytes()).collect(),
        format!("\u{feff}{text}").chars().flat_map(|char| u32::from(char).to_be_bytes()).collect(),
    ] {
        pools.refuses(&[JSON], &body);
        pools.refuses(&[FORM], &body);
        pools.refuses(&[JSON, ("Content-Encoding", "gzip")], &gzip(&body));
    }
    let alone = Gateway::builder().worker(&pools.workers[1]).start();
    assert_eq!(alone.request("POST", "/", &[JSON], &wide(text)).status, 200, "with one pool nobody has to know");
    pools.sends_to("b", &[JSON], b"\xEF\xBB\xBF{\"model\":\"b\"}");
}
