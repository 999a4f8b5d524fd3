// Anthropic's official JavaScript client against a running gateway; prints what it saw as one JSON object.
//   node anthropic.mjs http://127.0.0.1:PORT MODEL...
import Anthropic from "@anthropic-ai/sdk";

const [url, ...models] = process.argv.slice(2);
const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const weather = [{ role: "user", content: "What is the weather in Paris?" }];
const tools = [
  {
    name: "get_weather",
    description: "Weather",
    input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
];
const told = {};

for (const model of models) {
  const seen = (told[model] = {});
  const ask = { model, max_tokens: 200, temperature: 0 };
  seen.message = (await client.messages.create({ ...ask, messages })).content[0].text;
  seen.stream = "";
  const stream = client.messages.stream({ ...ask, messages });
  stream.on("text", (text) => (seen.stream += text));
  await stream.finalMessage();

  const called = await client.messages.stream({ ...ask, messages: weather, tools }).finalMessage();
  const [call] = called.content;
  seen.call = [call.name, call.input, called.stop_reason];
  const result = { type: "tool_result", tool_use_id: call.id, content: [{ type: "text", text: "sunny" }] };
  const back = [...weather, { role: "assistant", content: called.content }, { role: "user", content: [result] }];
  seen.result = (await client.messages.create({ ...ask, messages: back, tools })).content[0].text;

  const sum = [{ role: "user", content: "What is 7 + 8?" }];
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const thought = await client.messages.stream({ ...ask, messages: sum, thinking }).finalMessage();
  seen.thoughts = thought.content.map((block) => block.thinking ?? block.text);
}

const ids = [];
for await (const model of client.models.list()) ids.push(model.id);
told.listed = models.every((model) => ids.includes(model));
told.counted = (await client.messages.countTokens({ model: models[0], messages })).input_tokens;
told.notFound = await client.messages
  .create({ model: "none", max_tokens: 9, messages })
  .catch((error) => [error.status, error.type ?? error.error?.error?.type]);
console.log(JSON.stringify(told));
