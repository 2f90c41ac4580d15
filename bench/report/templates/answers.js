// Lists the samples of a run from the JSON in the page: search, filters, and twenty samples at a time.
"use strict";
const tables = JSON.parse(document.getElementById("answers-data").textContent);
const PAGE = 20;
const field = name => document.getElementById(`answers-${name}`);
let shown = PAGE;

function element(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

const current = () => tables[Number(field("table").value)];
const textsOf = (sample, place) => sample.answers[place] && (sample.answers[place].texts || sample.answers[0]?.texts || []);
const needle = () => field("search").value.trim().toLowerCase();

function digits(value) {
  return value === null ? "infinite" : String(Number(value.toPrecision(4)));
}

// The change of one metric of a sample against the first strategy; null where one of the two is infinite or absent.
function change(sample, place, metric) {
  const [base, other] = [sample.answers[0]?.values[metric], sample.answers[place]?.values[metric]];
  return typeof base === "number" && typeof other === "number" ? other - base : null;
}

function verdict(metric, difference) {
  if (!difference || !metric.better) return "";
  return (difference > 0) === (metric.better === "higher") ? "better" : "worse";
}

function chosen(table) {
  const value = field("strategy").value;
  return value === "all" ? table.strategies.map((_, place) => place) : [0, Number(value)];
}

function passes(table, sample, place, which) {
  if (!sample.answers[place] || !sample.answers[0] || place === 0) return false;
  if (which === "texts") return sample.answers[place].texts !== null && sample.answers[0].texts !== null;
  if (which === "changed") return sample.answers[place].values.some((value, at) => value !== sample.answers[0].values[at]);
  return verdict(table.metrics[table.chart], change(sample, place, table.chart)) === which;
}

function found(sample, places, words) {
  const texts = places.flatMap(place => textsOf(sample, place) || []);
  return !words || [sample.id, sample.item, ...texts].some(text => String(text).toLowerCase().includes(words));
}

function selection() {
  const table = current(), places = chosen(table), which = field("show").value, words = needle();
  let samples = table.samples.filter(sample => found(sample, places, words));
  if (which !== "all") samples = samples.filter(sample => places.some(place => passes(table, sample, place, which)));
  if (which === "better" || which === "worse") {
    const size = sample => Math.max(...places.filter(place => passes(table, sample, place, which))
      .map(place => Math.abs(change(sample, place, table.chart))));
    samples = samples.slice().sort((a, b) => size(b) - size(a));
  }
  return {table, places, samples};
}

// Appends a text in which the search words are marked, and the part that equals the first strategy's text is soft.
function append(parent, text, common) {
  const words = needle(), lower = text.toLowerCase();
  const marked = words && lower.length === text.length; // lower case may be longer, for example of a capital dotted i
  for (let at = 0; at < text.length;) {
    const hit = marked ? lower.indexOf(words, at) : -1, stop = hit < 0 ? text.length : hit;
    if (common > at) parent.append(element("span", "same", text.slice(at, Math.min(stop, common))));
    if (stop > common) parent.append(text.slice(Math.max(at, common), stop));
    if (hit >= 0) parent.append(element("mark", "", text.slice(hit, hit + words.length)));
    at = hit < 0 ? stop : hit + words.length;
  }
}

function prefix(first, second) {
  let at = 0;
  while (at < first.length && at < second.length && first[at] === second[at]) at += 1;
  return at;
}

function answer(table, sample, place) {
  const block = element("div", "answer"), line = element("p", "values"), values = sample.answers[place].values;
  line.append(element("b", "", table.strategies[place]));
  table.metrics.forEach((metric, at) => {
    const difference = place ? change(sample, place, at) : null, shownAs = metric.exponent ? Math.exp : Number;
    const value = values[at] === null ? null : shownAs(values[at]);
    const text = !difference ? "" : metric.exponent ? ` (×${digits(Math.exp(difference))})`
      : ` (${difference > 0 ? "+" : "−"}${digits(Math.abs(difference))})`;
    line.append(" ", element("span", verdict(metric, difference), `${metric.name} ${digits(value)}${text}`));
  });
  block.append(line);
  if (place && sample.answers[place].texts === null && sample.answers[0]?.texts) {
    block.append(element("p", "about", `same text as ${table.strategies[0]}`));
    return block;
  }
  (sample.answers[place].texts || []).forEach((text, number) => {
    const base = place && sample.answers[0]?.texts?.[number], shownText = element("pre", "text");
    append(shownText, text || "(empty)", base ? prefix(base, text) : 0);
    block.append(shownText);
  });
  return block;
}

function card(table, places, sample) {
  const made = element("article", "sample"), item = element("pre", "item");
  made.append(element("h3", "", `sample ${sample.id}`));
  append(item, sample.item, 0);
  item.tabIndex = 0;
  made.append(item);
  places.filter(place => sample.answers[place]).forEach(place => made.append(answer(table, sample, place)));
  return made;
}

function draw() {
  const {table, places, samples} = selection(), noun = table.total === 1 ? "sample" : "samples";
  const absent = table.total - table.samples.length;
  field("count").textContent = `${samples.length} of ${table.total} ${noun}`
    + (absent ? `; the last ${absent} are not in this page, to keep it small` : "") + ".";
  field("list").replaceChildren(...samples.slice(0, shown).map(sample => card(table, places, sample)));
  field("more").hidden = samples.length <= shown;
}

function again() { shown = PAGE; draw(); }

function choose() {
  const all = new Option("all strategies", "all");
  field("strategy").replaceChildren(all, ...current().strategies.slice(1).map((name, at) => new Option(name, at + 1)));
  again();
}

tables.forEach((table, at) => field("table").add(new Option(`${table.task}, ${table.model}`, at)));
field("table").addEventListener("change", choose);
["strategy", "show"].forEach(name => field(name).addEventListener("change", again));
field("search").addEventListener("input", again);
field("more").addEventListener("click", () => { shown += PAGE; draw(); });
document.getElementById("samples-fold").addEventListener("toggle", choose, {once: true});
