// OpenAI's official JavaScript client has pictures made by a running gateway; prints what it saw as one JSON object.
//   node images.mjs http://127.0.0.1:PORT KEY
import OpenAI, { toFile } from "openai";

const [url, apiKey] = process.argv.slice(2);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const model = "gpt-image-1";
const told = {};
const failure = (asked) => asked.then(() => "no error", (error) => [error.constructor.name, error.status, error.param]);
const bytes = (text) => Buffer.from(text, "base64");
const isPng = (data) => data.subarray(1, 4).toString() === "PNG";

const one = await openai.images.generate({ prompt: "a red cube", model, size: "64x64", n: 2, seed: 7 });
told.pngs = one.data.map((image) => isPng(bytes(image.b64_json)));
told.seeds = one.data.map((image) => image.seed);
const png = bytes(one.data[0].b64_json);

const linked = await openai.images.generate({ prompt: "a red cube", model: "dall-e-3", seed: 7, size: "64x64" });
told.link = Buffer.from(await (await fetch(linked.data[0].url)).arrayBuffer()).subarray(1, 4).toString();

told.stream = [];
const stream = await openai.images.generate({ prompt: "x", model, stream: true, partial_images: 2 });
for await (const event of stream) told.stream.push([event.type, isPng(bytes(event.b64_json))]);

const file = () => toFile(png, "a.png", { type: "image/png" });
const edited = await openai.images.edit({
  image: await file(), mask: await file(), prompt: "blue", model, n: 1, seed: 3, loras: [{ name: "bright", weight: 0.5 }],
});
told.edit = edited.data[0].metadata;
told.editStream = [];
const changing = await openai.images.edit({ image: await file(), prompt: "blue", model, stream: true });
for await (const event of changing) told.editStream.push(event.type);
told.variation = (await openai.images.createVariation({ image: await file(), model })).data.length;

told.two = await failure(openai.images.edit({ image: [await file(), await file()], prompt: "blue", model }));
told.model = await failure(openai.images.generate({ prompt: "x", model: "gpt-image-9" }));
told.size = await failure(openai.images.generate({ prompt: "x", model, size: "7x7" }));
told.key = await failure(new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }).images.generate({ prompt: "x" }));
console.log(JSON.stringify(told));
