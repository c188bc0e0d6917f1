"""What all pages have in common: their look, their frame, and macros for what is on them.

In modules, not .html files: a Flower bundle leaves such files out.
"""

MACROS = """\
{% macro chart(picture) %}
<figure class="chart" tabindex="0"><img src="{{ picture.uri }}" alt="{{ picture.alt }}"></figure>
{% endmacro %}
{% macro grid(picture) %}
<figure>
<img src="{{ picture.uri }}" alt="{{ picture.alt }}">
<figcaption>{{ picture.caption }}</figcaption>
</figure>
{% endmacro %}
{% macro table(name, head, rows) %}
<div class="scroll" role="region" aria-label="{{ name }}" tabindex="0"><table>
{% if head %}
<thead><tr>{% for cell in head %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
{% endif %}
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td>{{ cell|value }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}
"""
"""A chart, a picture with its caption, a table with a name for who cannot see it."""

_STYLE = """\
:root {
  --text: #1d2329; --faint: #5b6570; --page: #f6f7f8; --card: #ffffff; --line: #dde1e5;
  --link: #22609a; --right: 0 119 187; --wrong: 238 102 51; --better: #1a7f37; --worse: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #dfe4e8; --faint: #98a3ae; --page: #15191d; --card: #1e2429; --line: #343c44;
    --link: #7db4e6; --better: #57c27a; --worse: #f2877f;
  }
  /* Charts are drawn black on white: turned around, with their hues kept. */
  .chart img { filter: invert(0.88) hue-rotate(180deg); }
  figure.chart { background: #1f1f1f; }
}
html { scroll-behavior: smooth; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem;
  color: var(--text); background: var(--page);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 {
  margin: 3rem 0 0.75rem; padding-bottom: 0.3rem; font-size: 1.3rem;
  border-bottom: 1px solid var(--line);
}
h3, h4 { margin: 1.5rem 0 0.5rem; font-size: 1.02rem; }
p { max-width: 44rem; margin: 0.5rem 0; overflow-wrap: anywhere; }
.faint, figcaption { color: var(--faint); }
a { color: var(--link); }
nav { margin: 1.25rem 0 0; }
nav a { margin-right: 1.1rem; white-space: nowrap; }
dl {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.75rem;
  margin: 1.5rem 0;
}
dl div, .card {
  padding: 0.7rem 0.9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px;
}
dt { font-size: 0.85rem; color: var(--faint); }
dd { margin: 0.1rem 0 0; font-size: 1.12rem; font-variant-numeric: tabular-nums; }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 0.75rem; margin: 1.5rem 0 0.75rem;
}
.card h2 { margin: 0; padding: 0; border: 0; font-size: 1.05rem; overflow-wrap: anywhere; }
.card span { white-space: nowrap; }
.card strong { font-size: 2.3rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card figure { padding: 0; border: 0; background: none; }
.scroll { overflow: auto; max-height: 85vh; margin: 0.75rem 0; }
/* Rows of whole pixels, or what stays in place while others scroll covers their lines. */
table {
  border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums;
  font-size: 0.9375rem; line-height: 1.5rem;
}
th, td {
  padding: 0.25rem 0 0.25rem 1.4rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
th:first-child {
  position: sticky; left: 0; padding: 0.25rem 0.4rem 0.25rem 0; text-align: left;
  font-weight: normal; background: var(--page);
}
thead th, thead th:first-child {
  position: sticky; top: 0; z-index: 1; min-width: 4.5rem; vertical-align: bottom;
  white-space: normal; font-weight: 600; background: var(--page);
}
thead th:first-child { z-index: 2; }
.config .scroll { max-height: none; }
.config th { text-align: left; }
.config td {
  min-width: 6.5rem; text-align: left; white-space: normal; overflow-wrap: anywhere;
  font-family: ui-monospace, Menlo, Consolas, monospace;
}
.confusion th, .confusion td {
  padding: 0.125rem 0.35rem; text-align: center; border: 1px solid var(--page);
}
.confusion th, .confusion th:first-child, .confusion td { min-width: 1.5rem; }
.confusion .none { color: var(--faint); }
.matrices { display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
pre {
  padding: 0.7rem 0.9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere;
}
figure {
  margin: 0.75rem 0; padding: 0.75rem; background: var(--card); border-radius: 8px;
  border: 1px solid var(--line);
}
figure img { display: block; width: 100%; height: auto; }
.chart { overflow-x: auto; }
.chart img { min-width: 40rem; }
figcaption { padding-top: 0.4rem; font-size: 0.85rem; text-align: center; }
.strip { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.75rem; }
.pair { display: grid; grid-template-columns: repeat(2, 1fr); gap: 0.75rem; }
.strip figure, .pair figure { margin: 0; }
.pair audio { width: 100%; }
.slider {
  position: sticky; top: 0; z-index: 1; display: flex; gap: 0.75rem; align-items: center;
  max-width: none; padding: 0.6rem 0; background: var(--page);
}
.slider[hidden] { display: none; }
.slider input { flex: 1; accent-color: var(--link); }
.slider output { min-width: 4.5rem; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; }
  .strip { grid-template-columns: repeat(2, 1fr); }
  .rounds .pair { grid-template-columns: 1fr; }
  th:first-child {
    min-width: 7rem; max-width: 8.5rem; white-space: normal; overflow-wrap: anywhere;
  }
  th, td { padding-left: 0.9rem; }
  thead th { min-width: 6rem; }
  .confusion th, .confusion th:first-child, .confusion td {
    min-width: 1.25rem; padding: 0.125rem 0.2rem; font-size: 0.8rem; white-space: nowrap;
  }
}
.better, .worse { font-weight: 600; }
.better { color: var(--better); }
.worse { color: var(--worse); }
details { margin: 0.75rem 0; }
summary { cursor: pointer; color: var(--link); }
@media print { figure, tr { break-inside: avoid; } .slider { display: none; } }
"""

BASE = (
    """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'
  {%- block policy %}{% endblock %}">
{% block head %}{% endblock %}
<title>{{ name }}</title>
<style>
"""
    + _STYLE
    + """\
</style>
</head>
<body>
<header>
<h1>{{ name }}</h1>
<p class="faint">{{ about }}</p>
<nav aria-label="Contents">
{% for id, title in sections.items() %}<a href="#{{ id }}">{{ title }}</a>
{% endfor %}
</nav>
</header>
{% block top %}{% endblock %}
<dl>
{% for term, description in headline.items() %}
<div><dt>{{ term }}</dt><dd>{{ description|value }}</dd></div>
{% endfor %}
</dl>

{% block body %}{% endblock %}
</body>
</html>
"""
)
"""A page: `name`, `about`, `sections` by their ids, `headline`; the rest is in blocks.

`policy` adds to what its security policy allows, `head` to its head; `top` and `body` are before
and after the headline.
"""
