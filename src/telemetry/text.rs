//! Formats the fields of the text log as `name=value`, so that programs can parse them. A value with spaces, quotes,
//! `=`, backslashes, non-ASCII or control characters is quoted and escaped. `tracing-subscriber` itself writes
//! `Display` values unquoted, with their spaces and line ends.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use super::is_format_control;

/// Bytes that an unquoted value may have. It is a table, because each request's line checks some hundred bytes.
const BARE: [bool; 256] = {
    let mut bare = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        bare[byte as usize] = !matches!(byte, b'"' | b'=' | b'\\');
        byte += 1;
    }
    bare
};

/// Whether a value can be written without quotes.
pub fn is_bare(value: &[u8]) -> bool {
    value.iter().all(|byte| BARE[usize::from(*byte)])
}

/// Formats fields for the text log.
#[derive(Debug, Clone, Copy)]
pub struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer: &mut writer, is_first: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'a, 'w> {
    writer: &'a mut Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl Line<'_, '_> {
    fn add(&mut self, field: &Field, show: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_err() {
            return;
        }
        self.result = self.begin(field.name()).and_then(|()| show(self.writer));
    }

    fn begin(&mut self, name: &str) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        match name {
            "message" => Ok(()),
            name => write!(self.writer, "{}=", name.strip_prefix("r#").unwrap_or(name)),
        }
    }
}

impl Visit for Line<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, |writer| write_quoted(writer, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        let is_shown = match field.name() {
            // The gateway's messages are plain words. A library's message could look like a field.
            "message" => !text.contains(['=', '"']) && !text.contains(is_escaped),
            _ => is_bare(text.as_bytes()),
        };
        self.add(field, |writer| if is_shown { writer.write_str(&text) } else { write_quoted(writer, &text) });
    }
}

fn is_escaped(character: char) -> bool {
    character.is_control() || is_format_control(character)
}

fn write_quoted(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    writer.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(writer, "\\{character}")?,
            '\n' => writer.write_str("\\n")?,
            _ if is_escaped(character) => write!(writer, "{}", character.escape_unicode())?,
            _ => writer.write_char(character)?,
        }
    }
    writer.write_char('"')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nobody panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let builder = tracing_subscriber::fmt().without_time().with_ansi(false).with_target(false);
        let subscriber = builder.fmt_fields(TextFields).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(kept.0.lock().expect("nobody panics").clone()).expect("text")
    }

    #[test]
    fn values_can_be_told_from_what_is_around_them() {
        let line = logged(|| {
            let error = io::Error::other("no \"such\" file\nstatus=500");
            tracing::info!(plain = %"a/b:1", %error, count = 3, text = "x", empty = "", nothing = %"", "two words");
        });
        let fields = r#"two words plain=a/b:1 error="no \"such\" file\nstatus=500" count=3 text="x" empty="" nothing="#;
        assert_eq!(line, format!(" INFO {fields}\n"));
    }

    #[test]
    fn no_value_and_no_message_ends_the_line_or_makes_a_field() {
        let line = logged(|| tracing::info!(list = ?["a b", "c"], sign = %"\u{1b}[31m\u{2028}", "{}", "a=b\nc"));
        assert_eq!(line, " INFO \"a=b\\nc\" list=\"[\\\"a b\\\", \\\"c\\\"]\" sign=\"\\u{1b}[31m\\u{2028}\"\n");
    }
}
