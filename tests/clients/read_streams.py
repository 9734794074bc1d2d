"""Reads the streams of worker.py with a client that people use.

    read_streams.py openai | anthropic | httpx-sse      the gateway's address is in $paused
"""

import json
import os
import sys

base = "http://" + os.environ["paused"]
asked = dict(model="echo", messages=[{"role": "user", "content": "count"}])


def read_with_openai():
    import openai

    client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
    chunks = list(client.chat.completions.create(stream=True, **asked))
    assert chunks[-1].choices[0].finish_reason == "stop", chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    return openai.__version__, text


def read_with_anthropic():
    import anthropic

    client = anthropic.Anthropic(base_url=base, api_key="none", max_retries=0)
    with client.messages.stream(max_tokens=10, **asked) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason == "end_turn"
    return anthropic.__version__, text


def read_with_httpx_sse():
    import importlib.metadata

    import httpx
    import httpx_sse

    text = ""
    with httpx.Client(timeout=30) as client:
        with httpx_sse.connect_sse(client, "POST", base + "/v1/chat/completions", json=asked) as source:
            for event in source.iter_sse():
                assert event.data and event.id == "0", event
                if event.data != "[DONE]":
                    text += json.loads(event.data)["choices"][0]["delta"].get("content", "")
    return importlib.metadata.version("httpx-sse"), text


readers = {"openai": read_with_openai, "anthropic": read_with_anthropic, "httpx-sse": read_with_httpx_sse}
version, text = readers[sys.argv[1]]()
assert text == "one two three", text
print(sys.argv[1], version + ", a stream with pauses")
