// A player of one or more tracks: words, tokens and spectrogram on one axis of time. Tracks may still grow.

const SECOND = 200; // pixels
const CHIPS = 22, MOST_ROWS = 8, GAP = 12, SPECTRUM = 180, TICKS = 22; // pixels, from above
const FFT = 1024, COLUMN = 100; // samples; columns a second
const HIGHEST = 8000; // Hz
const LOUDEST = -15, QUIETEST = -85; // dB of a full-scale sine wave
const ROW = 48; // pixels of a row of words

let context = null; // made at the first click: before, browsers keep it silent
const players = [];

export class Player {
  /** Of the markup in the page, for samples at `rate` Hz. */
  constructor(root, rate) {
    this.root = root;
    this.rate = rate;
    this.find = (where) => root.querySelector(where);
    this.canvas = this.find("canvas");
    this.scroll = this.find(".scroll");
    this.timeline = this.find(".timeline");
    this.window = Float64Array.from({ length: FFT }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / FFT));
    this.find(".play").onclick = () => (this.playing ? this.pause() : this.play());
    this.find(".download").onclick = () => this.download();
    this.scroll.onscroll = () => this.draw();
    this.timeline.onkeydown = (event) => this.key(event);
    this.timeline.onclick = (event) => this.seek(this.secondAt(event));
    this.timeline.onpointermove = (event) => this.read(event);
    new ResizeObserver(() => this.draw()).observe(this.scroll);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    players.push(this);
    this.clear(false);
  }

  static pauseAll() {
    for (const player of players) player.pause();
  }

  /** Forget everything; `live`: what comes is played at once. */
  clear(live) {
    if (this.track) this.pause();
    this.tracks = [];
    this.track = null;
    this.growing = true;
    this.live = live;
    this.rest = 0; // seconds: where it stands when it does not play
    this.root.hidden = true;
    this.scroll.scrollLeft = 0;
    this.find(".switch").hidden = true;
    this.find(".switch").replaceChildren(this.find(".switch legend"));
    this.find(".words").replaceChildren();
    if (live) context ??= new AudioContext(); // in the handler of the click
  }

  /** Take an event with the next piece of a track. */
  add({ track: name, audio, tokens, words, seam }) {
    let track = this.tracks.find((other) => other.name === name);
    if (!track) {
      track = { name, samples: new Float32Array(0), tokens: tokens.map(() => []), words: [], columns: [] };
      this.tracks.push(track);
      this.offer(track);
    }
    track.samples = joined(track.samples, decoded(audio));
    tokens.forEach((row, number) => track.tokens[number].push(...row));
    track.words.push(...words);
    track.seam = seam;
    this.track ??= track;
    if (track !== this.track) return;
    const isNew = this.root.hidden;
    this.root.hidden = false;
    this.lay();
    if (isNew) {
      if (seam) this.scroll.scrollLeft = seam * SECOND - this.scroll.clientWidth / 2;
      this.root.scrollIntoView({ block: "nearest" });
    }
    if (this.playing) this.feed();
    else if (this.live) {
      this.live = false; // who pauses it means it
      this.play();
    }
  }

  /** Nothing more comes. */
  finish() {
    this.growing = false;
    this.draw();
  }

  get seconds() {
    return this.track ? this.track.samples.length / this.rate : 0;
  }

  /** Where it stands, in seconds. */
  get place() {
    return this.playing ? Math.max(this.from, Math.min(context.currentTime - this.origin, this.queued)) : this.rest;
  }

  // ---- Sound

  play(from = this.place) {
    for (const player of players) player.pause();
    context ??= new AudioContext();
    context.resume();
    this.from = this.queued = from >= this.seconds - 0.01 && !this.growing ? 0 : from;
    this.origin = context.currentTime - this.queued; // the time at which second 0 would have been heard
    this.sources = [];
    this.playing = this.begins = true;
    this.feed();
    this.find(".play").textContent = "❚❚";
    this.find(".play").ariaLabel = "Pause";
    this.update();
    requestAnimationFrame(() => this.tick());
  }

  /** Queue the samples that have come since. If they came late, everything after is late too. */
  feed() {
    const next = this.track.samples.subarray(Math.round(this.queued * this.rate));
    if (!next.length) return;
    this.origin = Math.max(this.origin, context.currentTime - this.queued);
    const buffer = context.createBuffer(1, next.length, this.rate);
    buffer.copyToChannel(next, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.start(this.origin + this.queued);
    this.sources.push(source);
    this.queued = this.seconds;
  }

  pause() {
    if (!this.playing) return;
    this.rest = this.place;
    this.playing = false;
    for (const source of this.sources) source.stop();
    this.find(".play").textContent = "▶";
    this.find(".play").ariaLabel = "Play";
    this.update();
  }

  tick() {
    if (!this.playing) return;
    if (!this.growing && this.place >= this.seconds - 1e-3) this.pause();
    else requestAnimationFrame(() => this.tick());
    this.update();
  }

  seek(second) {
    this.rest = Math.max(0, Math.min(second, this.seconds));
    if (this.playing) this.play(this.stopped(this.rest));
    this.update();
  }

  /** Stop what sounds, so that it can go on from `second`. */
  stopped(second) {
    this.pause();
    this.rest = second;
    return second;
  }

  /** Go over to another track, at the same place. */
  select(track) {
    const { playing, place } = this;
    this.pause();
    this.track = track;
    this.rest = Math.min(place, this.seconds);
    this.lay();
    if (playing) this.play();
  }

  download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([wavFile(this.track.samples, this.rate)], { type: "audio/wav" }));
    link.download = `${this.track.name.toLowerCase()}.wav`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  key(event) {
    const to = { ArrowLeft: this.place - 0.25, ArrowRight: this.place + 0.25, Home: 0, End: this.seconds }[event.key];
    if (to !== undefined) this.seek(to);
    else if (event.key === " ") this.find(".play").click();
    else return;
    event.preventDefault();
  }

  // ---- Picture

  secondAt(event) {
    return (event.clientX - this.timeline.getBoundingClientRect().left) / SECOND;
  }

  /** One more track to choose from. */
  offer(track) {
    const choice = document.createElement("label");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: `track-${players.indexOf(this)}`, checked: this.tracks.length === 1 });
    radio.onchange = () => this.select(track);
    choice.append(radio, track.name);
    this.find(".switch").append(choice);
    this.find(".switch").hidden = this.tracks.length < 2;
  }

  /** Words at their times, each in the highest row where it has room; then the rest. */
  lay() {
    const { track } = this;
    const list = this.find(".words");
    const ends = []; // of the rows, in pixels
    if (!list.childElementCount || list.track !== track) list.replaceChildren();
    list.track = track;
    track.words.forEach(([text, start], number) => {
      let item = list.children[number];
      if (!item) {
        item = document.createElement("li");
        const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
        button.onclick = () => this.play(this.stopped(start + 1e-3));
        item.append(button);
        list.append(item);
      }
      const left = Math.round(start * SECOND);
      let row = ends.findIndex((end) => end <= left);
      if (row < 0) row = ends.length;
      ends[row] = left + item.offsetWidth + 4;
      item.style.translate = `${left}px ${row * ROW}px`;
    });
    const width = Math.max(this.seconds * SECOND, ...ends);
    list.style.height = `${ends.length * ROW}px`;
    list.style.width = this.timeline.style.width = `${Math.ceil(width)}px`;
    const rows = Math.min(track.tokens.length, MOST_ROWS);
    this.top = rows * CHIPS + GAP; // of the spectrogram
    this.height = this.top + SPECTRUM + TICKS;
    this.timeline.style.height = `${this.height}px`;
    this.find(".line").style.height = `${this.top + SPECTRUM}px`;
    this.name();
    this.draw();
    this.update();
  }

  /** The axis beside the picture. */
  name() {
    const most = Math.min(HIGHEST, this.rate / 2);
    const marks = [["Tokens", (this.top - GAP) / 2]];
    for (let hertz = 0; hertz <= most; hertz += 2000) marks.push([`${hertz} Hz`, this.top + SPECTRUM * (1 - hertz / most)]);
    const axis = this.find(".axis");
    axis.style.top = this.find(".words").style.height;
    axis.replaceChildren(
      ...marks.map(([textContent, top]) => {
        const mark = Object.assign(document.createElement("span"), { textContent });
        mark.style.top = `${top}px`;
        return mark;
      }),
    );
  }

  /** What changes while it plays: the time, the word, the line. */
  update() {
    if (!this.track) return;
    const { place, seconds } = this;
    this.find(".time").textContent = `${place.toFixed(1)} / ${seconds.toFixed(1)} s`;
    this.timeline.ariaValueNow = place.toFixed(2);
    this.timeline.ariaValueMax = seconds.toFixed(2);
    this.timeline.ariaValueText = `${place.toFixed(1)} of ${seconds.toFixed(1)} seconds`;
    [...this.find(".words").children].forEach((item, number) => {
      const [, start, end] = this.track.words[number];
      item.firstChild.classList.toggle("now", start <= place && place < end && (this.playing || place > 0));
    });
    const x = place * SECOND, left = this.scroll.scrollLeft, view = this.scroll.clientWidth;
    const within = (line) => line >= left && line <= left + 0.9 * view;
    // the picture follows the line, unless somebody looks elsewhere meanwhile
    if (this.playing && !within(x) && (this.begins || within(this.line))) this.scroll.scrollLeft = x - 0.1 * view;
    this.begins = false;
    this.line = x;
    this.find(".line").style.translate = `${x - 1}px`;
  }

  /** The part that is in view. */
  draw() {
    if (!this.track || !this.scroll.clientWidth) return;
    const { track, canvas, scroll } = this;
    const width = scroll.clientWidth, left = scroll.scrollLeft, scale = devicePixelRatio;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(this.height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(this.height * scale);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${this.height}px`;
    }
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(this.root);
    const ink = style.color;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, this.height);
    this.drawTokens(pen, left, width);
    this.drawSpectrum(pen, left, width, ink);
    pen.fillStyle = ink;
    pen.font = `13px ${style.fontFamily}`;
    for (let tick = Math.ceil((left - 40) / SECOND / 0.5) * 0.5; tick * SECOND < left + width; tick += 0.5) {
      if (tick < 0 || tick > this.seconds) continue;
      const x = tick * SECOND - left;
      pen.fillRect(x, this.top + SPECTRUM, 1, 5);
      pen.textAlign = tick ? "center" : "left";
      pen.fillText(`${tick} s`, x, this.height - 3);
    }
    if (track.seam !== undefined) {
      pen.fillStyle = style.accentColor;
      for (let y = 0; y < this.top + SPECTRUM; y += 10) pen.fillRect(track.seam * SECOND - left - 1.5, y, 3, 6);
    }
  }

  drawTokens(pen, left, width) {
    this.track.tokens.slice(0, MOST_ROWS).forEach((row, number) => {
      const chip = (SECOND * this.seconds) / row.length;
      const first = Math.max(0, Math.floor(left / chip)), last = Math.min(row.length, Math.ceil((left + width) / chip));
      for (let frame = first; frame < last; frame++) {
        pen.fillStyle = `oklab(0.72 ${row[frame][1]})`;
        pen.beginPath();
        pen.roundRect(frame * chip - left + 0.5, number * CHIPS, Math.max(chip - 1, 1), CHIPS - 2, 3);
        pen.fill();
      }
    });
  }

  drawSpectrum(pen, left, width, ink) {
    const first = Math.max(0, Math.floor((left / SECOND) * COLUMN));
    const ready = this.growing ? this.seconds - FFT / this.rate : this.seconds; // a column sees the samples around it
    const last = Math.min(Math.ceil(((left + width) / SECOND) * COLUMN), Math.ceil(ready * COLUMN));
    const bins = Math.floor((Math.min(HIGHEST, this.rate / 2) * FFT) / this.rate);
    if (last <= first) return;
    const picture = new ImageData(last - first, bins);
    const dots = new Uint32Array(picture.data.buffer); // alpha, blue, green, red
    const [red, green, blue] = ink.match(/[\d.]+/g).map(Number);
    const color = red | (green << 8) | (blue << 16);
    for (let column = first; column < last; column++) {
      const levels = this.column(column, bins);
      for (let bin = 0; bin < bins; bin++) {
        dots[(bins - 1 - bin) * (last - first) + column - first] = color | (levels[bin] << 24);
      }
    }
    const sheet = new OffscreenCanvas(last - first, bins);
    sheet.getContext("2d").putImageData(picture, 0, 0);
    const step = SECOND / COLUMN;
    pen.drawImage(sheet, first * step - left, this.top, (last - first) * step, SPECTRUM);
  }

  /** Levels from 0 to 255 of the frequencies around a column's time. */
  column(number, bins) {
    const { samples, columns } = this.track;
    if (columns[number]) return columns[number];
    const real = new Float64Array(FFT), imaginary = new Float64Array(FFT);
    const start = Math.round((number * this.rate) / COLUMN) - FFT / 2;
    for (let n = 0; n < FFT; n++) real[n] = (samples[start + n] ?? 0) * this.window[n];
    transform(real, imaginary);
    const levels = new Uint8ClampedArray(bins);
    for (let bin = 0; bin < bins; bin++) {
      const decibels = 20 * Math.log10((4 * Math.hypot(real[bin], imaginary[bin])) / FFT + 1e-9);
      levels[bin] = (255 * (decibels - QUIETEST)) / (LOUDEST - QUIETEST);
    }
    return (columns[number] = levels);
  }

  /** Say what is under the pointer. */
  read(event) {
    const second = this.secondAt(event), frames = this.track.tokens[0]?.length ?? 0;
    const frame = Math.floor((second / this.seconds) * frames);
    if (frame < 0 || frame >= frames) return;
    const numbers = this.track.tokens.map((row) => row[frame][0]).join(", ");
    const up = 1 - (event.clientY - this.timeline.getBoundingClientRect().top - this.top) / SPECTRUM;
    const hertz = up >= 0 && up <= 1 ? ` · ${Math.round(up * Math.min(HIGHEST, this.rate / 2))} Hz` : "";
    this.find(".reading").textContent = `${second.toFixed(2)} s · token ${numbers}${hertz}`;
  }
}

/** Fourier transform in place, of a length that is a power of 2 (Cooley and Tukey). */
export function transform(real, imaginary) {
  const size = real.length;
  for (let n = 1, reversed = 0; n < size; n++) {
    let bit = size >> 1;
    for (; reversed & bit; bit >>= 1) reversed ^= bit;
    reversed ^= bit;
    if (n < reversed) {
      [real[n], real[reversed]] = [real[reversed], real[n]];
      [imaginary[n], imaginary[reversed]] = [imaginary[reversed], imaginary[n]];
    }
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const cos = Math.cos((Math.PI * k) / half), sin = -Math.sin((Math.PI * k) / half);
      for (let even = k; even < size; even += 2 * half) {
        const odd = even + half;
        const re = real[odd] * cos - imaginary[odd] * sin, im = real[odd] * sin + imaginary[odd] * cos;
        real[odd] = real[even] - re;
        imaginary[odd] = imaginary[even] - im;
        real[even] += re;
        imaginary[even] += im;
      }
    }
  }
}

function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (sample) => sample / 32767);
}

function joined(one, other) {
  const both = new Float32Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

/** Samples as the bytes of a mono WAV of 16 bits. */
export function wavFile(samples, rate) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const letters = (at, text) => [...text].forEach((letter, n) => bytes.setUint8(at + n, letter.charCodeAt(0)));
  letters(0, "RIFF");
  letters(8, "WAVEfmt ");
  letters(36, "data");
  for (const [at, number] of [[4, 36 + 2 * samples.length], [16, 16], [24, rate], [28, 2 * rate], [40, 2 * samples.length]]) {
    bytes.setUint32(at, number, true);
  }
  for (const [at, number] of [[20, 1], [22, 1], [32, 2], [34, 16]]) bytes.setUint16(at, number, true);
  samples.forEach((sample, n) => bytes.setInt16(44 + 2 * n, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true));
  return bytes.buffer;
}
