"""The look of the pages. The colours of the three roles are Okabe and Ito's, safe for colour-blind readers."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fcfcfa; --card: #ffffff; --ink: #1d2327; --soft: #59636b; --line: #dfe3e6; --strong: #b9c1c7;
  --model: #0072b2; --control: #c14f00; --published: #59636b; --wash: #eef4f8;
  --green: #00795a; --violet: #8e4585; --red: #c0271a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14181b; --card: #1b2024; --ink: #e6e9eb; --soft: #a3adb4; --line: #30383e; --strong: #56616a;
    --model: #56b4e9; --control: #e69f00; --published: #a3adb4; --wash: #1c2932;
    --green: #2fc49a; --violet: #d68fc9; --red: #ff7f6e;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1216px; margin: 0 auto; padding: 40px 28px 72px; }
header { border-bottom: 1px solid var(--line); padding-bottom: 18px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 6px; font-weight: 680; }
h2 { font-size: 20px; line-height: 1.3; letter-spacing: -0.008em; margin: 0 0 10px; font-weight: 650; }
section { margin-top: 44px; }
p { margin: 0 0 10px; max-width: 92ch; }
.subtitle, .note { color: var(--soft); }
.subtitle { margin: 0; }
.note { font-size: 14px; line-height: 1.5; }
.findings { background: var(--wash); border-left: 4px solid var(--model); border-radius: 0 8px 8px 0;
  padding: 20px 24px 12px; margin-top: 26px; }
.findings h2 { font-size: 13px; text-transform: uppercase; letter-spacing: 0.06em; color: var(--soft);
  margin-bottom: 8px; }
.findings .lead { font-size: 20px; line-height: 1.42; font-weight: 560; letter-spacing: -0.006em; }
.findings ul { margin: 0 0 10px; padding-left: 20px; max-width: 104ch; }
.findings li { margin: 0 0 5px; }

.scroll { overflow-x: auto; margin: 0 0 14px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
.scroll:focus-visible, button:focus-visible, summary:focus-visible { outline: 2px solid var(--model);
  outline-offset: 1px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 14px; line-height: 20px;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; color: var(--soft); font-size: 13.5px; padding: 10px 14px 8px; }
caption span { position: sticky; left: 14px; display: block; width: fit-content;
  max-width: calc(min(100vw, 1160px) - 90px); }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
tbody:last-child tr:last-child > * { border-bottom: 0; }
thead th { vertical-align: bottom; padding: 0; border-bottom: 1px solid var(--strong); background: var(--card); }
tbody th { font-weight: 500; min-width: 112px; max-width: 250px; position: sticky; left: 0; background: var(--card);
  z-index: 1; }
thead th:first-child { position: sticky; left: 0; z-index: 2; }
th small, td small { color: var(--soft); font-size: 12px; font-weight: 400; white-space: nowrap; }
td:not(.number) { min-width: 110px; }
td.number { text-align: right; white-space: nowrap; }
thead button { all: unset; box-sizing: border-box; cursor: pointer; width: 100%; padding: 8px 10px; font-size: 13px;
  font-weight: 600; line-height: 1.3; }
thead th.number button { text-align: right; }
thead button::after { content: "\\2195"; color: var(--strong); font-size: 11px; padding-left: 4px; }
thead th[aria-sort=ascending] button::after { content: "\\2191"; color: var(--ink); }
thead th[aria-sort=descending] button::after { content: "\\2193"; color: var(--ink); }
thead button:hover { color: var(--model); }
tr.block th { max-width: none; padding: 14px 12px 4px; border-bottom: 1px solid var(--line); color: var(--soft);
  font-size: 12px; font-weight: 650; letter-spacing: 0.05em; text-transform: uppercase; }
tr.block span { position: sticky; left: 12px; }
.heat td small { color: inherit; }
.heat td { border-left: 1px solid var(--card); }
.heat td.edge { border-left: 5px solid var(--strong); }
.best { font-weight: 700; }
h3 { font-size: 15px; margin: 18px 0 6px; }

.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 326px), 1fr)); gap: 16px;
  margin: 0 0 14px; }
.loose { align-items: start; }
figure { display: flex; flex-direction: column; min-width: 0; margin: 0; padding: 12px 14px 8px; break-inside: avoid;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-weight: 620; font-size: 14.5px; line-height: 1.35; margin-bottom: 4px; }
figcaption em { color: var(--soft); font-size: 12.5px; font-weight: 500; font-style: normal; }
figcaption small { display: block; color: var(--soft); font-size: 12.5px; font-weight: 400; }
svg { display: block; width: 100%; height: auto; max-width: 400px; margin-top: auto; overflow: visible;
  font: 11.5px -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
svg text { fill: var(--ink); }
svg .quiet { fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .lane { stroke: var(--line); stroke-dasharray: 1 3; }
.model { --role: var(--model); } .control { --role: var(--control); } .published { --role: var(--published); }
svg .mark { stroke: var(--role); fill: var(--role); fill-opacity: 0.45; stroke-width: 1.3; }
svg .control .mark { fill: none; }
svg .published .mark { fill: none; }
svg .mean { stroke: var(--role); stroke-width: 3; stroke-linecap: round; }
.series-0 { --role: var(--model); } .series-1 { --role: var(--control); } .series-2 { --role: var(--green); }
.series-3 { --role: var(--violet); } .series-4, .quiet { --role: var(--published); }
svg .curve { fill: none; stroke: var(--role); stroke-width: 1.8; stroke-linejoin: round; }
svg .second .curve { stroke-dasharray: 5 3; }
svg.letters { position: absolute; width: 0; height: 0; }
svg.logo { max-width: none; margin-top: 2px; } svg .own { stroke: var(--soft); stroke-width: 2; }
.base-A { fill: var(--green); } .base-C { fill: var(--model); } .base-G { fill: var(--control); }
.base-T { fill: var(--red); }
.words { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 16px; }
.contexts { font-size: 12.5px; line-height: 1.45; margin: 8px 0 6px; color: var(--soft); }
.fine { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 14px; font-size: 12.5px; }
.fine small { color: var(--soft); }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 13.5px; color: var(--soft); margin: 0 0 12px;
  padding: 0; list-style: none; }
.key li { display: flex; align-items: center; gap: 7px; }
.key svg { width: 16px; height: 16px; flex: none; }
.swatch { width: 30px; height: 14px; border-radius: 3px; border: 1px solid var(--line); }

details { border: 1px solid var(--line); border-radius: 8px; margin-bottom: 10px; background: var(--card); }
summary { cursor: pointer; padding: 9px 14px; font-weight: 560; font-size: 14.5px; }
details .scroll { border-width: 1px 0 0; border-radius: 0 0 8px 8px; margin: 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; margin: 0 0 14px;
  font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: minmax(90px, max-content) minmax(0, 1fr); gap: 4px 20px; margin: 0 0 16px;
  font-size: 14.5px; }
dt { color: var(--soft); } dd { margin: 0; }

@media (max-width: 640px) {
  main { padding: 24px 16px 48px; }
  h1 { font-size: 25px; } section { margin-top: 34px; }
  .findings { padding: 16px 16px 8px; } .findings .lead { font-size: 18px; }
  th, td { padding: 6px 9px; } thead button { padding: 8px 9px; }
  tbody th { min-width: 124px; max-width: 150px; } th small { white-space: normal; }
}
@page { size: A4 landscape; margin: 12mm; }
@media print {
  :root { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --strong: #888;
    --model: #0072b2; --control: #c14f00; --published: #444; --wash: #f2f6f9;
    --green: #00795a; --violet: #8e4585; --red: #c0271a; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; } section { margin-top: 22px; }
  .scroll { overflow: visible; border: 0; } table { font-size: 8.5pt; } th, td { padding: 2px 5px; }
  thead button { padding: 2px 5px; font-size: 8.5pt; } thead button::after { content: none; }
  tbody th, thead th:first-child { position: static; } tr { break-inside: avoid; }
  thead { display: table-header-group; }
  table.heat { font-size: 7pt; } .heat button { font-size: 7pt; } .heat th, .heat td { padding: 2px 3px; }
  th small, td small { font-size: 0.9em; } table { line-height: 1.35; }
  caption span { max-width: none; } td:not(.number), tbody th { min-width: 0; }
  .plots { grid-template-columns: repeat(3, 1fr); gap: 8px; } h2 { break-after: avoid; }
}
"""
