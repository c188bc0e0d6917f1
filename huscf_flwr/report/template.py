"""The templates of the pages.

In a module, not .html files: a Flower bundle leaves such files out.
"""

MACROS = """\
{% macro chart(picture) %}
<figure class="chart"><img src="{{ picture.uri }}" alt="{{ picture.alt }}"></figure>
{% endmacro %}
{% macro grid(picture) %}
<figure>
<img src="{{ picture.uri }}" alt="{{ picture.alt }}">
<figcaption>{{ picture.caption }}</figcaption>
</figure>
{% endmacro %}
{% macro table(head, rows) %}
<div class="scroll"><table>
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
"""A chart, a picture with its caption, a table."""

BASE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ name }}</title>
<style>
:root {
  --text: #1d2329; --faint: #5b6570; --page: #f6f7f8; --card: #ffffff; --line: #dde1e5;
  --link: #22609a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #dfe4e8; --faint: #98a3ae; --page: #15191d; --card: #1e2429; --line: #343c44;
    --link: #7db4e6;
  }
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
h3 { margin: 1.5rem 0 0.5rem; font-size: 1.02rem; }
p { max-width: 44rem; margin: 0.5rem 0; }
.faint, figcaption { color: var(--faint); }
a { color: var(--link); }
nav { margin: 1.25rem 0 0; }
nav a { margin-right: 1.1rem; white-space: nowrap; }
dl {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.75rem;
  margin: 1.5rem 0;
}
dl div {
  padding: 0.7rem 0.9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px;
}
dt { font-size: 0.85rem; color: var(--faint); }
dd { margin: 0.1rem 0 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.scroll { overflow: auto; max-height: 36rem; margin: 0.75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.93rem; }
th, td {
  padding: 0.3rem 1.4rem 0.3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
th:first-child { text-align: left; font-weight: normal; }
thead th, thead th:first-child { font-weight: 600; }
.config .scroll { max-height: none; }
.config th { text-align: left; }
.config td {
  text-align: left; white-space: normal; font-family: ui-monospace, Menlo, Consolas, monospace;
}
figure { margin: 0.75rem 0; padding: 0.75rem; background: #ffffff; border-radius: 8px;
  border: 1px solid var(--line); }
figure img { display: block; width: 100%; height: auto; }
.chart { overflow-x: auto; }
.chart img { min-width: 40rem; }
figcaption { padding-top: 0.4rem; font-size: 0.85rem; color: #5b6570; text-align: center; }
.strip { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.75rem; }
.pair { display: grid; grid-template-columns: repeat(2, 1fr); gap: 0.75rem; }
.strip figure, .pair figure { margin: 0; }
@media (min-width: 40rem) { thead th { white-space: normal; vertical-align: bottom; } }
@media (max-width: 40rem) {
  .strip { grid-template-columns: repeat(2, 1fr); }
  .pair { grid-template-columns: 1fr; }
}
.better, .worse { font-weight: 600; }
.better { color: #1a7f37; }
.worse { color: #b3261e; }
@media (prefers-color-scheme: dark) { .better { color: #57c27a; } .worse { color: #f2877f; } }
summary { cursor: pointer; color: var(--link); }
@media print { figure, tr { break-inside: avoid; } }
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
<dl>
{% for term, description in headline.items() %}
<div><dt>{{ term }}</dt><dd>{{ description|value }}</dd></div>
{% endfor %}
</dl>

{% block body %}{% endblock %}
</body>
</html>
"""
"""A page: `name`, `about`, `sections` by their ids, `headline`; the rest is the block `body`."""

RUN = """\
{% extends "base" %}
{% from "macros" import chart, grid, table %}
{% block body %}
<h2 id="scores">{{ sections.scores }}</h2>
{% if scores %}{{ table(scores_head, scores) }}{% endif %}
{% if details %}
<details>
<summary>How they were computed</summary>
{{ table(scores_head, details) }}
</details>
{% endif %}
{% if by_cut %}
<details>
<summary>The generators that clients really have</summary>
<p>A client's generator is made of its own blocks and those that the server holds for it. By the
blocks of it at head and tail that are the client's own:</p>
{% for one in by_cut %}
<h3>{{ one.title }}</h3>
{{ table(one.head, one.rows) }}
{% endfor %}
</details>
{% endif %}
{% if score_curves %}
{{ chart(score_curves) }}
{% if on_real %}
<p>Dashed, and in parentheses: what real images get in place of generated ones.</p>
{% endif %}
{% else %}
<p>No round has scores.</p>
{% endif %}

<h2 id="training">{{ sections.training }}</h2>
{{ chart(training) }}

<h2 id="samples">{{ sections.samples }}</h2>
<p>One column per class; the same latent vectors in every round.</p>
{% for pair in pairs %}
<h3>{{ pair.title }}</h3>
<div class="pair">{{ grid(pair.generated) }}{{ grid(pair.real) }}</div>
{% endfor %}
{% for title, pictures in strips.items() %}
<h3>{{ title }}</h3>
<div class="strip">{% for picture in pictures %}{{ grid(picture) }}{% endfor %}</div>
{% endfor %}

<h2 id="clusters">{{ sections.clusters }}</h2>
{{ chart(clusters) }}
<h3>Weights and divergences in round {{ last }}</h3>
{{ chart(weights) }}
<h3>Weights over the rounds</h3>
{{ chart(weights_over_rounds) }}

<h2 id="plan">{{ sections.plan }}</h2>
{% if plan %}
<p>Cut for the fastest iteration{% if plan_devices %} on {{ plan_devices }}{% endif %}, by
{{ plan_search }} search: how many blocks of each end of
generator (G) and discriminator (D) a client holds, and for how many seconds of an iteration it
computes, sends and receives, and keeps the server busy.</p>
{{ table(plan_head, plan) }}
{% elif cuts %}
<p>The cuts were listed, not planned.</p>
{{ table(cuts_head, cuts) }}
{% else %}
<p>The clients hold their nets whole.</p>
{% endif %}
{% if latency %}{{ table(latency_head, latency) }}{% endif %}
{% if timeline %}{{ chart(timeline) }}{% endif %}

<h2 id="data">{{ sections.data }}</h2>
{{ chart(data) }}

<h2 id="exposure">{{ sections.exposure }}</h2>
{% if promised %}<p>{{ promised }}</p>{% endif %}
{% if exposure %}
<p>{% if exposure.own %}Found by the clients themselves, who tell numbers alone: attacks{% else -%}
Attacks{% endif %} on {{ exposure.images }} images of each client, by what it sends of them with
the parameters after round {{ exposure.after }}, as whoever runs the server could. Similarity is
structural, 1 for equal images; shares are of labels that are right.
{% if exposure.not_audited %}Not audited, as they were not in the last round: client
{{ exposure.not_audited|join(", ") }}.{% endif %}</p>
{% for title, head, rows in exposure.tables %}
<h3>{{ title }}</h3>
{{ table(head, rows) }}
{% endfor %}
{% if exposure.strips %}
<p>Images of clients, and what attacks made of them, row by row. This page is as private as they
are.</p>
{% for picture in exposure.strips %}{{ grid(picture) }}{% endfor %}
{% endif %}
{% else %}
<p>Not measured for this run: <code>huscf audit</code> attacks a simulation as whoever runs the
server could; with the key <code>audit-every</code>, clients do that to themselves.</p>
{% endif %}

<h2 id="costs">{{ sections.costs }}</h2>
{{ table([], costs) }}
{% if exchanges %}
<h3>What a client sends and gets in an iteration</h3>
{{ table(["exchange", "up", "down"], exchanges) }}
{% endif %}

<h2 id="config">{{ sections.config }}</h2>
<details>
<summary>{{ config|length }} keys{% if changed %}, {{ changed }} not at their default{% endif %}
</summary>
<div class="config">{{ table(["key", "value", "default"], config) }}</div>
</details>
<p class="faint">{{ versions|join(", ") }}</p>
{% endblock %}
"""
"""The report of one run."""
