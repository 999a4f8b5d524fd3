// OpenAI's official JavaScript client on /v1/responses; prints what it saw as one JSON object.
//   node responses.mjs http://127.0.0.1:PORT MODEL...
import OpenAI from "openai";

const [url, ...models] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const tools = [{ type: "function", name: "get_weather", description: "Weather", parameters, strict: true }];
const person = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } },
  required: ["name", "age", "city"],
  additionalProperties: false,
};
const told = {};

for (const model of models) {
  const seen = (told[model] = {});
  const cold = { model, temperature: 0 };
  const first = await client.responses.create({ ...cold, input: "What is the capital of France?" });
  seen.create = first.output_text;

  const stream = client.responses.stream({ ...cold, input: "What is 7 + 8?", reasoning: { effort: "high" } });
  seen.stream = ["", ""];
  stream.on("response.output_text.delta", (event) => (seen.stream[1] += event.delta));
  stream.on("response.reasoning_text.delta", (event) => (seen.stream[0] += event.delta));
  const final = await stream.finalResponse();
  seen.final = [final.status, final.output_text, final.usage.total_tokens > 0];

  const called = await client.responses.create({ ...cold, tools, input: "What is the weather in Paris?" });
  const call = called.output.find((item) => item.type === "function_call");
  seen.call = [call.name, JSON.parse(call.arguments)];
  const output = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
  const answer = await client.responses.create({ ...cold, tools, previous_response_id: called.id, input: [output] });
  seen.answer = answer.output_text;
  seen.items = [];
  for await (const item of client.responses.inputItems.list(answer.id, { order: "asc", limit: 1 })) seen.items.push(item.type);

  const text = { format: { type: "json_schema", name: "person", schema: person, strict: true } };
  const parsed = await client.responses.parse({ ...cold, text, input: "Give me JSON with name Anna, age 30, city Paris." });
  seen.parsed = parsed.output_parsed;

  seen.retrieve = (await client.responses.retrieve(first.id)).output_text;
  seen.replay = "";
  for await (const event of await client.responses.retrieve(first.id, { stream: true })) if (event.type === "response.output_text.delta") seen.replay += event.delta;
  const background = await client.responses.create({ model, input: "Tell me a story.", background: true });
  seen.cancel = [background.status, (await client.responses.cancel(background.id)).status];
  await client.responses.delete(first.id);
  seen.deleted = await client.responses.retrieve(first.id).catch((error) => error.status);
}
console.log(JSON.stringify(told));
