#!/usr/bin/env bash
# Tests the gateway with real clients, over TLS and HTTP/2, against `smg echo-worker`. Also tests that they read event
# streams whose worker pauses until the gateway sends a keep-alive comment. Prints one line for each client. CI installs
# all clients. Run by hand, the script installs nothing and skips missing clients. It exits with 1 if a client fails.
#
#   SMG           the executable (target/release/smg)
#   PYTHON        with `openai`, `anthropic`, `httpx[http2]`, `httpx-sse` and `websockets` (python3), such as
#                 python3 -m venv /tmp/clients && /tmp/clients/bin/pip install openai anthropic 'httpx[http2]' httpx-sse websockets
#   NODE_MODULES  the directory whose `node_modules` has the npm package `openai` (target/clients)
set -euo pipefail
cd "$(dirname "$0")/.."
SMG=${SMG:-target/release/smg}
PYTHON=${PYTHON:-python3}
NODE_MODULES=$(realpath -m "${NODE_MODULES:-target/clients}")
command -v openssl >/dev/null || { echo "openssl makes the certificate, and is not there"; exit 1; }
[ -x "$SMG" ] || { echo "no executable at $SMG: set SMG"; exit 1; }

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

# Starts a process that says where it listens; its address without a scheme goes into `address`.
start() {
    local out=$work/$1
    shift
    "$@" >"$out" 2>"$out.log" &
    pids+=($!)
    for _ in $(seq 100); do
        address=$(sed -n 's|^listening on [a-z]*://||p' "$out")
        [ -n "$address" ] && return
        sleep 0.05
    done
    cat "$out.log"
    exit 1
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=smg -addext \
    "subjectAltName=DNS:localhost,IP:127.0.0.1" -addext "basicConstraints=critical,CA:FALSE" \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log" || { cat "$work/openssl.log"; exit 1; }
cat >"$work/serve_websocket.py" <<'PY'
import asyncio, websockets

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
        print("listening on http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()

asyncio.run(main())
PY
tls=(--host=127.0.0.1 --port=0 --log-level=warn "--tls-cert-path=$work/cert.pem" "--tls-key-path=$work/key.pem")
start worker "$SMG" echo-worker --port=0 --token-delay-ms=5
start gateway "$SMG" "${tls[@]}" --worker-urls="http://$address"
gateway=$address
start quick "$SMG" echo-worker --port=0
worker=$address
start plain "$SMG" --host=127.0.0.1 --port=0 --log-level=warn --worker-urls="http://$worker"
plain=$address
start pausing "$PYTHON" tests/clients/worker.py
pausing=$address
start paused "$SMG" --host=127.0.0.1 --port=0 --log-level=warn --worker-urls="http://$pausing" --sse-keepalive-secs=1
paused=$address
for _ in $(seq 100); do
    curl -sf --cacert "$work/cert.pem" "https://$gateway/readiness" >/dev/null 2>&1 &&
        curl -sf "http://$plain/readiness" >/dev/null 2>&1 && curl -sf "http://$paused/readiness" >/dev/null 2>&1 && break
    sleep 0.05
done

failed=0
# client NAME PROGRAM COMMAND...: runs it, and prints the last line that it says.
client() {
    local name=$1 needs=$2
    shift 2
    if ! eval "$needs" >/dev/null 2>&1; then
        printf '%-28s skipped: not here\n' "$name"
        return
    fi
    if timeout 60 "$@" >"$work/out" 2>"$work/err"; then
        printf '%-28s ok: %s\n' "$name" "$(tail -1 "$work/out")"
    else
        printf '%-28s FAILED\n' "$name"
        cat "$work/out" "$work/err"
        failed=1
    fi
}

body='{"model":"echo","stream":true,"messages":[{"role":"user","content":"one two three"}]}'
curl_chat() {
    curl -sSN "$1" --cacert "$work/cert.pem" -H 'content-type: application/json' -d "$body" \
        -w '%{stderr}HTTP/%{http_version} %{http_code}' "https://$gateway/v1/chat/completions" >"$work/events" 2>"$work/said"
    grep -q '^data: \[DONE\]' "$work/events"
    local version=2
    [ "$1" = --http1.1 ] && version=1.1
    grep -qx "HTTP/$version 200" "$work/said"
    echo "$(cat "$work/said"), $(grep -c '^data:' "$work/events") events"
}
curl_upload() {
    head -c 20000000 /dev/urandom | base64 -w0 >"$work/large"
    curl -sS "$1" --cacert "$work/cert.pem" --data-binary "@$work/large" "https://$gateway/echo" |
        "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["body"], end="")' | cmp - "$work/large"
    echo "$(stat -c %s "$work/large") bytes up and down"
}
h2load_run() {
    h2load -n 20000 -c 20 -m 20 "$@" >"$work/load"
    grep -q '20000 succeeded, 0 failed, 0 errored, 0 timeout' "$work/load"
    grep -q 'status codes: 20000 2xx' "$work/load"
    grep '^finished in' "$work/load"
}
wrk_run() {
    wrk -t2 -c50 -d2s "$1" >"$work/load"
    ! grep -E 'Socket errors|Non-2xx' "$work/load"
    echo "$(grep 'Requests/sec' "$work/load" | tr -s ' ')"
}
export -f curl_chat curl_upload h2load_run wrk_run
export work gateway plain paused body PYTHON NODE_MODULES

cat >"$work/ask_openai.py" <<'PY'
import asyncio, os, ssl, sys
import httpx, openai

base = "https://%s/v1" % os.environ["gateway"]
context = ssl.create_default_context(cafile=os.environ["work"] + "/cert.pem")
text = "one two three four five"
asked = dict(model="echo", messages=[{"role": "user", "content": text}])
seen = set()

def note(response):
    seen.add(response.http_version)

async def anote(response):
    note(response)

http2 = sys.argv[1] == "2"
with httpx.Client(http2=http2, verify=context, event_hooks={"response": [note]}) as http:
    client = openai.OpenAI(base_url=base, api_key="none", http_client=http, max_retries=0)
    assert [model.id for model in client.models.list()] == ["echo"]
    assert client.chat.completions.create(**asked).choices[0].message.content == text
    chunks = list(client.chat.completions.create(stream=True, **asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert chunks[-1].choices[0].finish_reason == "stop"
    # A stream that is not read to its end, then another.
    with client.chat.completions.create(stream=True, **asked) as stream:
        next(iter(stream))
    assert client.chat.completions.create(**asked).choices[0].message.content == text
    try:
        client.chat.completions.create(model="echo", messages=[])
        raise SystemExit("no error for a bad request")
    except openai.BadRequestError:
        pass

async def many():
    async with httpx.AsyncClient(http2=http2, verify=context, event_hooks={"response": [anote]}) as http:
        client = openai.AsyncOpenAI(base_url=base, api_key="none", http_client=http, max_retries=0)
        async def one(i):
            asked = dict(model="echo", messages=[{"role": "user", "content": "a b c %d" % i}])
            parts = [c.choices[0].delta.content or "" async for c in await client.chat.completions.create(stream=True, **asked)]
            assert "".join(parts) == "a b c %d" % i, parts
        await asyncio.gather(*(one(i) for i in range(100)))

asyncio.run(many())
assert seen == {"HTTP/2" if http2 else "HTTP/1.1"}, seen
print("openai %s, %s, 100 streams at once" % (openai.__version__, seen.pop()))
PY
cat >"$work/ask_websocket.py" <<'PY'
import asyncio, os, ssl, sys
import websockets

async def main():
    context = ssl.create_default_context(cafile=os.environ["work"] + "/cert.pem")
    async with websockets.connect("wss://%s/chat" % sys.argv[1], ssl=context, max_size=None) as socket:
        for message in ["hello", "", "h\u00e9llo", b"\x00\xff", "x" * 1_000_000]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    assert socket.close_code == 1000, socket.close_code
    print("websockets %s, text, binary, ping, close" % websockets.__version__)

asyncio.run(main())
PY

has_openai="$PYTHON -c 'import openai, httpx, h2'"
client "openai, TLS, HTTP/2" "$has_openai" "$PYTHON" "$work/ask_openai.py" 2
client "openai, TLS, HTTP/1.1" "$has_openai" "$PYTHON" "$work/ask_openai.py" 1
for version in --http2 --http1.1; do
    client "curl $version" "curl --version | grep -q HTTP2" bash -euo pipefail -c "curl_chat $version"
    client "curl $version, 27 MB" "command -v curl" bash -euo pipefail -c "curl_upload $version"
done
client "curl --http2-prior-knowledge" "curl --version | grep -q HTTP2" \
    curl -sSf --http2-prior-knowledge -o /dev/null -w 'HTTP/%{http_version} %{http_code}\n' "http://$plain/v1/models"
client "h2load, TLS" "command -v h2load" bash -euo pipefail -c "h2load_run https://$gateway/x"
client "h2load, prior knowledge" "command -v h2load" bash -euo pipefail -c "h2load_run http://$plain/x"
client "h2load, HTTP/1.1" "command -v h2load" bash -euo pipefail -c "h2load_run --h1 -m1 http://$plain/x"
client "wrk, TLS" "command -v wrk" bash -euo pipefail -c "wrk_run https://$gateway/x"
client "wrk" "command -v wrk" bash -euo pipefail -c "wrk_run http://$plain/x"
for reader in openai anthropic httpx-sse; do
    client "$reader, comments" "$PYTHON -c 'import ${reader/-/_}'" "$PYTHON" tests/clients/read_streams.py "$reader"
done
client "openai for Node, comments" "(cd '$NODE_MODULES' && node -e 'require(\"openai\")')" node tests/clients/read_streams.mjs
client "the standard, comments" true "$PYTHON" tests/clients/strict_reader.py "$pausing" "$paused" \
    /v1/chat/completions /v1/messages /lf /crlf /cr /bom /split
if "$PYTHON" -c 'import websockets' 2>/dev/null; then
    start websocket "$PYTHON" "$work/serve_websocket.py"
    start tunnel "$SMG" "${tls[@]}" --worker-urls="http://$address" --disable-health-check
fi
client "websockets, TLS" "$PYTHON -c 'import websockets'" "$PYTHON" "$work/ask_websocket.py" "$address"

for log in "$work"/*.log; do
    if grep -E 'panicked|ERROR' "$log"; then failed=1; fi
done
exit $failed
