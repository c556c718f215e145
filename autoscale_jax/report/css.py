"""The page's style sheet, as code so that it is installed with the package."""

PAGE = """\
:root { color-scheme: light; --ink: #1f2933; --soft: #5b6672; --line: #e1e6eb; --back: #f4f6f8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
header { margin: 0 4px 14px; }
h1 { font-size: 1.05rem; font-weight: 600; color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.created { margin: 0; font-size: .85rem; color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 20px 24px; margin: 0 0 16px; }
h2 { font-size: 1.12rem; line-height: 1.3; margin: 0 0 12px; }
p { margin: 0 0 12px; max-width: 78ch; overflow-wrap: anywhere; }
section > :last-child { margin-bottom: 0; }
#answer > h2 { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
p.answer { font-size: 1.42rem; line-height: 1.4; font-weight: 600; letter-spacing: -.005em;
  margin-bottom: 18px; max-width: 60ch; }
p.reading { color: var(--soft); font-size: .92rem; }
p.missing { border-left: 3px solid #9aa5b1; padding: 2px 0 2px 12px; color: var(--soft); }
ul { margin: 0 0 12px; padding-left: 22px; max-width: 78ch; }
ul.warning { list-style: none; padding: 0; max-width: none; }
ul.warning li { background: #fff6e0; border-left: 4px solid #d98200; border-radius: 4px;
  padding: 8px 14px; margin: 0 0 8px; overflow-wrap: anywhere; }
ul.warning li::before { content: "Warning: "; font-weight: 700; color: #8a5300; }
.stats { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px;
  margin: 0 0 14px; }
.stat { display: flex; flex-direction: column; background: var(--back); border-radius: 8px;
  padding: 10px 14px; }
.stat dt { font-size: .82rem; line-height: 1.3; color: var(--soft); }
.stat dd { margin: 0; }
.stat .value { font-size: 1.6rem; line-height: 1.35; font-weight: 650; margin-top: auto; }
.stat .note { font-size: .82rem; color: var(--soft); min-height: 1.3em; }
.scroll { overflow-x: auto; margin: 0 0 12px; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
.caption { color: var(--soft); font-size: .88rem; margin: 0 0 4px; }
th, td { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { font-weight: 600; font-size: .84rem; color: var(--soft); vertical-align: bottom;
  border-bottom-color: #b4bcc5; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 9em; }
tr > :first-child { position: sticky; left: 0; background: #fff; }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: 20em; text-align: left; overflow-wrap: anywhere; }
.number { text-align: right; }
small { color: var(--soft); font-size: .85em; }
.chip { display: inline-block; width: .72em; height: .72em; border-radius: 2px;
  margin-right: .5em; }
.bar { display: inline-block; position: relative; width: 130px; height: .8em; margin-left: 10px;
  background: var(--back); vertical-align: -1px; text-align: left; }
.bar i { position: absolute; left: 0; top: 0; height: 100%; border-radius: 0 2px 2px 0; }
.bar b { position: absolute; top: calc(50% - 1px); height: 2px; background: var(--ink); }
figure { margin: 0 0 14px; }
figure svg { display: block; width: 100%; height: auto; margin: 0 auto; }
figure text { font-family: inherit !important; }
.narrow { display: none; }
details { margin: 0 0 12px; }
summary { cursor: pointer; font-weight: 600; color: #0b5cad; }
details .scroll { margin-top: 10px; }
details table { font-size: .82rem; }
details tbody th { min-width: 11em; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: .85rem; padding: 0 4px;
  margin: 0 0 16px; }
a { color: #0b5cad; }
@media (max-width: 720px) {
  main { padding: 16px 10px 40px; }
  section { padding: 16px 14px; }
  p.answer { font-size: 1.18rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .bar { width: 60px; }
  th, td { padding-right: 10px; }
  tbody th { min-width: 7em; }
  .stats { grid-template-columns: 1fr 1fr; }
}
@media print {
  body { background: #fff; }
  section { border: none; padding: 0; break-inside: avoid-page; }
}
"""
