"""A worker whose event streams pause for longer than the gateway waits before it sends a comment.

The streams are as awkward as the standard allows: an id that stays in force, line ends of all kinds, chunks that end in
the middle of a line end, and a byte order mark. It prints where it listens.
"""

import asyncio
import json

PAUSE = 1.6
WORDS = ["one", " two", " three"]


def chat():
    """A chat completion as OpenAI streams it. From its first event on, clients know an id."""

    def event(delta, reason=None):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return "data: %s\n\n" % json.dumps(
            {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "echo", "choices": [choice]}
        )

    yield "id: 0\n" + event({"role": "assistant", "content": ""})
    for word in WORDS:
        yield None
        yield event({"content": word})
    yield event({}, "stop")
    yield None
    yield "data: [DONE]\n\n"


def message():
    """A message as Anthropic streams it."""

    def event(kind, **fields):
        return "event: %s\ndata: %s\n\n" % (kind, json.dumps({"type": kind, **fields}))

    head = {"id": "m", "type": "message", "role": "assistant", "model": "echo", "content": [], "stop_reason": None}
    yield event("message_start", message={**head, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in WORDS:
        yield None
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield event("content_block_stop", index=0)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=end, usage={"output_tokens": len(WORDS)})
    yield event("message_stop")


def lines(end, start=""):
    """The same events with other line ends, in chunks that end anywhere."""
    text = "".join("id: %d%sevent: word%sdata:%s%s%s" % (n, end, end, word, end, end) for n, word in enumerate(WORDS))
    text = start + text + "data: a" + end + "data: b" + end + end + "data: this event has no end"
    if start:
        yield None
    boundary = text.index("id: 1")
    for at, piece in ((0, text[:boundary]), (boundary, text[boundary:])):
        # The middle of a line, and every place around the next line ends.
        yield piece[:3]
        yield None
        for char in piece[3:12]:
            yield char
        yield piece[12:]
        yield None


STREAMS = {
    "/v1/chat/completions": chat,
    "/v1/messages": message,
    "/lf": lambda: lines("\n"),
    "/crlf": lambda: lines("\r\n"),
    "/cr": lambda: lines("\r"),
    "/bom": lambda: lines("\n", "\ufeff"),
    "/split": lambda: split("\r\n"),
}


def split(end):
    """Pauses behind each byte around the end of an event."""
    for n in range(2):
        yield "data: %d" % n
        for char in end + end:
            yield char
            yield None


async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            method, path = head.split()[:2]
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields.get(b"content-length", 0)))
            stream = STREAMS.get(path.decode().split("?")[0])
            if stream is None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for chunk in stream():
                await writer.drain()
                # A chunk of its own for the gateway, too.
                await asyncio.sleep(PAUSE if chunk is None else 0.01)
                if chunk:
                    writer.write(b"%x\r\n%s\r\n" % (len(chunk.encode()), chunk.encode()))
            writer.write(b"0\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("listening on http://%s:%d" % server.sockets[0].getsockname(), flush=True)
    await server.serve_forever()


asyncio.run(main())
