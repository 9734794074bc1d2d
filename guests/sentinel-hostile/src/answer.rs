//! What a handler returns: a pointer in the upper half of 64 bits, a length in the lower one.

use serde_json::{Map, Value};

use crate::blocks;

pub enum Answer {
    /// Returned as it is, whatever lies there.
    Area { ptr: usize, len: usize },
    /// Bytes that are kept until the host gives them back.
    Bytes(Vec<u8>),
}

/// Static, so that it can be returned when there is no memory left.
const ALLOW: &str = r#"{"decision":"allow"}"#;

impl Answer {
    pub const EMPTY: Self = Self::Area { ptr: 0, len: 0 };

    pub fn allow() -> Self {
        Self::Area {
            ptr: ALLOW.as_ptr() as usize,
            len: ALLOW.len(),
        }
    }

    /// Allows, with one more field.
    pub fn allow_with(field: &str, value: impl Into<Value>) -> Self {
        let mut fields = Map::new();
        fields.insert("decision".to_owned(), "allow".into());
        fields.insert(field.to_owned(), value.into());
        Self::Bytes(Value::Object(fields).to_string().into_bytes())
    }

    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(bytes.into())
    }

    pub fn packed(self) -> u64 {
        let (ptr, len) = match self {
            Self::Area { ptr, len } => (ptr, len),
            Self::Bytes(bytes) => {
                let len = bytes.len();
                (blocks::hold(bytes), len)
            }
        };
        (ptr as u64) << 32 | len as u64
    }
}
