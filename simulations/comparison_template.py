"""The template of a comparison's page.

In a module, not an .html file: a Flower bundle leaves such files out.
"""

COMPARISON = """\
{% extends "base" %}
{% from "macros" import chart, grid, table %}
{% block body %}
{% for scenario in scenarios %}
<h2 id="{{ scenario.id }}">{{ scenario.name }}</h2>
{% if scenario.bars %}
{{ chart(scenario.bars) }}
<p>Means over seeds with their 95% intervals (Student's t); a dot is a run. A domain's score is
what the generator of a client's cluster gets, on average over the domain's clients.</p>
{% else %}
<p>No run has finished.</p>
{% endif %}
{% for one in scenario.tables %}
<h3>{{ one.title }}</h3>
{{ table(one.title, one.head, one.rows) }}
{% endfor %}
{% if scenario.costs %}
<h3>What it costs</h3>
<p>Seconds of training in a round as predicted for the devices of the run, cohorts one after the
other; what a client sends and receives, and computes, in a round.</p>
{{ table("What it costs", scenario.costs_head, scenario.costs) }}
{% endif %}
{% if scenario.curves %}
{% for one in scenario.curves %}
<h3>{{ one.title }}, over rounds, computing and bytes</h3>
{{ chart(one.picture) }}
{% endfor %}
<p>Lines are means over seeds, shades reach from the least to the most.</p>
{% endif %}
{% for one in scenario.grids %}
<h3>Generated {{ one.title }}</h3>
<div class="strip">{% for picture in one.pictures %}{{ grid(picture) }}{% endfor %}</div>
{% endfor %}
{% if scenario.pairs %}
<details>
<summary>Differences between methods</summary>
<p>By how much a line's score is above a column's, over the seeds that both have, with the 95%
interval of the mean; bold where it leaves out zero, <span class="better">better</span> or
<span class="worse">worse</span> for the line. Intervals are not widened for the number of
pairs: of twenty that do not differ, one may look as if it did.</p>
{% for one in scenario.pairs %}
<h3>{{ one.title }}</h3>
<div class="scroll" role="region" aria-label="{{ one.title }}" tabindex="0"><table>
<thead><tr>{% for cell in one.head %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in one.rows %}
<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td class="{{ cell.says }}">{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endfor %}
</details>
{% endif %}
{% endfor %}

<h2 id="crossing">{{ sections.crossing }}</h2>
<p>Between clients and server; besides, with every method, clients tell numbers of images, losses,
scores, peak memory, what their device can do, and in simulation the name of their domain.</p>
<div class="config">{{ table(sections.crossing, ["method", "what crosses"], crossing) }}</div>

<h2 id="runs">{{ sections.runs }}</h2>
{% if failed %}
<div class="config">{{ table("Failed", ["failed", "seed", "reason"], failed) }}</div>
{% endif %}
<details>
<summary>{{ runs|length }} runs</summary>
<div class="config">{{ table(sections.runs, ["run", "folder", ""], runs) }}</div>
</details>
{% endblock %}
"""
