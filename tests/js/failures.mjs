// What the official JavaScript clients make of failures; prints what they saw as one JSON object.
//   node failures.mjs http://127.0.0.1:PORT
import OpenAI from "openai";
import { Ollama } from "ollama";

const [url] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const ollama = new Ollama({ host: url });
const messages = [{ role: "user", content: "Hello!" }];
const told = { statuses: {} };

for (const backend of ["o", "l"]) {
  for (const status of [400, 401, 404, 413, 422, 429, 500, 503, 504]) {
    const model = `${backend}/s${status}`;
    told.statuses[model] = await openai.chat.completions
      .create({ model, messages })
      .catch((error) => [error.constructor.name, error.status]);
  }
  for (const name of ["breaks", "ends"]) {
    const model = `${backend}/${name}`;
    let text = "";
    try {
      for await (const chunk of await openai.chat.completions.create({ model, messages, stream: true })) {
        text += chunk.choices[0]?.delta?.content ?? "";
      }
    } catch (error) {
      told[model] = [text, error.constructor.name, error.code, error.message];
    }
    text = "";
    try {
      for await (const part of await ollama.chat({ model, messages, stream: true })) text += part.message.content;
    } catch (error) {
      told[`ollama ${model}`] = [text, error.message];
    }
  }
}
told["ollama none"] = await ollama.chat({ model: "none", messages }).catch((error) => [error.status_code, error.message]);
console.log(JSON.stringify(told));
