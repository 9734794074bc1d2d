//! The prompt in a request's body, as far as balancing wants it: which model, and a text that two requests share as far
//! as a worker's cache would find them alike.
//!
//! Reads the shapes of OpenAI's and Anthropic's endpoints and of the workers' own: `messages` and `input` with contents
//! as a string or as parts, `prompt`, `text`, `input_ids`, and `system` or `instructions`, which come first in the text
//! wherever they are in the body, as in what a worker makes of them. Names of roles stand between the contents, so a
//! conversation is a prefix of its continuation. No tree is built, and no more text is kept than [`MOST`].

mod text;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use self::text::Text;

/// Bytes of text that are kept: what is past them hardly decides where a request should go.
pub const MOST: usize = 1 << 20;

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub struct Prompt<'a> {
    /// The model's name, if it is text.
    pub model: Option<Cow<'a, str>>,
    /// `None` if it is missing, or of another type than it should be.
    /// Borrowed from the body when it is one string without escapes.
    pub text: Option<Cow<'a, str>>,
}

/// Why a body has no prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// It is not JSON, or not an object, or too deep where there may be text.
    #[error("the body is not one JSON object that can be read")]
    NotAnObject(#[from] serde_json::Error),
}

impl<'a> Prompt<'a> {
    /// Time is linear in the body. Memory too, though only for a string with escapes; otherwise [`MOST`] bounds it.
    pub fn read(body: &'a [u8]) -> Result<Self, PromptError> {
        Ok(serde_json::from_slice(body)?)
    }
}

/// The fields that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Model,
    System,
    Instructions,
    Messages,
    Prompt,
    Input,
    Text,
    InputIds,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Prompt<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Body)
    }
}

struct Body;

impl<'de> Visitor<'de> for Body {
    type Value = Prompt<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Prompt<'de>, A::Error> {
        let (mut prompt, mut before, mut text) = (Prompt::default(), Text::default(), Text::default());
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Model => prompt.model = map.next_value::<Model>()?.0,
                Field::System | Field::Instructions => map.next_value_seed(&mut before)?,
                Field::Messages | Field::Prompt | Field::Input | Field::Text | Field::InputIds => {
                    map.next_value_seed(&mut text)?;
                }
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        prompt.text = before.then(text);
        Ok(prompt)
    }
}

/// A string, or a value that is not worth an error here.
struct Model<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Model<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
