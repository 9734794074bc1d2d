//! Each section, good and bad.

use std::num::NonZeroU32;
use std::time::Duration;

use http::Method;

use super::{bad, good};
use crate::config::Policy;
use crate::config::file::{KeyDigest, Listener, Role, RouteModules};

#[test]
fn listeners() {
    let config = good(
        "listeners:\n- address: 0.0.0.0:8443\n  tls: true\n- {address: '[::]:0', admin: true}\n- {address: '[::]:0'}",
    );
    let first = Listener { address: "0.0.0.0:8443".parse().expect("an address"), tls: true, admin: false };
    assert_eq!((config.sections.listeners.len(), &config.sections.listeners[0]), (3, &first));
    bad(
        "listeners:\n- address: localhost:1\n  tsl: yes\n- tls: no\n- [1]\n- {address: 1.1.1.1:1}\n- address: 1.1.1.1:1\n- 1.1.1.1:2",
        &[
            "f:2: listeners[0].address: it must be an address and a port",
            "f:3: listeners[0].tsl: no such key (did you mean `tls`?)",
            "f:4: listeners[1].tls: it must be true or false, not `no`",
            "f:4: listeners[1]: `address` is missing",
            "f:5: listeners[2]: it must be a map, not a list",
            "f:7: listeners[4].address: the same as in listeners[3]",
            "f:8: listeners[5]: it must be a map, not text",
        ],
    );
    bad("listeners: {address: 1.1.1.1:1}", &["f:1: listeners: it must be a list"]);
    bad("listeners:", &["f:1: listeners: it must be a list"]);
}

#[test]
fn certificates() {
    let config = good("certificates: [{cert: c, key: k, hosts: [A.example, '*.b.example']}, {cert: c, key: k}]");
    assert_eq!(config.sections.certificates[0].hosts, ["a.example", "*.b.example"]);
    bad(
        "certificates:\n- {cert: c, hosts: [a.example]}\n- {cert: c, key: k, hosts: [b.example]}\n- cert: c\n  key: k\n  \
         hosts: [B.example]\n- {cert: c, key: k, hosts: ['a.*.example']}\n- {cert: c, key: k}\n- {cert: c, key: k}",
        &[
            "f:2: certificates[0]: `key` is missing",
            "f:6: certificates[2].hosts: the same as in certificates[1]",
            "f:7: certificates[3].hosts: `a.*.example` is not a host name",
            "f:9: certificates[5].hosts: another certificate without hosts",
        ],
    );
}

#[test]
fn pools() {
    let config = good(
        "pools:\n- model: llama-3\n  aliases: [llama]\n  policy: random\n  workers:\n  - http://a:1\n  - {url: http://b:2, \
         priority: 7, cost: 0.5}\n- {model: 3, workers: []}",
    );
    let pool = &config.sections.pools[0];
    assert_eq!(
        (pool.model.as_str(), pool.policy, config.sections.pools[1].model.as_str()),
        ("llama-3", Some(Policy::Random), "3")
    );
    assert_eq!((pool.workers[0].priority, pool.workers[0].cost), (None, None));
    assert_eq!((pool.workers[1].priority, pool.workers[1].cost), (Some(7), Some(0.5)));
    bad(
        "pools:\n- model: a\n  polcy: random\n  policy: randm\n  workers:\n  - ftp://a:1\n  - {url: http://b:2, cost: 0, prioriti: 1, \
         priority: -1}\n  - {priority: 1, url: ftp://b:1}\n  - {priority: 1}\n  - [1]\n- {model: b, aliases: [c, c, d], workers: [http://a, http://a:80]}\n\
         - {model: b, aliases: [d], workers: []}\n- {model: c, workers: x}\n- {model: d, workers: []}\n- {model: '', workers: []}",
        &[
            "f:3: pools[0].polcy: no such key (did you mean `policy`?)",
            "f:4: pools[0].policy: it must be one of round_robin, random, ",
            "f:6: pools[0].workers[0]: `ftp://a:1` is not a worker URL",
            "f:7: pools[0].workers[1].prioriti: no such key (did you mean `priority`?)",
            "f:7: pools[0].workers[1].cost: it must be greater than 0",
            "f:7: pools[0].workers[1].priority: it must be a whole number, not `-1`",
            "f:8: pools[0].workers[2].url: `ftp://b:1` is not a worker URL",
            "f:9: pools[0].workers[3]: `url` is missing",
            "f:10: pools[0].workers[4]: it must be a map, not a list",
            "f:11: pools[1].aliases: it is there twice",
            "f:11: pools[1].aliases: `d` is a model of a pool",
            "f:11: pools[1].workers: http://a is there twice",
            "f:12: pools[2].model: the same as in pools[1]",
            "f:12: pools[2].aliases: the same as in pools[1]",
            "f:12: pools[2].aliases: `d` is a model of a pool",
            "f:13: pools[3].workers: it must be a list",
            "f:15: pools[5].model: a name is 1 to 256",
        ],
    );
}

#[test]
fn keys_of_workers() {
    let file = std::env::temp_dir().join(format!("smg-worker-key-{}", std::process::id()));
    std::fs::write(&file, "from-file\n").expect("a temporary file");
    let at = file.display();
    let config = good(&format!(
        "pools:\n- model: a\n  workers:\n  - {{url: http://a, api_key: 007}}\n  - {{url: http://b, api_key_env: SMG_TEST_KEY}}\n  \
         - {{url: https://c/v1, api_key_file: {at}}}\n  - http://d\n- {{model: b, workers: [{{url: http://a, api_key: 007}}]}}"
    ));
    let keys: Vec<_> = config.sections.pools[0].workers.iter().map(|worker| worker.api_key.as_ref()).collect();
    let keys: Vec<_> = keys.iter().map(|key| key.map(|key| str::from_utf8(key.expose()).expect("text"))).collect();
    assert_eq!(keys, [Some("007"), Some("from-environment"), Some("from-file"), None]);
    assert!(!format!("{config:?}").contains("from-file"), "keys don't print");
    std::fs::remove_file(&file).expect("it is there");
    bad(
        &format!(
            "pools:\n- model: a\n  workers:\n  - {{url: http://a, api_key: x, api_key_env: SMG_TEST_KEY}}\n  \
             - {{url: http://b, api_key_env: SMG_NOT_SET}}\n  - {{url: http://c, api_key_file: {at}}}\n  \
             - {{url: http://d, api_key: k}}\n  - {{url: http://e, api_key_file: /}}\n\
             - model: b\n  workers: [{{url: http://d, api_key: l}}]"
        ),
        &[
            "f:4: pools[0].workers[0].api_key: only one of api_key, api_key_env and api_key_file",
            "f:5: pools[0].workers[1].api_key_env: this environment variable is not set",
            "f:6: pools[0].workers[2].api_key_file: the file can't be read: ",
            "f:8: pools[0].workers[4].api_key_file: it is not a regular file",
            "f:10: pools[1].workers: http://d has a different key in an earlier pool",
        ],
    );
    bad(
        "pools: [{model: a, workers: [{url: http://a, api_key: ''}, {url: http://b, api_key: [x]}]}]",
        &[
            "f:1: pools[0].workers[0].api_key: a key must not be empty",
            "f:1: pools[0].workers[1].api_key: it must be text",
        ],
    );
}

#[test]
fn routes() {
    let config = good(
        "pools: [{model: m, workers: []}]\nroutes:\n- {path: /v1/embeddings, methods: [POST], pool: m, request_timeout_secs: 0.5, \
         first_byte_timeout_secs: 2, retries: false, rate_limit_tokens_per_second: 5, max_payload_size: 0, modules: [a, b]}\n\
         - {path: /v1/*, modules: none}\n- {path: /v1/embeddings}\n- {path: /*, modules: all}",
    );
    let route = &config.sections.routes[0];
    assert_eq!((route.methods.as_slice(), route.retries), (&[Method::POST][..], Some(false)));
    assert_eq!(route.request_timeout_secs, Some(Duration::from_millis(500)));
    assert_eq!(route.modules, RouteModules::Named(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(
        (&config.sections.routes[1].modules, &config.sections.routes[2].modules),
        (&RouteModules::None, &RouteModules::All)
    );
    bad(
        "pools:\n- {model: llama, workers: [x]}\nroutes:\n- {path: v1, pool: llama}\n- {path: /v1/*/x, methods: [post]}\n\
         - {path: /a, pool: lama, retries: 1}\n- {path: /a, pool: lama}\n- {path: /b, methods: [GET, PUT]}\n\
         - {path: /b, methods: [PUT], rate_limit_tokens_per_second: 0}\n- {path: /b, methods: [PUT]}\n\
         - {path: /c, modules: some}\n- {path: /d, modules: [a, a], request_timeout_secs: 0}\n- {path: '/e?x'}",
        &[
            "f:2: pools[0].workers[0]: `x` is not a worker URL",
            "f:4: routes[0].path: it must be a path such as",
            "f:5: routes[1].path: it must be a path such as",
            "f:5: routes[1].methods: `post` is not a method",
            "f:6: routes[2].retries: it must be true or false, not `1`",
            "f:7: routes[3].pool: no pool has the model `lama` (did you mean `llama`?)",
            "f:9: routes[5].rate_limit_tokens_per_second: it must be a number greater than 0",
            "f:10: routes[6].path: the same as in routes[4]",
            "f:11: routes[7].modules: it must be all, none or a list of names, not `some`",
            "f:12: routes[8].modules: `a` is there twice",
            "f:12: routes[8].request_timeout_secs: it must be a number of seconds",
            "f:13: routes[9].path: it must be a path such as",
        ],
    );
}

#[test]
fn modules() {
    let config = good("modules:\n- {name: auth, file: /m/auth.wasm, order: 1, config: {a: no, b: [1]}}");
    let module = &config.sections.modules[0];
    assert_eq!((module.name.as_str(), module.file.to_str()), ("auth", Some("/m/auth.wasm")));
    let fields = serde_json::json!({"order": 1, "config": {"a": "no", "b": [1]}});
    assert_eq!(serde_json::Value::Object(module.fields.clone()), fields);
    let problem = module.problem("limits.memory_pages", "it is wrong");
    assert_eq!((problem.line, problem.path.as_str()), (2, "modules[0].limits.memory_pages"));
    bad(
        "modules:\n- {name: a, file: f}\n- {name: a, file: g}\n- {file_path: f}\n- {name: [x], file: ''}\n- x",
        &[
            "f:3: modules[1].name: the same as in modules[0]",
            "f:4: modules[2].file_path: no such key (did you mean `file`?)",
            "f:4: modules[2]: `name` is missing",
            "f:5: modules[3].name: it must be text",
            "f:5: modules[3].file: it must be text",
            "f:6: modules[4]: it must be a map",
        ],
    );
}

#[test]
fn keys() {
    let sha = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let config = good(&format!(
        "keys:\n- {{name: a, role: admin, key: 007}}\n- {{name: b, role: read-only, key_env: SMG_TEST_KEY}}\n\
         - {{name: c, role: caller, key_sha256: {sha}, rate_limit_tokens_per_second: 5, burst: 9, max_concurrent_requests: 2}}"
    ));
    let digests: Vec<_> = config.sections.keys.iter().map(|key| key.digest.clone()).collect();
    assert_eq!(digests, [&b"007"[..], b"from-environment", b"secret"].map(KeyDigest::of));
    let key = &config.sections.keys[2];
    assert_eq!(
        (key.role, key.burst, key.max_concurrent_requests),
        (Role::Caller, NonZeroU32::new(9), NonZeroU32::new(2))
    );
    bad(
        "keys:\n- {name: a, role: admin, key: k, key_env: SMG_TEST_KEY}\n- {name: a, role: admin}\n- {name: b, role: caller, key: x}\n\
         - {name: b, role: caller, key: y, burst: 1}\n- {name: c, role: caller, key_env: SMG_NOT_SET}\n\
         - {name: d, role: caller, key: x}\n- {name: e f, role: root, key: ''}\n- {role: caller, key_sha256: 12}\n\
         - {name: g, role: caller, key: z, burst: x, max_concurrent_requests: 0, rate_limit_tokens_per_second: nan}",
        &[
            "f:2: keys[0]: set exactly one of key, key_env and key_sha256",
            "f:3: keys[1]: set exactly one of key, key_env and key_sha256",
            "f:5: keys[3].burst: it needs rate_limit_tokens_per_second beside it",
            "f:5: keys[3].name: the same as in keys[2]",
            "f:6: keys[4].key_env: this environment variable is not set",
            "f:7: keys[5].key: the same as in keys[2]",
            "f:8: keys[6].name: a name is 1 to 256",
            "f:8: keys[6].role: it must be one of admin, read-only, caller, not `root`",
            "f:8: keys[6].key: a key must not be empty",
            "f:9: keys[7].key_sha256: it must be 64 hexadecimal digits",
            "f:9: keys[7]: `name` is missing",
            "f:10: keys[8].burst: it must be a whole number, not `x`",
            "f:10: keys[8].max_concurrent_requests: it must be a nonzero u32, not integer `0`",
            "f:10: keys[8].rate_limit_tokens_per_second: it must be a number greater than 0",
        ],
    );
}
