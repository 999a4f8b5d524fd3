// What a page of an application does with its server, told as plain values: tests/browser.py serves it to real pages.

// One request and all that the page may know of its answer; "refused": the browser gave the page nothing.
async function call(url, init) {
  try {
    const answer = await fetch(url, init);
    return { status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
  } catch (error) {
    return { refused: error.name };
  }
}

function post(body, more = {}) {
  return { method: "POST", body: JSON.stringify(body), ...more };
}

// The events of a stream, cut as the standard says: lines of data are joined by line ends, a blank line ends an event.
async function events(url, init) {
  const answer = await fetch(url, init);
  const found = [];
  let rest = "", data = [];
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line === "" && data.length) found.push(data.splice(0).join("\n"));
    }
  }
  return { status: answer.status, headers: Object.fromEntries(answer.headers), events: found, rest };
}
