// What JavaScript clients are known to trip over; prints what they saw as one JSON object.
//   node trips.mjs http://127.0.0.1:PORT MODEL...
import OpenAI from "openai";
import { Ollama } from "ollama";

const [url, ...models] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ollama = new Ollama({ host: url });
const weather = [{ role: "user", content: "What is the weather in Paris?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", description: "Weather", parameters } }];
const sum = [{ role: "user", content: "What is 7 + 8?" }];
const person = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } },
  required: ["name", "age", "city"],
  additionalProperties: false,
};
const anna = [{ role: "user", content: "Give me JSON with name Anna, age 30, city Paris." }];
const json_schema = { name: "person", schema: person, strict: true };
const told = {};

for (const model of models) {
  const seen = (told[model] = {});
  const stream = openai.chat.completions.stream({ model, messages: weather, tools, temperature: 0 });
  const final = await stream.finalChatCompletion();
  const call = final.choices[0].message.tool_calls[0];
  seen.helper = [final.choices[0].finish_reason, final.choices[0].message.role, call.function.name, JSON.parse(call.function.arguments)];

  const run = openai.chat.completions.runTools({
    model,
    messages: weather,
    temperature: 0,
    tools: [{ type: "function", function: { ...tools[0].function, function: () => "sunny", parse: JSON.parse } }],
  });
  seen.runTools = await run.finalContent();

  const parsed = await openai.chat.completions.parse({ model, messages: anna, temperature: 0, response_format: { type: "json_schema", json_schema } });
  seen.parse = JSON.parse(parsed.choices[0].message.content);

  seen.usage = [];
  const counted = await openai.chat.completions.create({ model, messages: sum, temperature: 0, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of counted) seen.usage.push(chunk.usage ? chunk.choices.length : null);

  const left = await openai.chat.completions.create({ model, messages: [{ role: "user", content: "Tell me a story." }], stream: true });
  for await (const chunk of left) if (chunk.choices[0].delta.content) break;
  seen.left = left.controller.signal.aborted;

  const thoughts = ["", ""];
  for await (const part of await ollama.chat({ model, messages: sum, think: true, options: { temperature: 0 }, stream: true })) {
    thoughts[0] += part.message.thinking ?? "";
    thoughts[1] += part.message.content;
  }
  seen.thoughts = thoughts;
  const asked = await ollama.chat({ model, messages: weather, tools, options: { temperature: 0 } });
  seen.ollamaCall = asked.message.tool_calls[0].function.arguments;
  seen.format = JSON.parse((await ollama.chat({ model, messages: anna, format: person, options: { temperature: 0 } })).message.content);

  const embedder = model.replace("pip", "embed");
  const packed = (await openai.embeddings.create({ model: embedder, input: ["a text", "b"] })).data;
  const plain = (await openai.embeddings.create({ model: embedder, input: "a text", encoding_format: "float" })).data;
  seen.embedding = Math.max(...plain[0].embedding.map((x, i) => Math.abs(x - packed[0].embedding[i])));
  seen.rows = packed.map((row) => [row.index, row.embedding.length === plain[0].embedding.length]);
}
told.retrieve = (await openai.models.retrieve("b_openai/pip")).id;
told.show = (await ollama.show({ model: "pip" })).capabilities.includes("tools");
told.ps = (await ollama.ps()).models.some((model) => model.model === "pip:latest");
told.delete = await ollama.delete({ model: "pip" }).catch((error) => error.message);
console.log(JSON.stringify(told));
