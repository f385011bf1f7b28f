"use strict";
// Draws the report's charts and pages its table. All text goes in by textContent, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { specs, trials, states, roles } = data;
  const SVG = "http://www.w3.org/2000/svg";
  const PAD = { left: 56, right: 20, top: 30, bottom: 48 };
  const COSTS = data.objectives.slice(1);
  const { costs } = data;  // by name: how each is titled and written
  const COMPLETE = states.indexOf("COMPLETE"), SEARCH = roles.indexOf("search");

  const byId = (id) => document.getElementById(id);

  function element(parent, name, attributes = {}, text = null) {
    const node = parent.namespaceURI === SVG || name === "svg"
      ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== null) node.textContent = text;
    parent.append(node);
    return node;
  }

  // Numbers

  function quantity(count, more = 0) {
    for (const [suffix, factor] of [["", 1], [" k", 1e3], [" M", 1e6], [" G", 1e9], [" T", 1e12]]) {
      const value = count / factor;
      if (value < 999.5 || suffix === " T") {
        const digits = suffix === "" ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
        return value.toFixed(digits + more) + suffix;
      }
    }
  }
  // Tick labels drop the zeros that a table keeps: 1.5 M, not 1.50 M.
  const short = (count, more = 0) => quantity(count, more).replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "");
  function cost(name, value) {
    if (value === null) return "";
    const { symbol, scaled } = costs[name];
    const text = scaled ? quantity(value) : value.toFixed(2);
    return symbol ? text + (scaled && text.includes(" ") ? "" : " ") + symbol : text;
  }
  function accuracy(point) {
    const error = point.top1_standard_error;
    return point.top1.toFixed(3) + (error === null ? "" : " ± " + error.toFixed(3));
  }

  function ticks(low, high, about) {
    const rough = (high - low) / about || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step);
    return found;
  }

  // Labels with as many more digits as tell them apart.
  function tickLabels(values, label) {
    for (let more = 0; more < 9; more++) {
      const found = values.map((value) => label(value, more));
      if (more === 8 || new Set(found).size === found.length) return found;
    }
  }

  // A frame with axes; gives back the svg, the scales and its right end.
  function frame(host, shape, x, y) {
    host.replaceChildren();
    // As many units as pixels, so that letters are as large on a telephone.
    const width = Math.max(300, Math.round(host.clientWidth)), end = width - PAD.right;
    const height = Math.round(Math.max(shape.least, width * shape.ratio));
    const svg = element(host, "svg", {
      viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${y.title} against ${x.title}`,
    });
    const scale = (axis, from, to) => (value) =>
      from + (value - axis.low) / (axis.high - axis.low || 1) * (to - from);
    const sx = scale(x, PAD.left, end);
    const sy = scale(y, height - PAD.bottom, PAD.top);
    const rows = ticks(y.low, y.high, 5), beside = tickLabels(rows, y.label);
    rows.forEach((tick, i) => {
      element(svg, "line", {
        class: "grid", x1: PAD.left, x2: end, y1: sy(tick), y2: sy(tick),
      });
      element(svg, "text", { x: PAD.left - 8, y: sy(tick) + 4, "text-anchor": "end" }, beside[i]);
    });
    const columns = ticks(x.low, x.high, width / 130), below = tickLabels(columns, x.label);
    columns.forEach((tick, i) => element(svg, "text", {
      x: sx(tick), y: height - PAD.bottom + 20, "text-anchor": "middle",
    }, below[i]));
    element(svg, "text", {
      class: "title", x: end, y: height - 8, "text-anchor": "end",
    }, x.title);
    element(svg, "text", { class: "title", x: 0, y: 10 }, y.title);
    return { svg, sx, sy, end };
  }

  // Labels beside marks

  // Puts each label where it covers no mark and no other label; earlier ones choose first. One that has no
  // such place is left to the tip, unless it must be read.
  function placeLabels(svg, labels, marks, end) {
    const bottom = svg.viewBox.baseVal.height - PAD.bottom;
    const taken = marks.map(({ x, y, r }) => [x - r, y - r, x + r, y + r]);
    const overlap = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]))
      * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
    for (const { x, y, text, must } of labels) {
      const node = element(svg, "text", { class: "mark" }, text);
      const wide = node.getComputedTextLength();
      let best = null;
      for (const [left, base] of [
        [x + 12, y + 4], [x - 12 - wide, y + 4], [x - wide / 2, y - 13], [x - wide / 2, y + 22],
        [x + 9, y - 9], [x - 9 - wide, y - 9], [x + 9, y + 18], [x - 9 - wide, y + 18],
      ]) {
        const box = [left - 2, base - 11, left + wide + 2, base + 4];
        const outside = Math.max(0, PAD.left - box[0]) + Math.max(0, box[2] - end)
          + Math.max(0, 2 - box[1]) + Math.max(0, box[3] - bottom);
        const covered = 1000 * outside + taken.reduce((sum, other) => sum + overlap(box, other), 0);
        if (best === null || covered < best.covered) best = { left, base, box, covered };
        if (covered === 0) break;
      }
      if (best.covered > 0 && !must) { node.remove(); continue; }
      node.setAttribute("x", best.left);
      node.setAttribute("y", best.base);
      taken.push(best.box);
    }
  }

  // The tip

  const tip = byId("tip");
  function showTip(event, lines) {
    tip.replaceChildren();
    lines.forEach((line, i) => element(tip, i ? "span" : "b", {}, line));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, window.innerWidth - box.width - 8);
    const y = event.clientY + 14 + box.height > window.innerHeight
      ? event.clientY - box.height - 14 : event.clientY + 14;
    tip.style.left = `${Math.max(8, x)}px`;
    tip.style.top = `${Math.max(8, y)}px`;
  }
  const hideTip = () => { tip.hidden = true; };

  // Accuracy against cost

  const points = [];  // complete search trials
  for (let i = 0; i < trials.number.length; i++) {
    if (trials.state[i] === COMPLETE && trials.role[i] === SEARCH) points.push(i);
  }
  const trialCost = (name, i) => specs[name][trials.spec[i]];
  // Extremes in a loop: spreading 50,000 numbers into Math.min would fill the stack.
  function extremes(values) {
    let low = Infinity, high = -Infinity;
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return [low, high];
  }

  function drawFront(name) {
    const host = byId("front-chart");
    if (!points.length) {
      host.textContent = "No trial is complete yet.";
      return;
    }
    const { baseline } = data;
    // A start whose cost is not known has no place on this axis.
    const start = (data.start?.[name] ?? null) === null ? null
      : { ...data.start, top1_standard_error: null };
    // Networks made by hand whose cost is known on this axis.
    const byHand = data.baselines.filter((p) => (p[name] ?? null) !== null);
    const marked = [...data.front, ...byHand, baseline, start].filter(Boolean);
    const errorOf = (p) => p.top1_standard_error ?? 0;
    const [x0, x1] = extremes([
      ...points.map((i) => trialCost(name, i)), ...byHand.map((p) => p[name]),
      ...(start ? [start[name]] : []),
    ]);
    const [y0, y1] = extremes([
      ...points.map((i) => trials.top1[i]),
      ...marked.flatMap((p) => [p.top1 - errorOf(p), p.top1 + errorOf(p)]),
    ]);
    const mx = (x1 - x0) * 0.06 || x1 * 0.1 || 1, my = (y1 - y0) * 0.08 || 0.02;
    const { svg, sx, sy, end } = frame(host, { ratio: 0.44, least: 280 },
      { low: Math.max(0, x0 - mx), high: x1 + mx, title: costs[name].label,
        label: costs[name].scaled ? short : (v) => String(+v.toPrecision(6)) },
      { low: Math.max(0, y0 - my), high: Math.min(1, y1 + my), title: data.quality,
        label: (v, more) => v.toFixed(3 + more).replace(/0$/, "") });

    // One path for all trials; those that fall on one another's pixel are drawn once.
    const drawn = new Set();
    for (const i of points) {
      drawn.add(`M${sx(trialCost(name, i)).toFixed(0)} ${sy(trials.top1[i]).toFixed(0)}h0`);
    }
    const cloud = element(svg, "path", { class: "cloud", d: [...drawn].join("") });
    if (drawn.size > 2000) cloud.style.strokeWidth = "3";

    const front = [...data.front].sort((a, b) => a[name] - b[name]);
    if (COSTS.length === 1 && front.length) {
      const steps = front.map((p, i) =>
        i ? `H${sx(p[name])}V${sy(p.top1)}` : `M${sx(p[name])} ${sy(p.top1)}`);
      element(svg, "path", { class: "stairs", d: `${steps.join("")}H${end}` });
    }
    const bar = (p, kind) => {
      if (p.top1_standard_error === null) return;
      const x = sx(p[name]), low = sy(p.top1 - errorOf(p)), high = sy(p.top1 + errorOf(p));
      element(svg, "path", { class: kind, d: `M${x} ${low}V${high}M${x - 6} ${low}h12M${x - 6} ${high}h12` });
    };
    const lines = (p, what) => [
      p.placement, `${data.quality} ${accuracy(p)}`,
      ...COSTS.map((c) => `${costs[c].label} ${cost(c, p[c])}`),
      `${what}${p.seeds} seed${p.seeds === 1 ? "" : "s"}, trial ${p.id}`,
    ];
    const labels = [], marks = [];
    const mark = (p, kind, shape, label, tipLines) => {
      const x = sx(p[name]), y = sy(p.top1);
      bar(p, `${kind}-bar`);
      const path = element(svg, "path", { class: kind, d: `M${x} ${y}${shape}` });
      path.addEventListener("pointermove", (e) => { e.stopPropagation(); showTip(e, tipLines); });
      path.addEventListener("pointerleave", hideTip);
      marks.push({ x, y, r: 8 });
      labels.push({ x, y, ...label });
    };
    if (baseline) {
      mark(baseline, "baseline", "m0 -8l8 8l-8 8l-8 -8z", { text: "all vanilla", must: true },
        lines(baseline, "all vanilla, "));
    }
    if (start) mark(start, "start", "m-7 -7h14v14h-14z", { text: "start", must: true }, [start.text]);
    for (const p of byHand) {
      mark(p, "hand", "m-6 5h12l-6 -11z", { text: p.label },
        [p.text, ...lines(p, "").slice(1, -1), `${p.seeds} seed${p.seeds === 1 ? "" : "s"}`]);
    }
    for (const p of front) {
      marks.push({ x: sx(p[name]), y: sy(p.top1), r: 5 });
      bar(p, "bar");
      const circle = element(svg, "circle", {
        class: "point", cx: sx(p[name]), cy: sy(p.top1), r: front.length > 100 ? 3.5 : 5,
      });
      circle.addEventListener("pointermove", (e) => { e.stopPropagation(); showTip(e, lines(p, "")); });
      circle.addEventListener("click", () => showMember(p.id));
      if (p.id === data.knee) {
        element(svg, "circle", { class: "knee", cx: sx(p[name]), cy: sy(p.top1), r: 10 });
        labels.unshift({ x: sx(p[name]), y: sy(p.top1), text: "knee", must: true });
      }
    }
    placeLabels(svg, labels, marks, end);

    // The trial nearest to the pointer, within reach.
    const lit = element(svg, "circle", { class: "lit", r: 6, visibility: "hidden" });
    const xs = points.map((i) => sx(trialCost(name, i))), ys = points.map((i) => sy(trials.top1[i]));
    svg.addEventListener("pointermove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let nearest = -1, least = 144;
      for (let k = 0; k < xs.length; k++) {
        const distance = (xs[k] - at.x) ** 2 + (ys[k] - at.y) ** 2;
        if (distance < least) { least = distance; nearest = k; }
      }
      lit.setAttribute("visibility", nearest < 0 ? "hidden" : "visible");
      if (nearest < 0) { hideTip(); return; }
      lit.setAttribute("cx", xs[nearest]);
      lit.setAttribute("cy", ys[nearest]);
      const i = points[nearest];
      showTip(event, [
        specs.placement[trials.spec[i]], `${data.quality} ${trials.top1[i].toFixed(4)}, one run`,
        ...COSTS.map((c) => `${costs[c].label} ${cost(c, trialCost(c, i))}`), `trial ${trials.number[i]}`,
      ]);
    });
    svg.addEventListener("pointerleave", () => { hideTip(); lit.setAttribute("visibility", "hidden"); });
  }

  function showMember(id) {
    const row = byId(`member-${id}`);
    if (!row) return;
    document.querySelectorAll(".lit-row").forEach((other) => other.classList.remove("lit-row"));
    row.classList.add("lit-row");
    row.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  // Hypervolume over trials

  function drawVolume() {
    const { number, value } = data.hypervolume;
    const host = byId("volume-chart");
    // A search by shared weights has no order in which its front grew.
    if (!host) return;
    if (!number.length) {
      host.textContent = "No trial is better than the reference point yet.";
      return;
    }
    const last = Math.max(data.num_trials - 1, 1), top = value[value.length - 1];
    const { svg, sx, sy, end } = frame(host, { ratio: 0.26, least: 200 },
      { low: 0, high: last, title: "search trial", label: (v) => Number.isInteger(v) ? String(v) : "" },
      { low: 0, high: Math.min(1, top * 1.1), title: "hypervolume", label: (v) => String(+v.toFixed(3)) });
    const steps = number.map((n, i) =>
      i ? `H${sx(n)}V${sy(value[i])}` : `M${sx(n)} ${sy(0)}V${sy(value[i])}`);
    element(svg, "path", { class: "volume", d: `${steps.join("")}H${sx(last)}` });
    svg.addEventListener("pointermove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const trial = Math.round((at.x - PAD.left) / (end - PAD.left) * last);
      const passed = number.filter((n) => n <= trial).length;
      if (!passed || trial > last) { hideTip(); return; }
      showTip(event, [value[passed - 1].toFixed(4), `after trial ${trial}`]);
    });
    svg.addEventListener("pointerleave", hideTip);
  }

  // The predicted front with its intervals, over the trials; against MACs, which are always known

  function drawPredicted() {
    const host = byId("predicted-chart"), all = data.predicted;
    if (!host) return;
    const [x0, x1] = extremes([...all.map((p) => p.macs), ...points.map((i) => trialCost("macs", i))]);
    const [y0, y1] = extremes([
      ...all.flatMap((p) => [p.top1[1], p.top1[2]]), ...points.map((i) => trials.top1[i])]);
    const mx = (x1 - x0) * 0.06 || 1, my = (y1 - y0) * 0.06 || 0.02;
    const { svg, sx, sy } = frame(host, { ratio: 0.36, least: 260 },
      { low: Math.max(0, x0 - mx), high: x1 + mx, title: "MACs", label: short },
      { low: Math.max(0, y0 - my), high: Math.min(1, y1 + my), title: data.quality,
        label: (v, more) => v.toFixed(3 + more).replace(/0$/, "") });
    const drawn = new Set(points.map((i) =>
      `M${sx(trialCost("macs", i)).toFixed(0)} ${sy(trials.top1[i]).toFixed(0)}h0`));
    element(svg, "path", { class: "cloud", d: [...drawn].join("") });
    const inside = (v) => sy(Math.min(Math.max(v, Math.max(0, y0 - my)), Math.min(1, y1 + my)));
    const line = (of, these) => these.map((p) => `${sx(p.macs)} ${inside(p.top1[of])}`).join("L");
    element(svg, "path", {
      class: "band-of", d: `M${line(2, all)}L${line(1, [...all].reverse())}Z` });
    element(svg, "path", { class: "predicted", d: `M${line(0, all)}` });
    for (const p of all) {
      const circle = element(svg, "circle", {
        class: `predicted-point${p.tried ? " tried" : ""}`, cx: sx(p.macs), cy: inside(p.top1[0]), r: 4 });
      circle.addEventListener("pointermove", (e) => showTip(e, [
        p.placement, `${data.quality} ${p.top1[0].toFixed(3)}, ${p.top1[1].toFixed(3)} to ${p.top1[2].toFixed(3)}`,
        `${quantity(p.macs)} MACs, ${p.tried ? "tried" : "not tried"}`]));
      circle.addEventListener("pointerleave", hideTip);
    }
  }

  // The table of trials: sorted and filtered as indices, one page in the document at a time

  const PAGE = 50;
  const spec = (name) => (i) => specs[name][trials.spec[i]];
  const column = (name) => (i) => trials[name][i];
  const fixed = (digits) => (v) => v === null ? "" : v.toFixed(digits);
  const columns = [
    { title: "role", value: (i) => roles[trials.role[i]] },
    { title: "trial", value: column("number"), show: String, numeric: true },
    { title: "replicate", value: column("replicate"), show: String, numeric: true },
    { title: "state", value: (i) => states[trials.state[i]] + (trials.reused[i] ? ", reused" : "") },
    { title: "placement", value: spec("placement"), code: true },
    { title: data.quality, value: column("top1"), show: fixed(4), numeric: true },
    { title: "loss", value: column("loss"), show: fixed(3), numeric: true },
    ...Object.keys(costs).map((name) => (
      { title: costs[name].heading, value: spec(name), show: (v) => cost(name, v), numeric: true })),
    { title: "seconds", value: column("wall_time_s"), show: fixed(1), numeric: true },
    ...(Object.keys(data.errors).length
      ? [{ title: "error", value: (i) => data.errors[i] ?? null, show: (v) => v ?? "", error: true }] : []),
  ];
  const all = Array.from(trials.number, (_, i) => i);
  const view = { rows: all, page: 0, sorted: null, ascending: true };
  const headings = [];

  function arrange() {
    const text = byId("find").value.trim().toLowerCase();
    const state = states.indexOf(byId("state").value), role = roles.indexOf(byId("role").value);
    view.rows = all.filter((i) =>
      (state < 0 || trials.state[i] === state) && (role < 0 || trials.role[i] === role)
      && (!text || String(trials.number[i]) === text
        || specs.placement[trials.spec[i]].toLowerCase().includes(text)
        || (data.errors[i] ?? "").toLowerCase().includes(text)));
    if (view.sorted !== null) {
      const value = columns[view.sorted].value, sign = view.ascending ? 1 : -1;
      // What was not measured stands last, whichever way.
      view.rows.sort((a, b) => {
        const u = value(a), v = value(b);
        if (u === null || v === null) return (u === null) - (v === null) || a - b;
        return (u < v ? -sign : u > v ? sign : 0) || a - b;
      });
    }
    view.page = 0;
    showPage();
  }

  function showPage() {
    const body = document.querySelector("#trials tbody");
    body.replaceChildren();
    const start = view.page * PAGE;
    for (const i of view.rows.slice(start, start + PAGE)) {
      const row = element(body, "tr");
      for (const { value, show = String, numeric, code, error } of columns) {
        const cell = element(row, "td", { class: numeric ? "num" : error ? "error" : "" });
        if (code) element(cell, "code", {}, value(i)); else cell.textContent = show(value(i));
      }
    }
    const pages = Math.max(1, Math.ceil(view.rows.length / PAGE));
    byId("page").textContent = `page ${view.page + 1} of ${pages}`;
    byId("found").textContent = `${view.rows.length} of ${all.length}`;
    byId("previous").disabled = view.page === 0;
    byId("next").disabled = view.page === pages - 1;
    headings.forEach((heading, c) => {
      const order = view.sorted !== c ? "none" : view.ascending ? "ascending" : "descending";
      heading.setAttribute("aria-sort", order);
      heading.querySelector("button").textContent =
        columns[c].title + { none: "", ascending: " ▲", descending: " ▼" }[order];
    });
  }

  function buildTable() {
    const head = element(document.querySelector("#trials thead"), "tr");
    columns.forEach(({ numeric }, c) => {
      const heading = element(head, "th", { class: numeric ? "num" : "" });
      element(heading, "button", { type: "button" }).addEventListener("click", () => {
        // The first click shows what is best or largest first.
        view.ascending = view.sorted === c ? !view.ascending : !numeric;
        view.sorted = c;
        arrange();
      });
      headings.push(heading);
    });
    for (const state of states) element(byId("state"), "option", {}, state);
    for (const role of roles) element(byId("role"), "option", {}, role);
    byId("find").addEventListener("input", arrange);
    byId("state").addEventListener("change", arrange);
    byId("role").addEventListener("change", arrange);
    byId("previous").addEventListener("click", () => { view.page--; showPage(); });
    byId("next").addEventListener("click", () => { view.page++; showPage(); });
    arrange();
  }

  const axis = byId("axis");
  for (const name of COSTS) element(axis, "option", { value: name }, costs[name].label);
  byId("axis-choice").hidden = COSTS.length < 2;
  axis.addEventListener("change", () => drawFront(axis.value));
  buildTable();
  // Draws once at the start, and again whenever the page gets another width.
  let drawnWidth = 0;
  new ResizeObserver(() => {
    const width = byId("front-chart").clientWidth;
    if (width === drawnWidth) return;
    drawnWidth = width;
    drawFront(axis.value);
    drawVolume();
    drawPredicted();
  }).observe(byId("front-chart"));
})();
