// The helpers of the official JavaScript clients, by every way to the demo model; prints what they saw as one JSON object.
//   node able.mjs http://127.0.0.1:PORT RED_PNG_IN_BASE64 MODEL...
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { Ollama } from "ollama";
import { z } from "zod";

const [url, red, ...models] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
const ollama = new Ollama({ host: url });
const options = { temperature: 0 };
const user = (content) => [{ role: "user", content }];
const anna = user("Give me JSON with name Anna, age 30, city Paris.");
const weather = user("What is the weather in Paris?");
const color = "What color is the image?";
const Person = z.object({ name: z.string(), age: z.number().int(), city: z.string() });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tool = { type: "function", function: { name: "get_weather", description: "Weather", parameters } };
const tell = ({ city }) => (city === "Paris" ? "sunny" : "unknown");

const abilities = {
  async chatParse(model) {
    const response_format = zodResponseFormat(Person, "person");
    return (await openai.chat.completions.parse({ model, messages: anna, temperature: 0, response_format })).choices[0].message.parsed;
  },
  async chatImage(model) {
    const content = [{ type: "image_url", image_url: { url: `data:image/png;base64,${red}` } }, { type: "text", text: color }];
    return (await openai.chat.completions.create({ model, messages: user(content), temperature: 0 })).choices[0].message.content;
  },
  async responsesParse(model) {
    const told = await openai.responses.parse({ model, input: anna, temperature: 0, store: false, text: { format: zodTextFormat(Person, "person") } });
    return told.output_parsed;
  },
  async messagesParse(model) {
    const told = await anthropic.messages.parse({ model, max_tokens: 200, temperature: 0, messages: anna, output_config: { format: zodOutputFormat(Person) } });
    return told.parsed_output;
  },
  async messagesRunner(model) {
    const tools = [betaZodTool({ name: "get_weather", description: "Weather", inputSchema: z.object({ city: z.string() }), run: tell })];
    const told = [];
    for (const stream of [false, true]) {
      const end = await anthropic.beta.messages.toolRunner({ model, max_tokens: 200, temperature: 0, messages: weather, tools, stream }).runUntilDone();
      told.push(end.content[0].text);
    }
    return told;
  },
  async messagesImage(model) {
    const image = { type: "image", source: { type: "base64", media_type: "image/png", data: red } };
    return (await anthropic.messages.create({ model, max_tokens: 200, temperature: 0, messages: user([image, { type: "text", text: color }]) })).content[0].text;
  },
  async nativeTools(model) {
    let call;
    for await (const part of await ollama.chat({ model, messages: weather, tools: [tool], options, stream: true })) call ??= part.message.tool_calls?.[0];
    const back = { role: "tool", tool_name: "get_weather", content: tell(call.function.arguments) };
    const messages = [...weather, { role: "assistant", content: "", tool_calls: [call] }, back];
    return [call.function.name, (await ollama.chat({ model, messages, tools: [tool], options })).message.content];
  },
  async nativeFormat(model) {
    const format = z.toJSONSchema(Person);
    let text = "";
    for await (const part of await ollama.chat({ model, messages: anna, format, options, stream: true })) text += part.message.content;
    return [JSON.parse(text), JSON.parse((await ollama.generate({ model, prompt: anna[0].content, format, options })).response)];
  },
  async nativeThink(model) {
    const { message } = await ollama.chat({ model, messages: user("What is 7 + 8?"), think: "low", options });
    return [message.thinking, message.content];
  },
  async nativeImage(model) {
    const bytes = new Uint8Array(Buffer.from(red, "base64"));
    const chat = await ollama.chat({ model, messages: [{ role: "user", content: color, images: [bytes] }], options });
    return [chat.message.content, (await ollama.generate({ model, prompt: color, images: [red], options })).response];
  },
  async nativeAbort(model) {
    const stream = await ollama.chat({ model, messages: user("Tell me a story."), options, stream: true });
    try {
      for await (const _ of stream) stream.abort();
    } catch (error) {
      return error.name;
    }
  },
};

const told = {};
for (const model of models) {
  told[model] = {};
  for (const [name, ability] of Object.entries(abilities)) {
    told[model][name] = await ability(model).catch((error) => `${error.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(told));
