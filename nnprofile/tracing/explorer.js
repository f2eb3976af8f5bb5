"use strict";
// Looks numbers up, puts them into formulas, and draws. It computes nothing: every number is in the data.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const state = { step: 0, variant: null, digits: 6, row: 0, cell: null, timer: null };

  function el(tag, attributes = {}, ...children) {
    const svg = ["svg", "g", "circle", "path", "line", "polyline", "text", "title"].includes(tag);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  // --- numbers -------------------------------------------------------------------------------------------------------
  function show(value, digits = state.digits) {
    if (typeof value !== "number") return String(value);
    let text = digits >= 17 ? String(value) : value.toPrecision(digits);
    if (digits < 17 && text.includes(".")) text = text.replace(/\.?0+(e|$)/, "$1");
    return text.replace(/e\+?/, "e").replace(/-/g, "−");
  }
  const exact = (value) => show(value, 17);
  const get = (name) => (state.variant && state.variant.quantities[name]) || data.base.quantities[name];
  const last = (shape) => shape[shape.length - 1];

  function position(q, index) {
    if (q.cells) return q.cells.findIndex((cell) => cell.every((i, k) => i === index[k]));
    return index.reduce((sum, i, k) => sum * q.shape[k] + i, 0);
  }
  const valueAt = (name, index) => get(name).values[position(get(name), index)];
  const parameterOf = (name) => (get(name).role === "parameter" ? name : get(name).role === "gradient" && get(name).parameter ? name.slice(1) : "");
  const isWrong = (q, at) => Boolean(q.wrong) && q.wrong.includes(at);
  const element = (name, index) => get(name).symbol + (index.length ? `[${index.join(",")}]` : "");

  // --- formulas: the same tokens with symbols or with numbers in --------------------------------------------------------
  function symbolic(tokens) {
    return tokens.map((token) => {
      if (typeof token === "string") return token;
      if (token[0] === "c") return token[1];
      if (token[0] === "r") return element(token[1], token[2]);
      return `Σ_${token[1]} ${symbolic(token[3])}`;
    }).join("");
  }
  function flat(tokens, at) {
    return tokens.flatMap((token) => {
      if (typeof token === "string" || token[0] === "c") return [token];
      if (token[0] === "r") return [["r", token[1], token[2].map((i) => (i in at ? at[i] : Number(i))), token[3]]];
      return Array.from({ length: token[2] }, (_, i) => [...(i ? [" + "] : []), ...flat(token[3], { ...at, [token[1]]: i })]).flat();
    });
  }
  function pieces(q, index, at) {
    if (q.resolved) return q.resolved[at];
    if (!q.tokens) return null;
    return flat(q.tokens, Object.fromEntries(q.index.map((letter, k) => [letter, index[k]])));
  }
  function substituted(tokens, digits = state.digits) {
    let out = "";
    for (const token of tokens) {
      if (typeof token === "string") { out += token; continue; }
      const text = show(token[0] === "c" ? token[2] : token.length > 4 ? token[4] : valueAt(token[1], token[2]), digits);
      const second = /[ ·/−]$/.test(out) || (token[0] === "r" && token[3]);
      out += second && text.startsWith("−") ? `(${text})` : text;
    }
    return out;
  }

  // --- the tables of a step ----------------------------------------------------------------------------------------------
  function pick(name, index) {
    state.cell = { name, index };
    draw();
    const cell = document.querySelector(`[data-cell="${name}:${index.join(",")}"]`);
    if (cell && document.activeElement === document.body) cell.focus({ preventScroll: true });
  }
  function cellNode(name, q, index, at, used) {
    const key = `${name}:${index.join(",")}`;
    const picked = state.cell && `${state.cell.name}:${state.cell.index.join(",")}` === key;
    const wrong = isWrong(q, at);
    const classes = [picked && "picked", wrong && "wrong", used.has(key) && "used"].filter(Boolean).join(" ");
    const mark = !q.says ? "" : wrong ? " ✗" : q.verdict.startsWith("?") ? " ?" : q.reference[at] === "NaN" ? "" : " ✓";
    return el("td", { class: classes }, el("button", {
      type: "button", "data-cell": key, tabindex: picked ? 0 : -1, title: `${element(name, index)} = ${exact(q.values[at])}`,
      "aria-label": `${element(name, index)} = ${show(q.values[at])}${{ " ✗": ", wrong", " ?": ", unclear", " ✓": ", right" }[mark] || ""}`,
      "aria-pressed": picked ? "true" : "false", onclick: () => pick(name, index),
    }, show(q.values[at]) + mark));
  }
  function grid(name, used) {
    const q = get(name);
    const caption = el("caption", {}, el("b", {}, q.symbol), " ", el("span", { class: "shape" }, q.shapeText));
    const table = el("table", { class: "grid", "data-quantity": name }, caption);
    if (q.blocks) {
      table.append(...blockRows(name, q, used));
    } else if (q.shape.length === 2) {
      table.append(el("tr", {}, el("th", { "aria-hidden": "true" }), ...Array.from({ length: q.shape[1] }, (_, j) => el("th", { scope: "col" }, String(j)))));
      for (let i = 0; i < q.shape[0]; i++) {
        table.append(el("tr", {}, el("th", { scope: "row" }, String(i)), ...Array.from({ length: q.shape[1] }, (_, j) => cellNode(name, q, [i, j], i * q.shape[1] + j, used))));
      }
    } else {
      const width = q.shape.length ? last(q.shape) : 1;
      for (let start = 0; start < q.values.length; start += width) {
        table.append(el("tr", {}, ...Array.from({ length: width }, (_, k) => cellNode(name, q, unravel(start + k, q.shape), start + k, used))));
      }
    }
    const first = table.querySelector('button[tabindex="0"]') || table.querySelector("button");
    if (first) first.setAttribute("tabindex", "0");
    table.addEventListener("keydown", walk);
    return el("div", { class: "scroll" }, table);
  }
  function unravel(at, shape) {
    const index = [];
    for (let k = shape.length - 1; k >= 0; k--) { index.unshift(at % shape[k]); at = Math.floor(at / shape[k]); }
    return index;
  }
  function blockRows(name, q, used) {
    const rows = new Map();
    q.blocks.forEach((block, k) => {
      const place = (a) => (block.stop[a] - block.start[a] === 1 ? `${block.start[a]}` : `${block.start[a]}–${block.stop[a] - 1}`);
      const key = q.shape.length === 2 ? place(0) : "";
      if (!rows.has(key)) rows.set(key, el("tr", {}, el("th", { scope: "row" }, key)));
      const node = cellNode(name, q, q.cells[k], k, used);
      node.firstChild.textContent = `rms ${show(block.rms, 3)}`;
      node.firstChild.title = `block ${place(q.shape.length - 1)}; its largest element is ${node.firstChild.title}`;
      rows.get(key).append(node);
    });
    return [...rows.values(), el("tr", {}, el("td", { colspan: 9, class: "shape" }, q.leftOut || ""))];
  }
  function walk(event) {
    const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
    if (!moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    const td = event.target.closest("td");
    const rows = [...event.currentTarget.rows].filter((row) => row.querySelector("button"));
    const r = rows.indexOf(td.parentNode), c = [...td.parentNode.querySelectorAll("td")].indexOf(td);
    const row = rows[r + moves[event.key][0]];
    const next = row && [...row.querySelectorAll("td")][c + moves[event.key][1]];
    if (!next) return;
    event.target.setAttribute("tabindex", "-1");
    next.firstChild.setAttribute("tabindex", "0");
    next.firstChild.focus();
  }
  function operands(step) {
    const found = new Set();
    const search = (tokens) => tokens.forEach((t) => {
      if (typeof t === "string") return;
      if (t[0] === "r") found.add(t[1]);
      if (t[0] === "s") search(t[3]);
    });
    step.names.forEach((name) => get(name).tokens && search(get(name).tokens));
    step.names.forEach((name) => found.delete(name));
    // After the update its new parameters are what is looked at, and the gradients that promised; the old ones are not.
    return [...found].filter((name) => step.phase !== "after" || get(name).role !== "parameter");
  }
  function usedBy(cell) {
    const used = new Set();
    if (!cell) return used;
    const q = get(cell.name), at = position(q, cell.index);
    (pieces(q, cell.index, at) || []).forEach((t) => typeof t !== "string" && t[0] === "r" && used.add(`${t[1]}:${t[2].join(",")}`));
    return used;
  }
  function say(text) { $("live").textContent = text; }
  function drawStep() {
    const step = data.steps[state.step], box = $("step"), used = usedBy(state.cell);
    box.replaceChildren(el("h2", {}, `${state.step}. ${step.title}`));
    if (step.why) box.append(el("p", {}, step.why));
    const needed = operands(step);
    if (needed.length) box.append(el("div", { class: "grids" }, ...needed.map((name) => grid(name, used))));
    const results = el("div", { class: needed.length ? "results" : "" });
    for (const name of step.names) {
      const q = get(name);
      if (q.matrix) {
        results.append(el("p", { class: "formula" }, q.matrix + " ", el("span", { class: "equation" }, q.equation ? `eq. ${q.equation}` : "")));
        if (q.tokens && q.shape.length) results.append(el("p", { class: "formula" }, `${element(name, q.index)} = ${symbolic(q.tokens)}`));
      }
      if (q.why && q.why !== step.why) results.append(el("p", {}, q.why));
      results.append(el("div", { class: "grids" }, grid(name, used)));
    }
    box.append(results);
  }

  // --- the chosen element: its formula with numbers, its check, its paths ----------------------------------------------------
  function drawDetail() {
    const box = $("detail");
    box.replaceChildren();
    if (!state.cell) return;
    const { name, index } = state.cell, q = get(name), at = position(q, index);
    box.append(el("h2", {}, element(name, index), " ", el("span", { class: "shape" }, q.axes.map((axis, k) => `${axis}: ${index[k]}`).join(", "))));
    const tokens = pieces(q, index, at);
    const line = el("p", { class: "formula", id: "equality", title: exact(q.values[at]) });
    if (q.tokens) box.append(el("p", { class: "formula" }, `${element(name, index.length ? q.index : [])} = ${symbolic(q.tokens)}`));
    line.append(tokens ? `${element(name, index)} = ${substituted(tokens)} = ${show(q.values[at])}` : `${element(name, index)} = ${show(q.values[at])}`);
    box.append(line);
    if (q.reference) {
      const wrong = isWrong(q, at), digits = wrong ? state.digits : Math.max(state.digits, 9);
      const value = q.reference[at] === "NaN" ? "" : `by ${q.method === "complex step" ? "the complex step" : q.method}: ${show(q.reference[at], digits)}; `;
      box.append(el("p", { class: wrong ? "bad" : "ok", id: "verdict" }, `${wrong ? "✗" : q.verdict[0] === "?" ? "?" : "✓"} ${value}${q.says[at]}`));
    }
    if (q.kept && q.kept.includes(at)) box.append(el("p", { id: "kept" }, `The number was ${data.keptText}; as it stands, the formula loses them here.`));
    const base = data.base.quantities[name];
    if (state.variant && q.role === "gradient" && base.values[position(base, index)] !== q.values[at]) {
      box.append(el("p", {}, `Without the bug it is ${show(base.values[position(base, index)])}.`));
    }
    const parameter = parameterOf(name);
    if (parameter) box.append(...drawPaths(parameter, index));
  }
  function drawPaths(parameter, index) {
    const found = data.paths[parameter];
    if (!found) return [];
    if (found.why) return [el("h2", {}, `The paths from ${element(parameter, index)} to the loss`), el("p", {}, found.why)];
    const row = found.rows[position(data.base.quantities[parameter], index)];
    const right = (name, i) => data.base.quantities[name].values[position(data.base.quantities[name], i)];
    const body = el("tbody");
    for (const [sample, units, factors, contribution] of row.ways) {
      const route = sample === null ? "the L2 term" : units.map(([name, unit]) => element(name, [sample, unit])).join(" → ");
      const symbols = factors.map(([name, i]) => (Array.isArray(i) ? element(name, i) : name)).join(" · ");
      const numbers = factors.map(([name, i]) => { const text = show(Array.isArray(i) ? right(name, i) : i); return text.startsWith("−") ? `(${text})` : text; }).join(" · ");
      body.append(el("tr", { class: "way" }, el("td", {}, route), el("td", {}, symbols), el("td", {}, numbers), el("td", { class: "number", title: exact(contribution) }, show(contribution))));
    }
    const head = el("thead", {}, el("tr", {}, ...["path to the loss", "factors", "with numbers", "product"].map((text) => el("th", { scope: "col" }, text))));
    const foot = el("tfoot", {}, el("tr", {}, el("td", { colspan: 3 }, `the sum of ${row.ways.length} ${row.ways.length === 1 ? "path" : "paths"}, and d${element(parameter, index)}`),
      el("td", { class: "number", id: "waysum", title: exact(row.sum) }, `${show(row.sum)}, ${show(right("d" + parameter, index))}`)));
    const kink = get("d" + parameter).verdict.startsWith("✓ at a kink") ? " (the gradient at a kink is one of several; the paths take one side)" : "";
    const note = state.variant ? " (without the bug)" : data.base.bad.length ? " (by the local derivatives of the forward pass)" : "";
    return [el("h2", {}, `Every path from ${element(parameter, index)} to the loss${note}${kink}`), el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Paths to the loss" }, el("table", { class: "list" }, head, body, foot))];
  }

  // --- the picture of the network ---------------------------------------------------------------------------------------------
  const SHOWN = 10;
  function drawNet() {
    const W = 120 + 170 * (data.columns.length - 1), rows = Math.max(...data.columns.map((c) => Math.min(c.size, SHOWN))), H = 80 + rows * 56;
    const step = data.steps[state.step], backward = ["backward", "update", "after"].includes(step.phase);
    const reached = new Set(data.steps.slice(0, state.step + 1).flatMap((s) => s.names));
    const here = new Set(step.names);
    const x = (k) => 60 + (k * (W - 120)) / Math.max(data.columns.length - 1, 1);
    const y = (k, i) => { const n = Math.min(data.columns[k].size, SHOWN); return 60 + (rows - n) * 28 + i * 56 + 20; };
    const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": "The network; the tables beside it have the same numbers" });
    const onPath = pathEdges();
    for (const edge of data.edges) {
      const drawn = backward && reached.has("d" + edge.W) ? "d" + edge.W : edge.W;
      const value = get(drawn), base = get(edge.W);
      svg.append(el("text", { class: "label", x: (x(edge.from) + x(edge.to)) / 2, y: 42 }, value.symbol));
      if (base.cells) {
        svg.append(el("text", { class: "label", x: (x(edge.from) + x(edge.to)) / 2, y: 60 }, "too many lines to draw"));
        continue;
      }
      const top = Math.max(...value.values.map((v) => Math.abs(Number(v)) || 0)) || 1;
      for (let i = 0; i < Math.min(base.shape[0], SHOWN); i++) for (let j = 0; j < Math.min(base.shape[1], SHOWN); j++) {
        const at = i * base.shape[1] + j, v = Number(value.values[at]) || 0;
        const d = `M${x(edge.from)} ${y(edge.from, i)} L${x(edge.to)} ${y(edge.to, j)}`;
        const picked = state.cell && (state.cell.name === edge.W || state.cell.name === "d" + edge.W) && state.cell.index[0] === i && state.cell.index[1] === j;
        const path = onPath.has(`${edge.W}:${i},${j}`);
        if (picked) svg.append(el("path", { class: "halo", d }));
        svg.append(el("path", { class: `edge ${v < 0 ? "minus" : "plus"}${path && !picked ? " onpath" : ""}`, d, "stroke-width": (0.6 + (5 * Math.abs(v)) / top).toFixed(2) }));
        svg.append(el("path", { class: "hit", d, "data-edge": `${edge.W}:${i},${j}`, onclick: () => pick(drawn, [i, j]) }, el("title", {}, `${element(drawn, [i, j])} = ${exact(value.values[at])}`)));
      }
    }
    data.columns.forEach((column, k) => {
      const names = column.names.filter((name) => reached.has(name));
      const gradients = column.names.map((name) => "d" + name).filter((name) => reached.has(name) && get(name));
      const name = backward && gradients.length ? gradients[0] : names[names.length - 1];
      svg.append(el("text", { class: "label", x: x(k), y: 24 }, column.label + (column.size > SHOWN ? `, ${SHOWN} of ${column.size}` : "")));
      svg.append(el("text", { class: "label", x: x(k), y: 42 }, name ? get(name).symbol : ""));
      for (let i = 0; i < Math.min(column.size, SHOWN); i++) {
        const q = name && get(name), index = [state.row, i].slice(0, q ? q.shape.length : 2); // ids have one axis
        const at = q ? position(q, index) : -1, known = at >= 0;
        const g = el("g", { class: `node${name && here.has(name) ? " lit" : ""}${known && isWrong(q, at) ? " wrong" : ""}` },
          el("circle", { cx: x(k), cy: y(k, i), r: 25 }), el("text", { x: x(k), y: y(k, i) + 4 }, known ? show(q.values[at], 3) : ""));
        if (known) { g.addEventListener("click", () => pick(name, index)); g.append(el("title", {}, `${element(name, index)} = ${exact(q.values[at])}`)); }
        svg.append(g);
      }
    });
    $("net").replaceChildren(svg);
    $("caption").textContent = "Each line is an element of the matrix named above it: the thicker, the larger within its layer; blue and solid if positive, orange and dashed if negative. Click a line: it gets a border, and its paths to the loss turn green.";
  }
  function pathEdges() {
    const on = new Set();
    if (!state.cell) return on;
    const name = parameterOf(state.cell.name), found = data.paths[name], drawn = new Set(data.edges.map((edge) => edge.W));
    if (!found || !found.rows) return on;
    const row = found.rows[position(data.base.quantities[name], state.cell.index)];
    if (row) row.ways.forEach(([, , factors]) => factors.forEach(([factor, i]) => drawn.has(factor) && on.add(`${factor}:${i.join(",")}`)));
    return on;
  }

  // --- below: all gradients, training, what was printed ---------------------------------------------------------------------
  function list(head, rows, id) {
    return el("table", { class: "list", id }, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...rows));
  }
  function drawGradients() {
    const rows = Object.keys(data.base.quantities).filter((name) => get(name).role === "gradient").map((name) => {
      const q = get(name);
      return el("tr", {}, el("td", {}, q.symbol), el("td", { class: q.verdict[0] === "✓" ? "ok" : "bad" }, q.verdict), el("td", {}, q.parameter),
        el("td", {}, q.shapeText), el("td", {}, q.matrix));
    });
    $("gradients").querySelector("div").replaceChildren(list(["gradient", "checked without backward", "in the library", "shape", "formula"], rows));
  }
  function drawTraining() {
    const base = data.base, right = base.curve;
    $("training").hidden = !right;
    if (!right) return;
    const broken = state.variant && state.variant.curve, W = 640, H = 260, n = Math.max(right.length, broken ? broken.length : 0) - 1;
    const all = [...right, ...(broken || [])].filter((v) => v !== null), top = Math.max(...all), low = Math.min(0, ...all);
    const x = (k) => 70 + (k * (W - 90)) / n, y = (v) => H - 40 - ((v - low) * (H - 70)) / (top - low || 1);
    const line = (values, kind) => el("polyline", { class: kind, points: values.map((v, k) => (v === null ? "" : `${x(k).toFixed(1)},${y(v).toFixed(1)}`)).filter(Boolean).join(" ") });
    const end = (values) => (last(values) === null ? `numbers that are not finite, at step ${values.length - 1}` : show(last(values)));
    const text = `The loss over ${n} steps on this batch: from ${show(right[0])} to ${end(right)}${broken ? `; with the bug to ${end(broken)}` : ""}.`;
    const after = ["J+", "L+"].find((name) => data.base.quantities[name]);
    const one = `After one step it is ${broken ? `${show(get(after).values[0], 9)} with the bug, and ${show(data.base.quantities[after].values[0], 9)} without` : show(get(after).values[0], 9)}.`;
    const warning = broken ? "A lower loss does not make the gradient right: one that is too long acts like a larger learning rate, and on a few samples much goes down that is not the gradient." : "";
    $("training").querySelector("div").replaceChildren(el("p", {}, text), el("p", { id: "onestep" }, one), el("p", {}, warning), el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": text },
      el("path", { class: "axis", d: `M70 20 V${H - 40} H${W - 20}` }), el("text", { class: "tick", x: 64, y: y(top) + 4 }, show(top, 3)), el("text", { class: "tick", x: 64, y: y(low) + 4 }, show(low, 3)),
      el("text", { class: "tick", x: W - 20, y: H - 20 }, `step ${n}`), line(right, base.bad.length ? "faulty" : "right"), broken ? line(broken, "broken") : null,
      el("text", { class: "key", x: 90, y: 20 }, `solid: ${base.bad.length ? "this network, with its wrong gradients" : "right"}${broken ? "; dashed: with the bug added" : ""}`)));
  }
  function drawPrinted() {
    $("printed").hidden = !data.printed.length;
    const rows = data.printed.flatMap((p) => [el("tr", {}, el("td", { class: p.agrees ? "ok" : "bad" }, p.agrees ? "✓" : "✗"), el("td", {}, p.label), el("td", {}, p.here),
      el("td", { class: "number" }, p.printed.replace(/-/g, "−")), el("td", { class: "number" }, exact(p.ours))),
      ...(p.note ? [el("tr", {}, el("td", {}), el("td", { colspan: 4, class: "note" }, p.note))] : [])]);
    $("printed").querySelector("div").replaceChildren(list(["", "there", "here", "printed", "ours"], rows), ...data.errata.map((text) => el("p", {}, text)));
  }

  // --- moving about ------------------------------------------------------------------------------------------------------------
  function draw() {
    const step = data.steps[state.step];
    $("slider").value = state.step;
    $("slider").setAttribute("aria-valuetext", `step ${state.step} of ${data.steps.length - 1}: ${step.title}`);
    $("where").textContent = `Step ${state.step} of ${data.steps.length - 1}`;
    $("back").setAttribute("aria-disabled", String(state.step === 0));  // not disabled: that would throw the focus away
    $("next").setAttribute("aria-disabled", String(state.step === data.steps.length - 1));
    const side = state.variant || data.base;
    $("summary").textContent = side.summary;
    $("summary").className = side.bad.length ? "bad" : "ok";
    $("story").hidden = !state.variant;
    $("story").textContent = state.variant ? state.variant.story : "";
    drawStep();
    drawDetail();
    drawNet();
    const cell = state.cell && $("equality") ? `. ${$("equality").textContent}. ${$("verdict") ? $("verdict").textContent : ""}` : "";
    say(`Step ${state.step}: ${step.title}${cell}`);
  }
  function firstCell(q) {
    if (q.wrong && q.wrong.length) return q.cells ? q.cells[q.wrong[0]] : unravel(q.wrong[0], q.shape);
    if (q.cells) return q.cells[0];
    return q.shape.map((size, k) => (k === 0 && ["samples", "events"].includes(q.axes[0]) ? Math.min(state.row, size - 1) : 0));
  }
  function go(step) {
    state.step = Math.max(0, Math.min(data.steps.length - 1, step));
    const names = data.steps[state.step].names, name = names.find((n) => get(n).tokens && get(n).role !== "slope") || names.find((n) => get(n).tokens);
    if (state.cell && get(state.cell.name).role === "parameter") { draw(); return; }  // one follows a weight through the steps
    state.cell = name ? { name, index: firstCell(get(name)) } : null;
    draw();
  }
  function toFirstWrong(side) {
    const name = side.bad[0], first = data.steps.findIndex((step) => step.names.includes(name));
    if (first < 0) { draw(); return; }
    go(first);
    pick(name, firstCell(get(name)));
  }
  function play(on) {
    clearInterval(state.timer);
    state.timer = on ? setInterval(() => (state.step < data.steps.length - 1 ? go(state.step + 1) : play(false)), 1800) : null;
    $("play").setAttribute("aria-pressed", String(on));
    $("play").textContent = on ? "Pause" : "Play";
  }
  $("intro").textContent = `${data.intro} ${data.about}`.trim();
  $("diagnosis").hidden = !data.diagnosis.length;
  $("diagnosis").querySelector("ul").append(...data.diagnosis.map((text) => el("li", {}, text)));
  $("cap").textContent = data.cap;
  $("slider").max = data.steps.length - 1;
  $("slider").addEventListener("input", (event) => go(Number(event.target.value)));
  $("back").addEventListener("click", () => go(state.step - 1));
  $("next").addEventListener("click", () => go(state.step + 1));
  $("play").addEventListener("click", () => { if (!state.timer && state.step === data.steps.length - 1) go(0); play(!state.timer); });
  $("bug").append(el("option", { value: "" }, data.base.bad.length ? "no bug added" : "nothing: all is right"), ...data.variants.map((v) => el("option", { value: v.key }, v.title)));
  $("bug").addEventListener("change", (event) => {
    state.variant = data.variants.find((v) => v.key === event.target.value) || null;
    if (state.variant) toFirstWrong(state.variant); else draw();
    drawGradients(); drawTraining();
  });
  $("digits").addEventListener("change", (event) => { state.digits = Number(event.target.value); draw(); drawPrinted(); drawTraining(); });
  const n = data.base.quantities.x.shape[0];
  $("rowlabel").hidden = n === 1;
  $("row").append(...Array.from({ length: Math.min(n, 64) }, (_, i) => el("option", {}, String(i))));
  $("row").addEventListener("change", (event) => { state.row = Number(event.target.value); go(state.step); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input, .scroll")) return;
    const to = { ArrowRight: state.step + 1, ArrowLeft: state.step - 1, Home: 0, End: data.steps.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(to);
  });
  addEventListener("beforeprint", () => { $("text").open = true; });
  addEventListener("afterprint", () => { $("text").open = false; });
  drawGradients();
  drawTraining();
  drawPrinted();
  go(0);
  if (data.base.bad.length && get(data.base.bad[0]).wrong.length) toFirstWrong(data.base);
})();
