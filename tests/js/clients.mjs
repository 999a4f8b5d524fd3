// The official JavaScript clients against a running gateway; prints what they saw as one JSON object.
//   node clients.mjs http://127.0.0.1:PORT MODEL...
import OpenAI from "openai";
import { Ollama } from "ollama";

const [url, ...models] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ollama = new Ollama({ host: url });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const options = { temperature: 0 };
const told = {};

for (const model of models) {
  const seen = (told[model] = {});
  const whole = await openai.chat.completions.create({ model, messages, temperature: 0 });
  seen.chat = whole.choices[0].message.content;
  seen.stream = "";
  for await (const chunk of await openai.chat.completions.create({ model, messages, temperature: 0, stream: true })) {
    seen.stream += chunk.choices[0]?.delta?.content ?? "";
  }
  seen.ollamaChat = (await ollama.chat({ model, messages, options })).message.content;
  seen.ollamaStream = "";
  for await (const part of await ollama.chat({ model, messages, options, stream: true })) {
    seen.ollamaStream += part.message.content;
  }
  seen.ollamaGenerate = (await ollama.generate({ model, prompt: messages[0].content, options })).response;

  const embedder = model.replace("pip", "embed");
  const vector = (await openai.embeddings.create({ model: embedder, input: "a text" })).data[0].embedding;
  const vectors = (await ollama.embed({ model: embedder, input: "a text" })).embeddings;
  told[embedder] = { openai: vector.length, ollama: vectors[0].length };
}

const ids = [];
for await (const model of openai.models.list()) ids.push(model.id);
const tags = (await ollama.list()).models.map((model) => model.model);
told.listed = models.every((model) => ids.includes(model) && tags.includes(`${model}:latest`));
told.notFound = [
  await openai.chat.completions.create({ model: "none", messages }).catch((error) => error.status),
  await ollama.chat({ model: "none", messages }).catch((error) => error.status_code),
];
console.log(JSON.stringify(told));
