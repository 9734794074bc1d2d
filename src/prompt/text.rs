//! The text in a value of any shape: strings, token ids, and what is said in messages and their parts.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MOST;

/// Text that is being collected; a single string stays where it is.
#[derive(Debug, Default)]
pub struct Text<'a>(Option<Cow<'a, str>>);

impl<'a> Text<'a> {
    /// This text, and then the other.
    pub fn then(mut self, other: Text<'a>) -> Option<Cow<'a, str>> {
        if let Some(other) = other.0 {
            self.push(other);
        }
        self.0
    }

    /// Adds a piece on a line of its own, as far as there is room.
    fn push(&mut self, piece: Cow<'a, str>) {
        match &mut self.0 {
            None => {
                let end = piece.floor_char_boundary(MOST);
                self.0 = Some(match piece {
                    Cow::Borrowed(piece) => Cow::Borrowed(&piece[..end]),
                    Cow::Owned(mut piece) => {
                        piece.truncate(end);
                        Cow::Owned(piece)
                    }
                });
            }
            Some(text) if text.len() < MOST => {
                let text = text.to_mut();
                text.push('\n');
                text.push_str(&piece[..piece.floor_char_boundary(MOST - text.len())]);
            }
            Some(_) => {}
        }
    }

    /// What a string would need more than this for is cut before it is copied.
    fn push_copied(&mut self, piece: &str) {
        let room = MOST - self.0.as_ref().map_or(0, |text| text.len().min(MOST));
        self.push(Cow::Owned(piece[..piece.floor_char_boundary(room)].to_owned()));
    }

    fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|text| text.len() >= MOST)
    }
}

/// The fields of messages, parts and calls that a worker's template would show. Of what they hold, strings count
/// however deep they are; `serde_json` ends with an error at 128 levels.
#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Said {
    Role,
    Name,
    Content,
    Text,
    ReasoningContent,
    ToolCalls,
    Function,
    Arguments,
    Output,
    Input,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> DeserializeSeed<'de> for &mut Text<'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.is_full() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for &mut Text<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, piece: &'de str) -> Result<(), E> {
        self.push(Cow::Borrowed(piece));
        Ok(())
    }

    fn visit_str<E>(self, piece: &str) -> Result<(), E> {
        self.push_copied(piece);
        Ok(())
    }

    fn visit_u64<E>(self, token: u64) -> Result<(), E> {
        self.push_copied(itoa::Buffer::new().format(token));
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key::<Said>()? {
            match field {
                Said::Other => drop(map.next_value::<IgnoredAny>()?),
                _ => map.next_value_seed(&mut *self)?,
            }
        }
        Ok(())
    }
}
