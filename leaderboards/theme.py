"""The style sheet of the pages: light and dark, phone and desktop."""

STYLE = """\
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --muted: #57606a; --line: #d0d7de; --shade: #f0f4f9;
  --link: #0550ae; --informed: #6b7280; --baseline: #3f78c3; --optimum: #1f7a3d; --agent: #b3541e; --mark: #6e40c9;
  --alarm: #b3261e; --soft: #fdecea; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #e6e9ee; --muted: #a3adb9; --line: #363d47; --shade: #1e242d;
    --link: #79b8ff; --informed: #9aa4b2; --baseline: #6ea3e8; --optimum: #4fb873; --agent: #e88a4d; --mark: #b794f6;
    --alarm: #ff8a80; --soft: #3a1d1c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.8rem; } h2 { margin: 0; font-size: 1.3rem; }
header p { max-width: 62rem; }
main > p { max-width: 62rem; } main > h2 { margin-top: 2rem; }
td.number small { white-space: normal; max-width: 11rem; } .name { margin: 0; font-weight: 700; }
.skip { position: absolute; left: -999rem; } .skip:focus { position: static; }
nav ul, .columns { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .25rem 0 1.5rem; list-style: none; }
nav a[aria-current] { color: var(--ink); font-weight: 600; text-decoration: none; }
.ticks { stroke: var(--ink); stroke-width: 1; stroke-opacity: .3; fill: none; }
.matrix th, .matrix td { padding: .25rem .45rem; font-size: .8rem; } .matrix td { text-align: center; }
.matrix th[scope=row] { min-width: 9rem; }
section { margin-top: 2.75rem; } section > p { margin: .25rem 0 .75rem; max-width: 62rem; }
a { color: var(--link); } code, pre { font: .85em/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; } small { display: block; color: var(--muted); font-size: .8rem; font-weight: 400; }
.muted { color: var(--muted); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .92rem; }
caption { text-align: left; padding: .5rem .75rem; font-weight: 600; }
caption.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .4rem .65rem; text-align: left; vertical-align: middle; background: var(--paper); white-space: nowrap; }
thead th { vertical-align: bottom; font-size: .8rem; color: var(--muted); border-bottom: 1px solid var(--line); }
tbody th { font-weight: 600; } tbody.even > tr > * { background: var(--shade); }
tbody + tbody > tr:first-child > *, .overview tr + tr > * { border-top: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; } td.names, td.reason { white-space: normal; min-width: 14rem; }
.tier { text-align: center; border-right: 1px solid var(--line); }
th[scope=row] { position: sticky; left: 0; z-index: 1; min-width: 13rem; max-width: 16rem; white-space: normal;
  overflow-wrap: anywhere; }
.overview th[scope=row] { min-width: 9rem; }
tbody th small { white-space: nowrap; }
td.chart, th.chart { padding-top: 0; padding-bottom: 0; } svg { display: block; }
svg text { font-size: 11px; fill: var(--muted); font-weight: 400; }
.baseline { fill: var(--baseline); } .optimum { fill: var(--optimum); } .agent { fill: var(--agent); }
.informed { fill: var(--informed); } .swatch.informed { background: var(--informed); }
line { stroke: var(--muted); stroke-width: 1; } line.one { stroke-width: 2; stroke: var(--ink); }
line.best { stroke: var(--mark); stroke-width: 2; stroke-dasharray: 4 3; }
.whisker { stroke: var(--ink); stroke-width: 1.5; fill: none; }
td.better { color: var(--optimum); font-weight: 600; } td.worse { color: var(--muted); } td.best { font-weight: 600; }
.alarm, tbody.alarm > tr > * { background: var(--soft); color: var(--alarm); font-weight: 700; white-space: normal; }
p.alarm { padding: .5rem .75rem; border-radius: .5rem; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: 0 0 1.25rem; list-style: none;
  font-size: .9rem; }
.swatch { display: inline-block; width: 1.1em; height: .75em; margin-right: .4em; }
.swatch.baseline { background: var(--baseline); } .swatch.optimum { background: var(--optimum); }
.swatch.agent { background: var(--agent); }
details { margin-top: .6rem; font-size: .9rem; } summary { cursor: pointer; color: var(--link); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .3rem 1rem; margin: .6rem 0 0; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: .5rem .75rem; white-space: pre-wrap; background: var(--shade); border-radius: .4rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: .9rem; }
@media (max-width: 40rem) {
  tbody th small { white-space: normal; }
  body { padding: 1rem .75rem 2rem; } th, td { padding: .4rem .5rem; }
  dl { grid-template-columns: minmax(0, 1fr); gap: 0; } dd { margin-bottom: .5rem; }
  th[scope=row] { min-width: 7.8rem; max-width: 9rem; font-size: .88rem; line-height: 1.3;
    border-right: 1px solid var(--line); }
}
"""
