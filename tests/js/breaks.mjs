// What the official JavaScript clients make of answers that break in the middle; prints what they saw as one JSON object.
//   node breaks.mjs http://127.0.0.1:PORT
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { Ollama } from "ollama";

const [url] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" });
const anthropic = new Anthropic({ baseURL: url, apiKey: "none" });
const ollama = new Ollama({ host: url });
const messages = [{ role: "user", content: "Hello!" }];

const ways = {
  async *chat(model) {
    for await (const part of await openai.chat.completions.create({ model, messages, stream: true })) yield part.choices[0].delta.content;
  },
  async *completion(model) {
    for await (const part of await openai.completions.create({ model, prompt: "Hello!", stream: true })) yield part.choices[0].text;
  },
  async *responses(model) {
    for await (const event of await openai.responses.create({ model, input: "Hello!", stream: true })) {
      if (event.type === "response.output_text.delta") yield event.delta;
    }
  },
  async *messages(model) {
    for await (const event of anthropic.messages.stream({ model, messages, max_tokens: 50 })) {
      if (event.type === "content_block_delta") yield event.delta.text;
    }
  },
  async *nativeChat(model) {
    for await (const part of await ollama.chat({ model, messages, stream: true })) yield part.message.content;
  },
  async *nativeGenerate(model) {
    for await (const part of await ollama.generate({ model, prompt: "Hello!", stream: true })) yield part.response;
  },
};

const told = {};
for (const [way, ask] of Object.entries(ways)) {
  for (const backend of way === "completion" ? ["o", "l"] : ["o", "l", "c"]) {
    for (const name of ["breaks", "ends"]) {
      let text = "";
      try {
        for await (const piece of ask(`${backend}/${name}`)) text += piece ?? "";
        told[`${way} ${backend}/${name}`] = [text, "none", ""];
      } catch (error) {
        told[`${way} ${backend}/${name}`] = [text, error.constructor.name, error.message];
      }
    }
  }
}
console.log(JSON.stringify(told));
