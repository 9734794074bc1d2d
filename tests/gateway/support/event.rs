//! What a proxy tells its agent of, in both versions of the protocol.

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    pub const BOTH: [Version; 2] = [Version::V1, Version::V2];
}

/// Types of frames of version 2.
pub mod kind {
    pub const HANDSHAKE: u8 = 0x01;
    pub const HANDSHAKE_ANSWER: u8 = 0x02;
    pub const REQUEST: u8 = 0x10;
    pub const RESPONSE: u8 = 0x12;
    pub const CONFIGURE: u8 = 0x17;
    pub const ANSWER: u8 = 0x20;
    pub const CANCEL: u8 = 0x40;
    pub const PING: u8 = 0x41;
    pub const PONG: u8 = 0x42;
}

/// Something that a proxy tells of.
#[derive(Clone, Debug)]
pub struct Event {
    kind: u8,
    name: &'static str,
    pub payload: Value,
}

impl Event {
    pub fn request() -> Self {
        let metadata = json!({
            "correlation_id": "c-1", "request_id": "1f0c0000-0000-4000-8000-000000000000", "client_ip": "192.0.2.7",
            "client_port": 40112, "server_name": null, "protocol": "HTTP/1.1", "tls_version": null, "tls_cipher": null,
            "route_id": "default", "upstream_id": null, "timestamp": "2026-07-01T09:07:07.123456789+00:00",
        });
        let payload = json!({ "metadata": metadata, "method": "GET", "uri": "/a?b=1", "headers": { "host": ["h"] } });
        Event { kind: kind::REQUEST, name: "request_headers", payload }
    }

    pub fn response() -> Self {
        let payload = json!({ "correlation_id": "c-1", "status": 200, "headers": { "content-type": ["text/plain"] } });
        Event { kind: kind::RESPONSE, name: "response_headers", payload }
    }

    /// One of each kind that a module can be asked about.
    pub fn both() -> [Self; 2] {
        [Self::request(), Self::response()]
    }

    pub fn configure(config: &Value) -> Self {
        let payload = json!({ "config": config, "config_version": null, "correlation_id": "c-1", "agent_id": "wasm" });
        Event { kind: kind::CONFIGURE, name: "configure", payload }
    }

    /// One that this agent has no say about.
    pub fn other(kind: u8, name: &'static str) -> Self {
        Event { kind, name, payload: json!({ "correlation_id": "c-1", "more": [1] }) }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn id(mut self, id: &str) -> Self {
        match self.payload.get_mut("metadata") {
            Some(metadata) => metadata["correlation_id"] = json!(id),
            None => self.payload["correlation_id"] = json!(id),
        }
        self
    }

    /// Adds a value to the header `name`.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match &mut self.payload["headers"][name] {
            Value::Array(values) => values.push(json!(value)),
            absent => *absent = json!([value]),
        }
        self
    }

    /// Makes the hostile guest do this.
    pub fn doing(self, behaviour: &str) -> Self {
        self.header("x-hostile", behaviour)
    }

    /// Makes the hostile guest return this.
    pub fn replying(self, json: &Value) -> Self {
        self.doing("reply").header("x-reply", &json.to_string())
    }

    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.payload[field] = value;
        self
    }

    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => {
                json!({ "version": 1, "event_type": self.name, "payload": self.payload }).to_string().into_bytes()
            }
            Version::V2 => {
                let mut payload = self.payload.clone();
                if let Some(id) = payload["metadata"].get("correlation_id").cloned() {
                    payload["correlation_id"] = id;
                }
                [&[self.kind], payload.to_string().as_bytes()].concat()
            }
        }
    }

    pub fn correlation_id(&self) -> &str {
        let place = self.payload.get("metadata").unwrap_or(&self.payload);
        place["correlation_id"].as_str().expect("every event of ours has one")
    }
}
