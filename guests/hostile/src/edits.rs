//! The edits that the behaviours of one call ask for, merged; and what the guest was shown, put into words.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::smg::gateway::middleware_types::{Action, Header, ModifyAction};

#[derive(Default)]
pub struct Edits {
    status: Option<u16>,
    set: Vec<Header>,
    add: Vec<Header>,
    remove: Vec<String>,
    body: Option<Vec<u8>>,
}

impl Edits {
    pub fn status(&mut self, status: u16) {
        self.status = Some(status);
    }

    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.set.push(Header {
            name: name.into(),
            value: value.into(),
        });
    }

    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.add.push(Header {
            name: name.into(),
            value: value.into(),
        });
    }

    /// Adds `count` headers, no two of one name.
    pub fn flood(&mut self, count: usize) {
        for i in 0..count {
            self.add(format!("x-flood-{i}"), "1");
        }
    }

    pub fn remove(&mut self, name: String) {
        self.remove.push(name);
    }

    pub fn body(&mut self, body: Vec<u8>) {
        self.body = Some(body);
    }

    /// Continues if nothing was edited.
    pub fn into_action(self) -> Action {
        let Self {
            status,
            set,
            add,
            remove,
            body,
        } = self;
        if status.is_none()
            && set.is_empty()
            && add.is_empty()
            && remove.is_empty()
            && body.is_none()
        {
            return Action::Continue;
        }
        Action::Modify(ModifyAction {
            status,
            headers_set: set,
            headers_add: add,
            headers_remove: remove,
            body_replace: body,
        })
    }

    #[cfg(test)]
    pub fn set_lines(&self) -> Vec<(&str, &str)> {
        self.set
            .iter()
            .map(|header| (&*header.name, &*header.value))
            .collect()
    }
}

/// Not visible, or of a meaning in the list. What is not ASCII is always encoded.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b';');

/// `COUNT;NAME=VALUE;…` in the order shown, as visible ASCII.
pub fn listed(headers: &[Header]) -> String {
    let mut list = headers.len().to_string();
    for Header { name, value } in headers {
        list += &format!(
            ";{}={}",
            utf8_percent_encode(name, ESCAPED),
            utf8_percent_encode(value, ESCAPED)
        );
    }
    list
}

/// The sum of all bytes, modulo 2^32.
pub fn sum(body: &[u8]) -> u32 {
    body.iter()
        .fold(0, |sum, &byte| sum.wrapping_add(u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_listed_as_visible_ascii() {
        let header = |name: &str, value: &str| Header {
            name: name.into(),
            value: value.into(),
        };
        assert_eq!(listed(&[]), "0");
        assert_eq!(
            listed(&[
                header("host", "a:80"),
                header("x", "a b;c=d%"),
                header("x", "é")
            ]),
            "3;host=a:80;x=a%20b%3Bc=d%25;x=%C3%A9"
        );
    }

    #[test]
    fn nothing_edited_continues() {
        assert!(matches!(Edits::default().into_action(), Action::Continue));
        let mut edits = Edits::default();
        edits.body(Vec::new());
        assert!(
            matches!(edits.into_action(), Action::Modify(_)),
            "an empty body is an edit"
        );
    }
}
