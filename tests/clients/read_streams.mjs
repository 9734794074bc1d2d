// Reads a stream of worker.py with the OpenAI client for Node. The gateway's address is in $paused, and $NODE_MODULES says
// where the client is.
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_MODULES + "/");
const { OpenAI } = require("openai");
const { VERSION } = require("openai/version");

const client = new OpenAI({ baseURL: `http://${process.env.paused}/v1`, apiKey: "none", maxRetries: 0 });
const asked = { model: "echo", messages: [{ role: "user", content: "count" }], stream: true };
let text = "";
let reason;
for await (const chunk of await client.chat.completions.create(asked)) {
  text += chunk.choices[0].delta.content ?? "";
  reason = chunk.choices[0].finish_reason ?? reason;
}
if (text !== "one two three" || reason !== "stop") {
  throw new Error(`${JSON.stringify(text)}, ${reason}`);
}
console.log(`openai ${VERSION}, a stream with pauses`);
