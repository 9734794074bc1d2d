//! Redirects what is below `/old/` to the same place below `/new/`: a module of the Sentinel ABI in AssemblyScript.
//!
//! What the host holds is pinned: nothing else refers to it, and the collector would take it.

import { Reader, quoted } from "./json";

const OLD = "/old/";
const NEW = "/new/";

export function alloc(size: usize): usize {
  return __pin(__new(size, idof<ArrayBuffer>()));
}

export function dealloc(block: usize, _size: usize): void {
  __unpin(block);
}

export function on_request_headers(input: usize, len: usize): u64 {
  const request = String.UTF8.decodeUnsafe(input, len);
  const uri = new Reader(request).stringAt("uri");
  // No result lets the request through.
  if (!uri.startsWith(OLD)) return 0;
  const place = NEW + uri.substring(OLD.length);
  return given(`{"decision":"redirect","status":302,"body":${quoted(place)},"tags":["moved"]}`);
}

/// Hands an answer over to the host: the pointer in the upper 32 bits, the length in the lower ones.
function given(json: string): u64 {
  const answer = String.UTF8.encode(json);
  const block = __pin(changetype<usize>(answer));
  return ((block as u64) << 32) | (answer.byteLength as u64);
}
