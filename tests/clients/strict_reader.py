"""Reads event streams to the letter of WHATWG HTML section 9.2.6, once from the worker and once through the gateway, and
compares the events. Through the gateway there must be comments, and they must be whole lines between events.

    strict_reader.py WORKER GATEWAY PATH...      both as HOST:PORT
"""

import concurrent.futures
import re
import sys
import urllib.request


def events(stream):
    """The events of a stream, each with its type, data and last event id; and the comments."""
    text = stream.decode("utf-8", "replace")
    # One byte order mark at the start is ignored.
    text = text[1:] if text.startswith("\ufeff") else text
    # Lines end with CRLF, LF or CR. What follows the last line end is no line.
    lines = re.split("\r\n|\n|\r", text)[:-1]
    found, comments = [], []
    data, kind, last_id = [], "", ""
    within = False
    for line in lines:
        if line == "":
            # An event without data is none.
            if data:
                found.append((kind or "message", "\n".join(data), last_id))
            data, kind, within = [], "", False
        elif line.startswith(":"):
            comments.append((line, within))
        else:
            within = True
            field, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if field == "data":
                data.append(value)
            elif field == "event":
                kind = value
            elif field == "id" and "\0" not in value:
                last_id = value
    return found, comments


def empty_lines(stream):
    return len([line for line in re.split(b"\r\n|\n|\r", stream)[:-1] if not line])


def read(address, path):
    request = urllib.request.Request("http://" + address + path, data=b"{}" if path.startswith("/v1") else None)
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=50) as answer:
        return answer.read()


def check(path):
    with concurrent.futures.ThreadPoolExecutor() as readers:
        direct, through = readers.map(lambda address: read(address, path), sys.argv[1:3])
    expected, none = events(direct)
    found, comments = events(through)
    assert not none, none
    assert found == expected, (path, expected, found, through)
    assert comments and set(comments) == {(": keep-alive", False)}, (path, comments, through)
    assert empty_lines(through) == empty_lines(direct), (path, through)
    return len(found), len(comments)


with concurrent.futures.ThreadPoolExecutor() as pool:
    counts = list(pool.map(check, sys.argv[3:]))
print("%d streams, %d events, %d comments" % (len(counts), sum(e for e, _ in counts), sum(c for _, c in counts)))
