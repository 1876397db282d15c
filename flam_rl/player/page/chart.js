// The last steps as small charts: what heads predict, how likely the prior finds what is done, who is there.

const STEPS = 200;

export class Chart {
  constructor(canvas, text, colors) {
    this.canvas = canvas;
    this.text = text;
    this.colors = colors;
    this.rows = [];
  }

  add(state) {
    const last = this.rows.at(-1);
    if (last && state.step === last.step) return;
    while (this.rows.length && this.rows.at(-1).step >= state.step) this.rows.pop(); // undone, or begun anew
    this.rows.push(state);
    if (this.rows.length > STEPS) this.rows.shift();
  }

  draw(labels) {
    const { canvas, rows } = this;
    const scale = devicePixelRatio || 1;
    const width = (canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale)));
    const height = (canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale)));
    if (!rows.length) return;
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const soft = style.getPropertyValue("--soft");
    const line = style.getPropertyValue("--line");
    pen.font = `${11 * scale}px system-ui, sans-serif`;
    pen.lineWidth = 1.5 * scale;
    const lanes = [
      ...(labels ? [{ name: "reward", of: (row) => row.reward }, { name: "end", of: (row) => row.end, top: 1 }] : []),
      { name: "prior's likelihood", each: true, top: 1 },
      { name: "there", strips: true },
    ];
    const left = 8 * scale;
    const lane = height / lanes.length;
    const x = (i) => left + ((width - 2 * left) * i) / (STEPS - 1);
    lanes.forEach((kind, n) => {
      const top = n * lane + 16 * scale;
      const bottom = (n + 1) * lane - 6 * scale;
      pen.strokeStyle = line;
      pen.strokeRect(left, top, width - 2 * left, bottom - top);
      const title = (text) => ((pen.fillStyle = soft), pen.fillText(text, left, top - 4 * scale));
      if (kind.strips) return title(kind.name), this.#strips(pen, x, top, bottom);
      const values = kind.each ? rows.flatMap((row) => Object.values(row.likelihood)) : rows.map(kind.of);
      const low = Math.min(0, ...values);
      const high = kind.top ?? Math.max(low + 1e-6, 0.01, ...values);
      title(`${kind.name}, ${low.toFixed(low ? 2 : 0)} to ${high.toFixed(kind.top ? 0 : 2)}`);
      const y = (value) => bottom - ((bottom - top) * (value - low)) / (high - low);
      if (!kind.each) return this.#curve(pen, x, y, kind.of, style.getPropertyValue("--accent"));
      const indices = new Set(rows.flatMap((row) => Object.keys(row.likelihood)));
      for (const index of indices) this.#curve(pen, x, y, (row) => row.likelihood[index], this.colors(index));
    });
    this.text.textContent = this.#words(labels);
  }

  #curve(pen, x, y, of, color) {
    pen.strokeStyle = color;
    pen.beginPath();
    let down = false;
    this.rows.forEach((row, i) => {
      const value = of(row);
      if (value === undefined) return void (down = false);
      pen[down ? "lineTo" : "moveTo"](x(i), y(value));
      down = true;
    });
    pen.stroke();
  }

  #strips(pen, x, top, bottom) {
    const count = this.rows[0].presence.length;
    const high = (bottom - top) / count;
    this.rows.forEach((row, i) => {
      row.presence.forEach((there, k) => {
        if (!there) return;
        pen.fillStyle = this.colors(k);
        pen.fillRect(x(i), top + k * high + high * 0.15, x(1) - x(0) + 0.5, high * 0.7);
      });
    });
  }

  #words(labels) {
    const { rows } = this;
    const heads = labels
      ? `Predicted reward was at most ${Math.max(...rows.map((row) => row.reward)).toFixed(2)}, the chance of an end at most ${Math.max(...rows.map((row) => row.end)).toFixed(2)}. `
      : "";
    const shares = rows[0].presence.map((_, k) => rows.filter((row) => row.presence[k]).length / rows.length);
    return heads + "Of these steps, " + shares.map((share, k) => `factor ${k + 1} was there in ${Math.round(100 * share)}%`).join(", ") + ".";
  }
}
