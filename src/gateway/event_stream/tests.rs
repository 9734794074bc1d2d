use super::*;

const COMMENT: &str = ": keep-alive\n";

fn takes_comment_after(chunks: &[&str]) -> bool {
    let mut stream = EventStream::default();
    chunks.iter().for_each(|chunk| stream.pass(&mut Bytes::copy_from_slice(chunk.as_bytes())));
    stream.takes_comment()
}

/// What a client gets if a comment is inserted between chunks wherever it is allowed.
fn commented(chunks: &[&[u8]]) -> Vec<u8> {
    let (mut stream, mut sent) = (EventStream::default(), Vec::new());
    for chunk in chunks {
        if stream.takes_comment() {
            stream.commented();
            sent.extend_from_slice(COMMENT.as_bytes());
        }
        let mut chunk = Bytes::copy_from_slice(chunk);
        stream.pass(&mut chunk);
        sent.extend_from_slice(&chunk);
    }
    sent
}

/// The events of a stream, each with its lines, as the standard parses them. The end of the stream does not end an
/// event.
fn events(stream: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (mut events, mut event) = (Vec::new(), Vec::new());
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        match line {
            "" if event.is_empty() => {}
            "" => events.push(std::mem::take(&mut event)),
            line if line.starts_with(':') => {}
            line => event.push(line.to_owned()),
        }
    }
    events
}

/// All ways to cut `stream` into chunks.
fn cuts(stream: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    (0..1_u32 << (stream.len() - 1)).map(|cuts| {
        let mut chunks = vec![];
        let mut begin = 0;
        for at in (1..stream.len()).filter(|at| cuts & 1 << (at - 1) != 0) {
            chunks.push(&stream[begin..at]);
            begin = at;
        }
        chunks.push(&stream[begin..]);
        chunks
    })
}

#[test]
fn comments_go_between_events_only() {
    for (chunks, takes) in [
        (&[][..], true),
        (&["data: a\n\n"][..], true),
        (&["data: a\r\n\r\n"], true),
        (&["data: a\r\r"], true),
        (&["data: a\n", "\n"], true),
        (&["data: a\r\n\r", "\n"], true),
        (&["data: a\r\n", "\r\n"], true),
        (&["data: a\r", "\n", "\r\n"], true),
        (&["data: a\r", "\r"], true),
        (&["data: a\n", "\r\n"], true),
        (&["data: a\r\n", "\n"], true),
        (&["", "data: a\n\n", ""], true),
        (&["\n"], true),
        (&["data: a\n"], false),
        (&["data: a\r\n"], false),
        (&["data: a\r"], false),
        (&["data: a\r", "\n"], false),
        (&["data: a\r\n\r"], false),
        (&["data: a\r\n", "\r"], false),
        (&["data: a\n\n", "data: b\r\r"], false),
        (&["data: a"], false),
        (&["data: a\n\n", "d"], false),
        (&[": a comment\n"], false),
        (&["\u{feff}"], false),
    ] {
        assert_eq!(takes_comment_after(chunks), takes, "{chunks:?}");
    }
}

#[test]
fn a_client_gets_the_same_events_whatever_the_chunks_and_line_ends_are() {
    let ends = ["\n", "\r\n", "\r"];
    let mut inserted = 0;
    for first in ends {
        for second in ends {
            for third in ends {
                let stream = format!("a{first}{second}b{third}{first}");
                for chunks in cuts(stream.as_bytes()) {
                    let sent = commented(&chunks);
                    assert_eq!(events(&sent), events(stream.as_bytes()), "{chunks:?}");
                    inserted += String::from_utf8_lossy(&sent).matches(COMMENT).count();
                }
            }
        }
    }
    assert!(inserted > 1000, "{inserted}");
}

#[test]
fn a_bom_behind_a_comment_is_omitted_and_what_only_begins_like_one_is_not() {
    let sent = |chunks: &[&[u8]]| commented(chunks).strip_prefix(COMMENT.as_bytes()).expect("it comes first").to_vec();
    for chunks in cuts(b"\xef\xbb\xbfdata: a\n") {
        assert_eq!(sent(&chunks).iter().filter(|byte| !byte.is_ascii()).count(), 0, "{chunks:?}");
    }
    assert_eq!(sent(&[b"\xef\xbb", b"\xbe\n\n"]), b": keep-alive\n\xef\xbb\xbe\n\n");
    assert_eq!(sent(&[b"\xef\xbb\xbe\n\n", b"\xef\xbb\xbf"]), b"\xef\xbb\xbe\n\n: keep-alive\n\xef\xbb\xbf");
}
