// Two tool calls in one answer, gathered by the streaming helpers; prints what they saw as one JSON object.
//   node calls.mjs http://127.0.0.1:PORT MODEL...
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { Ollama } from "ollama";

const [url, ...models] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const ollama = new Ollama({ host: url });
const messages = [{ role: "user", content: "Both!" }];
const parameters = { type: "object", properties: { x: { type: "integer" } } };
const names = ["f", "g"];
const tools = names.map((name) => ({ type: "function", function: { name, description: "", parameters } }));
const told = {};

for (const model of models) {
  const seen = (told[model] = {});
  const chat = await openai.chat.completions.stream({ model, messages, tools }).finalChatCompletion();
  seen.chat = chat.choices[0].message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments), call.id]);

  const flat = tools.map((tool) => ({ type: "function", strict: false, ...tool.function }));
  const response = await openai.responses.stream({ model, input: "Both!", tools: flat, store: false }).finalResponse();
  const calls = response.output.filter((item) => item.type === "function_call");
  seen.responses = calls.map((call) => [call.name, JSON.parse(call.arguments), call.call_id]);

  const own = names.map((name) => ({ name, input_schema: parameters }));
  const message = await anthropic.messages.stream({ model, max_tokens: 50, messages, tools: own }).finalMessage();
  seen.messages = message.content.filter((block) => block.type === "tool_use").map((call) => [call.name, call.input, call.id]);

  seen.native = [];
  for await (const part of await ollama.chat({ model, messages, tools, stream: true })) {
    for (const call of part.message.tool_calls ?? []) seen.native.push([call.function.name, call.function.arguments, "id"]);
  }
}
console.log(JSON.stringify(told));
