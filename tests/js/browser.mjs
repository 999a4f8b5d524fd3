// A real browser for all tests of pages. A line on standard input: {page, script, given}, a page to open and what to run in it;
// a line on standard output: {value} or {error}, and {seen}: what was answered, also where the page learns nothing of it.
//   node browser.mjs CHROMIUM [FLAG...]
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [executablePath, ...args] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args });
const context = await browser.newContext();
const pages = new Map(); // one an address: to open it takes half a second
let seen = [];

async function opened(address) {
  if (!pages.has(address)) {
    const page = await context.newPage();
    page.on("response", (answer) => seen.push([answer.request().method(), answer.url(), answer.status()]));
    await page.goto(address);
    pages.set(address, page);
  }
  return pages.get(address);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { page: address, script, given } = JSON.parse(line);
  let told;
  seen = [];
  try {
    const page = await opened(address);
    told = { value: await page.evaluate(`(async (given) => {${script}})(${JSON.stringify(given)})`) };
  } catch (error) {
    told = { error: String(error) };
  }
  console.log(JSON.stringify({ ...told, seen }));
}
await browser.close();
