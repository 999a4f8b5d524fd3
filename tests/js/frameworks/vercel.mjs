// Vercel's AI SDK against a running gateway, by its providers of all dialects; prints what it saw as one JSON object.
//   node vercel.mjs http://127.0.0.1:PORT MODEL...
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { createOllama } from "ai-sdk-ollama";
import { deflateSync, crc32 } from "node:zlib";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const [url, ...models] = process.argv.slice(2);
const compatible = createOpenAICompatible({ name: "gateway", baseURL: `${url}/v1`, supportsStructuredOutputs: true, includeUsage: true });
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: "none" });
const ollama = createOllama({ baseURL: url });
const providers = {
  compatible: (model) => compatible(model),
  chat: (model) => openai.chat(model),
  responses: (model) => openai(model),
  anthropic: (model) => anthropic(model),
  ollama: (model) => ollama(model),
};
const person = z.object({ name: z.string(), age: z.number().int(), city: z.string() });
const get_weather = tool({
  description: "Weather",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => (city === "Paris" ? "sunny" : "unknown"),
});

function png(red, green, blue, size = 64) {
  const part = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind), data]);
    const ends = [Buffer.alloc(4), Buffer.alloc(4)];
    ends[0].writeUInt32BE(data.length);
    ends[1].writeUInt32BE(crc32(body));
    return Buffer.concat([ends[0], body, ends[1]]);
  };
  const row = Buffer.concat([Buffer.from([0]), Buffer.alloc(size * 3, Buffer.from([red, green, blue]))]);
  const head = Buffer.from([0, 0, 0, size, 0, 0, 0, size, 8, 2, 0, 0, 0]);
  const pixels = deflateSync(Buffer.concat(Array(size).fill(row)));
  const mark = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([mark, part("IHDR", head), part("IDAT", pixels), part("IEND", Buffer.alloc(0))]);
}

const abilities = {
  async text(ask) {
    const told = await generateText({ ...ask, prompt: "What is the capital of France?" });
    return [told.text, told.finishReason, told.usage.outputTokens > 3];
  },
  async stream(ask) {
    const stream = streamText({ ...ask, prompt: "What is the capital of France?" });
    const pieces = [];
    for await (const piece of stream.textStream) pieces.push(piece);
    return [pieces.join(""), pieces.length > 3, await stream.finishReason, (await stream.usage).outputTokens > 3];
  },
  async tools(ask) {
    const told = await generateText({ ...ask, prompt: "What is the weather in Paris?", tools: { get_weather }, stopWhen: stepCountIs(3) });
    const call = told.steps[0].toolCalls[0];
    return [told.steps.length, call?.toolName, call?.input, told.text];
  },
  async toolStream(ask) {
    const stream = streamText({ ...ask, prompt: "What is the weather in Paris?", tools: { get_weather }, stopWhen: stepCountIs(3) });
    const kinds = new Set();
    for await (const part of stream.fullStream) kinds.add(part.type);
    const call = (await stream.steps)[0].toolCalls[0];
    return [kinds.has("tool-call"), kinds.has("tool-result"), kinds.has("error"), call?.toolName, call?.input, await stream.text];
  },
  async object(ask) {
    return (await generateText({ ...ask, prompt: "Give me JSON with name Anna, age 30, city Paris.", output: Output.object({ schema: person }) })).output;
  },
  async generateObject(ask) {
    return (await generateObject({ ...ask, prompt: "Give me JSON with name Anna, age 30, city Paris.", schema: person })).object;
  },
  async objectStream(ask) {
    const stream = streamObject({ ...ask, prompt: "Give me JSON with name Anna, age 30, city Paris.", schema: person });
    let parts = 0;
    for await (const _ of stream.partialObjectStream) parts++;
    return [parts > 1, await stream.object];
  },
  async image(ask) {
    const content = [
      { type: "text", text: "What color is the image?" },
      { type: "file", mediaType: "image/png", data: png(255, 0, 0) },
    ];
    return (await generateText({ ...ask, messages: [{ role: "user", content }] })).text;
  },
  async thoughts(ask, provider) {
    const providerOptions = {
      gateway: { reasoningEffort: "low" },
      openai: { reasoningEffort: "low", forceReasoning: true },
      anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } },
    };
    const prompt = "What is 7 + 8?";
    // The SDK drops the temperature beside thoughts; the first choice alone makes the answer certain.
    if (provider === "ollama") ask.model = ollama(ask.model.modelId, { think: true });
    const told = await generateText({ ...ask, topK: provider === "anthropic" ? 1 : undefined, prompt, providerOptions });
    return [told.reasoningText?.trim() ?? null, told.text];
  },
  async leaving(ask, provider) {
    if (provider === "ollama") return null; // it reads a stream to its end, whoever aborts
    const leave = new AbortController();
    const stream = streamText({ ...ask, prompt: "Tell me a story.", abortSignal: leave.signal, onError() {} });
    let aborted = false;
    for await (const part of stream.fullStream) {
      if (part.type === "text-delta") leave.abort();
      aborted ||= part.type === "abort";
    }
    return aborted;
  },
};

const told = {};
for (const model of models) {
  told[model] = {};
  for (const [provider, make] of Object.entries(providers)) {
    const seen = (told[model][provider] = {});
    for (const [name, ability] of Object.entries(abilities)) {
      const ask = { model: make(model), temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
      seen[name] = await ability(ask, provider).catch((error) => `${error.name}: ${error.message}`);
    }
  }
  const embedder = model.replace("pip", "embed");
  if (!model.includes("anthropic")) {
    const values = ["the cat sat", "on the mat"];
    const kinds = [compatible.embeddingModel(embedder), openai.embedding(embedder), ollama.embedding(embedder)];
    const [first, ...others] = await Promise.all(kinds.map(async (kind) => (await embedMany({ model: kind, values })).embeddings.flat()));
    told[model].embeddings = others.map((other) => Math.max(...other.map((x, i) => Math.abs(x - first[i]))) < 1e-5);
  } else told[model].embeddings = null;
}
console.log(JSON.stringify(told));
