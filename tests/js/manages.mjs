// The whole surface of the official JavaScript Ollama client; prints what it saw as one JSON object.
//   node manages.mjs http://127.0.0.1:PORT
import { Ollama } from "ollama";

const host = process.argv[2];
const ollama = new Ollama({ host });
const messages = [{ role: "user", content: "hi" }];
const name = "script";
const told = {};

const all = async (stream) => {
  const parts = [];
  for await (const part of await stream) parts.push(part);
  return parts;
};

told.created = (await ollama.create({ model: name, from: "have", system: "Be brief." })).status;
told.createdSteps = (await all(ollama.create({ model: name, from: "have", system: "Be brief.", stream: true }))).at(-1).status;
const steps = await all(ollama.pull({ model: "far", stream: true }));
told.pulledSteps = [steps[0].status, steps.at(-1).status];
const last = steps.filter((step) => step.digest).at(-1);
told.pulledBytes = [last.total, last.completed];
told.pulled = (await ollama.pull({ model: "far" })).status;
told.pushed = (await ollama.push({ model: "far" })).status;
told.pushedSteps = (await all(ollama.push({ model: "far", stream: true }))).at(-1).status;
told.copied = (await ollama.copy({ source: name, destination: "script-copy" })).status;
const shown = await ollama.show({ model: "script-copy" });
told.system = shown.system;
told.info = typeof shown.model_info === "object" && shown.capabilities.includes("completion");
told.listed = (await ollama.list()).models.some((model) => model.name === "script-copy:latest" && model.digest.length === 64);
told.chat = (await ollama.chat({ model: "far", messages })).message.content;
told.generate = (await ollama.generate({ model: "far", prompt: "hi" })).response;
told.stream = (await all(ollama.chat({ model: "far", messages, stream: true }))).map((part) => part.message.content).join("");
told.vectors = (await ollama.embed({ model: "embed", input: ["a text", "another"] })).embeddings.length;
told.vector = (await ollama.embeddings({ model: "embed", prompt: "a text" })).embedding.length > 8;
told.running = Array.isArray((await ollama.ps()).models);
const ends = [];
for (const model of [name, "script-copy", "far"]) ends.push((await ollama.delete({ model })).status);
told.deleted = [...new Set(ends)].join();
told.gone = await ollama.delete({ model: name }).catch((error) => error.status_code);
told.missing = await all(ollama.pull({ model: "nobody/has-it", stream: true })).catch((error) => error.message);
told.missingStatus = await ollama.pull({ model: "nobody/has-it" }).catch((error) => error.status_code);
told.version = /^\d+\.\d+\.\d+$/.test((await ollama.version()).version);
console.log(JSON.stringify(told));
