"""The style sheet of HTML pages: light or dark by the reader's system, one column on a phone, system fonts only."""

CSS = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #5a5a62; --paper: #fff; --card: #f5f5f7; --line: #d7d7de;
  --warn: #8a5200; --warnpaper: #fff4dd;
  --s0: #1f62c9; --s1: #b84a00; --s2: #1a7a45; --s3: #7a3fb0; --s4: #a8234f; --s5: #59646e; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a5a5b0; --paper: #17171a; --card: #222226;
  --line: #3d3d45; --warn: #ffc46b; --warnpaper: #33280f;
  --s0: #7fb0ff; --s1: #ff9d5c; --s2: #62cf90; --s3: #c79bf2; --s4: #ff86a8; --s5: #b3bcc5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h1 span { display: block; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-top: 1px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, small, figcaption { color: var(--soft); font-size: .875rem; }
.warn { background: var(--warnpaper); color: var(--warn); border-left: 4px solid; padding: .5rem 1rem; margin: 1rem 0;
  overflow-wrap: anywhere; }
.warn ul { margin: .25rem 0; padding-left: 1.25rem; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; } thead th { vertical-align: bottom; }
th:first-child, .text th, .text td { text-align: left; }
.text td { overflow-wrap: anywhere; min-width: 8rem; }
td small, .unit { white-space: nowrap; }
td small { display: block; }
.wide > table > * > tr > th:first-child { position: sticky; left: 0; background: var(--paper); }
.sure { font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
.charts figure { margin: 0; background: var(--card); border-radius: 8px; padding: .5rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11px; fill: var(--soft); } svg text.head { fill: var(--ink); font-weight: 600; }
svg text[class^=s] { fill: currentColor; font-weight: 600; }
.curve { fill: currentColor; fill-opacity: .14; stroke: currentColor; stroke-width: 1.6; }
.mean { stroke: currentColor; stroke-width: 1.4; stroke-dasharray: 4 3; }
rect { fill: currentColor; }
.axis, .zero { stroke: var(--soft); stroke-width: 1; } .zero { stroke-dasharray: 2 2; }
.items { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem;
  padding: 0; margin: .5rem 0; list-style: none; }
.items > li { background: var(--card); border-radius: 8px; padding: .75rem; min-width: 0; display: grid;
  gap: .25rem .9rem;
  grid-template-columns: 12rem minmax(0, 1fr); align-items: start; align-content: start; }
.items > li.clip, .items > li.no-image { grid-template-columns: minmax(0, 1fr); }
.items img { width: 100%; height: auto; border-radius: 4px; background: var(--line); }
.items h3, .items h4 { margin: 0; font-size: .8rem; font-weight: 400; color: var(--soft); overflow-wrap: anywhere; }
.items p { margin: .25rem 0; overflow-wrap: anywhere; line-height: 1.35; }
.items table { font-size: .8rem; width: 100%; } .items th, .items td { padding: .1rem .3rem; }
.items ul { margin: .15rem 0 0; padding-left: 1.1rem; font-size: .875rem; overflow-wrap: anywhere; line-height: 1.35; }
.items > li[hidden] { display: none; }
#cards > li { content-visibility: auto; contain-intrinsic-size: auto 12rem; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; align-items: center; padding: .5rem 0; position: sticky;
  top: 0; background: var(--paper); z-index: 1; }
.bar[hidden] { display: none; }
.bar input, .bar select { font: inherit; } .bar [type=search] { width: min(18rem, 60vw); }
.none { font-size: .85rem; color: var(--soft); border: 1px dashed var(--line); border-radius: 4px; padding: .5rem; }
summary { cursor: pointer; font-size: .875rem; }
@media (max-width: 34rem) { .items > li { grid-template-columns: minmax(0, 1fr); } th, td { padding: .25rem .4rem; }
  #scores, #human { font-size: .875rem; } #scores small { font-size: .75rem; }
 
  .items img { max-width: 14rem; } .items .clip img { max-width: none; }
  h1 { font-size: 1.2rem; } }
@media print { .items > li { break-inside: avoid; } }
"""
