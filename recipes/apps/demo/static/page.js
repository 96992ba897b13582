// The page: tabs, forms, and what the server answers them, event by event (see actions.py).
import { Player, wavFile } from "./player.js";

const rate = Number(document.body.dataset.rate);
const PREVIEW = "Hello, this is how I sound.";

// ---- Tabs

const tabs = [...document.querySelectorAll("[role=tab]")];

function show(tab) {
  for (const other of tabs) {
    other.setAttribute("aria-selected", other === tab);
    other.tabIndex = other === tab ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
  Player.pauseAll();
}

for (const [number, tab] of tabs.entries()) {
  tab.onclick = () => show(tab);
  tab.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs.at((number + step) % tabs.length);
    show(next);
    next.focus();
  };
}

// ---- Requests

/** The objects of a response of JSON lines, as they come. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    yield* lines.map((line) => JSON.parse(line));
  }
}

/** A form with its result: one request at a time, which can be stopped. */
class Desk {
  constructor(form) {
    this.form = form;
    this.submit = form.querySelector("[type=submit]");
    this.stop = form.querySelector(".stop");
    this.name = this.submit.textContent;
    this.result = document.getElementById("result").content.cloneNode(true).firstElementChild;
    form.after(this.result);
    this.player = new Player(this.result.querySelector(".player"), rate);
    form.onsubmit = (event) => {
      event.preventDefault();
      this.run(new FormData(form));
    };
    this.stop.onclick = () => this.request.abort();
  }

  say(where, text) {
    this.result.querySelector(where).textContent = text;
  }

  /** What the button says while it is out of use; "" when it is in use again. It stays in the tab order all along. */
  wait(text) {
    this.busy = text !== "";
    this.submit.textContent = text || this.name;
    this.submit.ariaDisabled = String(this.busy);
    this.stop.disabled = !this.busy;
    this.form.dispatchEvent(new Event("wait"));
  }

  /** Send the fields and show what comes back, in place of what was there. */
  async run(fields) {
    if (this.busy) return;
    this.wait("Working …");
    this.request = new AbortController();
    for (const where of [".error", ".progress"]) this.say(where, "");
    this.say(".status", "Working …");
    this.result.querySelector(".facts").hidden = true;
    this.player.clear(this.form.getAttribute("action") === "speak");
    try {
      const options = { method: "POST", body: fields, signal: this.request.signal };
      const response = await fetch(this.form.action, options);
      if (!response.ok) throw new Error((await response.json()).error);
      for await (const event of events(response)) this.heed(event);
      if (!this.ended) throw new Error("The server ended too early.");
    } catch (error) {
      if (error.name === "AbortError") this.say(".status", "Stopped.");
      else this.fail(error instanceof TypeError ? "The server cannot be reached." : error.message);
    }
    this.ended = false;
    this.say(".progress", "");
    this.player.finish();
    this.wait("");
  }

  fail(message) {
    this.say(".status", "");
    this.say(".error", message[0].toUpperCase() + message.slice(1));
    this.player.clear(false);
    this.ended = true;
  }

  heed(event) {
    if (event.queue) {
      this.say(".status", `You are number ${event.queue} in the queue.`);
      this.wait(`Waiting: number ${event.queue}`);
      this.queued = true;
      return;
    }
    if (this.queued) {
      this.queued = false;
      this.say(".status", "Working …");
      this.wait("Working …");
    }
    if (event.track) this.player.add(event);
    if (event.progress) this.say(".progress", event.progress);
    if (event.facts) this.tell(event.facts);
    if (event.error) this.fail(event.error);
    if (event.status) {
      this.say(".status", event.status);
      this.ended = true;
    }
  }

  tell(facts) {
    const table = this.result.querySelector(".facts");
    table.replaceChildren();
    for (const [what, much] of facts) {
      const row = table.insertRow();
      row.append(Object.assign(document.createElement("th"), { scope: "row", textContent: what }));
      row.insertCell().textContent = much;
    }
    table.hidden = false;
  }
}

const desks = [...document.forms].map((form) => new Desk(form));

// ---- Speak

const [speaking] = desks;
const text = document.getElementById("text");
const counter = document.getElementById("counter");
const shortcuts = document.querySelectorAll(".sentence, .preview");

function count() {
  const most = Number(counter.dataset.most);
  const there = [...text.value.replaceAll("\r\n", "\n")].length;
  const over = there > most ? `, ${(there - most).toLocaleString("en")} too many` : "";
  counter.textContent = `${there.toLocaleString("en")} of ${most.toLocaleString("en")} characters${over}`;
  counter.classList.toggle("over", over !== "");
  text.ariaInvalid = String(over !== "");
  text.setCustomValidity(over ? `The text is longer than ${most} characters.` : text.value.trim() ? "" : "Write a text first.");
}

text.oninput = count;
text.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  speaking.form.requestSubmit();
};
count();

for (const button of document.querySelectorAll(".sentence")) {
  button.onclick = () => {
    if (speaking.busy) return;
    text.value = button.textContent;
    count();
    speaking.form.requestSubmit();
  };
}
for (const button of document.querySelectorAll(".preview")) {
  button.onclick = () => {
    const fields = new FormData(speaking.form);
    fields.set("text", PREVIEW);
    fields.set("voice", button.dataset.voice);
    fields.delete("recording");
    speaking.run(fields);
  };
}
speaking.form.addEventListener("wait", () => {
  for (const button of shortcuts) button.ariaDisabled = String(speaking.busy);
});

// ---- Recordings

for (const recorder of document.querySelectorAll(".recorder")) {
  const file = recorder.querySelector("input");
  const player = recorder.querySelector("audio");
  const take = (taken) => {
    const files = new DataTransfer();
    files.items.add(taken);
    file.files = files.files;
    file.onchange();
  };
  file.onchange = () => {
    URL.revokeObjectURL(player.src);
    player.hidden = !file.files.length;
    if (file.files.length) player.src = URL.createObjectURL(file.files[0]);
  };
  const example = recorder.querySelector(".example");
  if (example) {
    example.onclick = async () => take(new File([await (await fetch("example.flac")).blob()], "example.flac"));
  }
  const button = recorder.querySelector(".record");
  button.hidden = !navigator.mediaDevices; // only where the page's address is safe
  let microphone = null;
  button.onclick = async () => {
    if (microphone) {
      microphone.stop();
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      microphone = new MediaRecorder(stream);
      const pieces = [];
      microphone.ondataavailable = (event) => pieces.push(event.data);
      microphone.onstop = async () => {
        microphone = null;
        button.textContent = "Record";
        for (const track of stream.getTracks()) track.stop();
        const sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await new Blob(pieces).arrayBuffer());
        take(new File([wavFile(sound.getChannelData(0), rate)], "microphone.wav"));
      };
      microphone.start();
      button.textContent = "Stop recording";
    } catch {
      button.textContent = "No microphone";
    }
  };
}
