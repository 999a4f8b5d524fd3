// The whole surface of the official JavaScript Ollama client; prints what it saw as one JSON object.
//   node manages.mjs http://127.0.0.1:PORT REGISTRY:PORT
import { Ollama } from "ollama";

const [host, registry] = process.argv.slice(2);
const ollama = new Ollama({ host });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const options = { temperature: 0 };
const insecure = true;
const [name, copy, far, missing] = ["script", `${registry}/acme/script`, `${registry}/acme/second`, `${registry}/nobody/has`];
const told = {};

const all = async (stream) => {
  const parts = [];
  for await (const part of await stream) parts.push(part);
  return parts;
};

told.created = (await ollama.create({ model: name, from: "pip", system: "Be brief." })).status;
told.createdSteps = (await all(ollama.create({ model: name, from: "pip", system: "Be brief.", stream: true }))).at(-1).status;
const steps = await all(ollama.pull({ model: far, insecure, stream: true }));
told.pulledSteps = [steps[0].status, steps.at(-1).status];
const last = steps.filter((step) => step.total > 1000000).at(-1);
told.pulledBytes = [last.total, last.completed];
told.pulled = (await ollama.pull({ model: far, insecure })).status;
told.copied = (await ollama.copy({ source: name, destination: copy })).status;
told.pushed = (await ollama.push({ model: copy, insecure })).status;
told.pushedSteps = (await all(ollama.push({ model: copy, insecure, stream: true }))).at(-1).status;
const shown = await ollama.show({ model: copy });
told.system = shown.system;
told.info = typeof shown.model_info === "object" && shown.capabilities.includes("completion");
told.listed = (await ollama.list()).models.some((model) => model.name === `${copy}:latest` && model.digest.length === 64);
told.chat = (await ollama.chat({ model: far, messages, options, think: false })).message.content;
told.generate = (await ollama.generate({ model: far, prompt: messages[0].content, options, think: false })).response;
const parts = await all(ollama.chat({ model: far, messages, options, think: false, stream: true }));
told.stream = parts.map((part) => part.message.content).join("");
told.vectors = (await ollama.embed({ model: "embed", input: ["a text", "another"] })).embeddings.length;
told.vector = (await ollama.embeddings({ model: "embed", prompt: "a text" })).embedding.length > 8;
told.running = Array.isArray((await ollama.ps()).models);
const ends = [];
for (const model of [name, copy, far]) ends.push((await ollama.delete({ model })).status);
told.deleted = [...new Set(ends)].join();
told.gone = await ollama.delete({ model: name }).catch((error) => error.status_code);
told.missing = await all(ollama.pull({ model: missing, insecure, stream: true })).catch((error) => error.message);
told.missingStatus = await ollama.pull({ model: missing, insecure }).catch((error) => error.status_code);
told.version = /^\d+\.\d+\.\d+$/.test((await ollama.version()).version);
console.log(JSON.stringify(told));
