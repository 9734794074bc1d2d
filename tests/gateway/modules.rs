//! Modules deployed through the admin API act on the next request.

use crate::support::{Gateway, Worker, guest};

#[test]
fn without_enable_wasm_a_deployment_says_how_to_enable_it() {
    let gateway = Gateway::builder().start_unready();
    let answer = gateway.try_deploy(&serde_json::json!({
        "name": "auth", "file_path": guest("auth"), "module_type": "Middleware", "attach_points": [{"Middleware": "OnRequest"}],
    }));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.json().to_string().contains("--enable-wasm"), "{}", answer.text());
}

#[test]
fn a_deployed_module_acts_on_the_next_request() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--enable-wasm").start();
    assert_eq!(gateway.get("/v1/x").status, 200);
    let uuid = gateway.deploy("auth", &guest("auth"), &["OnRequest"]);
    assert_eq!(gateway.get("/v1/x").status, 401);
    let key = ("X-Api-Key", "secret-api-key-12345");
    assert_eq!(gateway.request("GET", "/v1/x", &[key], b"").status, 200);
    assert_eq!(gateway.request("DELETE", &format!("/wasm/{uuid}"), &[], b"").status, 200);
    assert_eq!(gateway.get("/v1/x").status, 200);
}
