// The official JavaScript clients, driven by lines of JSON on standard input; answers lines of JSON on standard output.
//   node matrix.mjs http://127.0.0.1:PORT
// in:  {"id": 1, "dialect": "openai", "method": "chat.completions.create", "body": {…}, "stream": false, "strict": false}
// out: {"id": 1, "items": […], "report": {…}}  or  {"id": 1, "refused": {"status": 400, "message": "…", "kind": "…"}}
import { AsyncLocalStorage } from "node:async_hooks";
import { createInterface } from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import { Ollama } from "ollama";
import OpenAI from "openai";

const [url] = process.argv.slice(2);
const call = new AsyncLocalStorage();

// The SDKs hide the headers of an answer; what they fetch with does not.
const noting = async (resource, options) => {
  const response = await fetch(resource, options);
  const store = call.getStore();
  if (store) store.report = response.headers.get("dragoman-report");
  return response;
};

function clients(headers) {
  const common = { apiKey: "none", maxRetries: 0, timeout: 60_000, defaultHeaders: headers, fetch: noting };
  const openai = new OpenAI({ ...common, baseURL: `${url}/v1` });
  const ollama = new Ollama({ host: url, headers, fetch: noting });
  return { openai, responses: openai, anthropic: new Anthropic({ ...common, baseURL: url }), ollama };
}

const lenient = clients({ "Dragoman-Report": "header" });
const strict = clients({ "Dragoman-Report": "header", "Dragoman-Strict": "true" });

async function answer(asked) {
  const { dialect, method, stream } = asked;
  const client = (asked.strict ? strict : lenient)[dialect];
  if (method === "rerank") return [await client.post("/rerank", { body: asked.body })];
  const names = method.split(".");
  const last = names.pop();
  const place = names.reduce((found, name) => found[name], client);
  if (last === "list" && dialect !== "ollama") {
    const data = [];
    for await (const item of place.list()) data.push(item);
    return [{ data }];
  }
  const { response_id: id, ...body } = asked.body;
  const told = await place[last](id ?? (stream ? { ...body, stream: true } : body));
  if (!stream) return [told ?? {}];
  const items = [];
  for await (const item of told) items.push(item);
  return items;
}

function refusal(error) {
  const status = error.status ?? error.status_code;
  if (typeof status !== "number") return undefined;
  const param = error.param ? ` [${error.param}]` : "";
  const inner = error.error?.error?.message ?? error.error?.message ?? error.message;
  return { status, message: `${inner}${param}`, kind: error.constructor.name };
}

const lines = createInterface({ input: process.stdin });
for await (const line of lines) {
  const asked = JSON.parse(line);
  call.run({}, async () => {
    const out = { id: asked.id };
    try {
      out.items = await answer(asked);
    } catch (error) {
      out.refused = refusal(error);
      if (!out.refused) out.failed = `${error?.constructor?.name}: ${error?.message}`;
    }
    const { report } = call.getStore();
    out.report = report ? JSON.parse(report) : null;
    process.stdout.write(JSON.stringify(out) + "\n");
  });
}
