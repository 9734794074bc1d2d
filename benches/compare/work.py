"""The work every proxy does: one chat completion, one fixed answer, and the worker that gives it."""

import http.client
import json

API_KEY = "secret-api-key-12345"
MODEL = "bench"
PATH = "/v1/chat/completions"
ANSWER_BYTES = 273

BODY = json.dumps(
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Say hello in one short sentence."},
        ],
        "temperature": 0.2,
    },
    separators=(",", ":"),
)
HEADERS = {"content-type": "application/json", "x-api-key": API_KEY}


def _answer():
    answer = {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1700000000,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30},
    }
    message = answer["choices"][0]["message"]
    missing = ANSWER_BYTES - len(json.dumps(answer, separators=(",", ":")))
    message["content"] = ("Hello! " * ANSWER_BYTES)[:missing].replace(" ", "_")
    return json.dumps(answer, separators=(",", ":"))


ANSWER = _answer()
# A peer asks its workers which models they serve, and routes by the answer.
MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "bench"}]})


def worker_config(port, directory, addresses=("127.0.0.1",)):
    """An nginx that answers everything with ANSWER: cheap enough not to be what is measured."""
    listen = "\n".join(f"    listen {address}:{port} backlog=4096;" for address in addresses)
    return f"""
daemon off; master_process off; worker_processes 1;
pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type application/json;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{
{listen}
    client_max_body_size 0;
    location / {{ return 200 '{ANSWER}'; }}
    location = /v1/models {{ return 200 '{MODELS}'; }}
  }}
}}
"""


def raw_request(port, extra_headers=()):
    """The request as bytes, for clients that write to sockets themselves."""
    headers = {"host": f"127.0.0.1:{port}", **HEADERS, "content-length": str(len(BODY)), **dict(extra_headers)}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", BODY]
    return "\r\n".join(lines).encode()


def post(port, path=PATH, body=BODY, headers=None, timeout=5):
    """One request on a connection of its own: (status, body)."""
    return ask(port, "POST", path, body, HEADERS if headers is None else headers, timeout)


def get(port, path="/", timeout=5):
    return ask(port, "GET", path, None, HEADERS, timeout)


def ask(port, method, path, body, headers, timeout):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_answer(status, body):
    """Whether this is the worker's answer; compared as JSON, since one peer writes it anew."""
    try:
        return status == 200 and json.loads(body) == json.loads(ANSWER)
    except ValueError:
        return False
