"""The template of a run's page."""

SCRIPT = """
const box = document.querySelector(".rounds"), slider = box.querySelector("input");
const rounds = slider.dataset.rounds.split(" ").map(Number);
const show = () => {
  const round = rounds[slider.value];
  slider.setAttribute("aria-valuetext", `round ${round}`);
  box.querySelector("output").textContent = `round ${round}`;
  for (const frames of box.querySelectorAll(".frames")) {
    const shown = [...frames.children].filter((frame) => frame.dataset.round <= round).pop();
    for (const frame of frames.children) frame.hidden = frame !== shown;
  }
};
slider.addEventListener("input", show);
slider.parentElement.hidden = false;
show();
"""
"""The slider over rounds: of each cluster's grids, that of its round or else the one before.

Without it, the last are shown.
"""

RUN = """\
{% extends "base" %}
{% from "macros" import chart, grid, table %}
{% block policy %}{% if samples %}; script-src '{{ script_hash }}'{% endif %}{% endblock %}
{% block head %}
{% if refresh %}<meta http-equiv="refresh" content="{{ refresh }}">{% endif %}
{% endblock %}
{% block top %}
<div class="cards">
{% for card in cards %}
<section class="card">
<h2>{{ card.name }}</h2>
{% if card.score %}
<div><strong>{{ card.score.value }}</strong> {{ card.score.what }}
{% if card.score.real %}<span class="faint">(real images {{ card.score.real }})</span>{% endif %}
</div>
{% else %}
<div class="faint">not scored yet</div>
{% endif %}
{% if card.pictures %}
<div class="pair">{% for picture in card.pictures %}{{ grid(picture) }}{% endfor %}</div>
{% endif %}
{% if card.sounds %}
<div class="pair">{% for sound in card.sounds %}
<audio controls src="{{ sound.uri }}" aria-label="{{ sound.alt }}"></audio>
{% endfor %}</div>
{% endif %}
</section>
{% endfor %}
</div>
{% if utility %}
<p class="faint">Utility: the accuracy, on held-out real images, of a classifier that was trained
on generated images only; in parentheses, where known, of one that was trained on real ones.</p>
{% endif %}
{% endblock %}
{% block body %}
<h2 id="scores">{{ sections.scores }}</h2>
{% if scores %}{{ table("Scores", scores_head, scores) }}{% endif %}
{% if details %}
<details>
<summary>How they were computed</summary>
{{ table("How scores were computed", scores_head, details) }}
</details>
{% endif %}
{% if by_cut %}
<details>
<summary>The generators that clients really have</summary>
<p>A client's generator is made of its own blocks and those that the server holds for it. By the
blocks of it at head and tail that are the client's own:</p>
{% for one in by_cut %}
<h3>{{ one.title }}</h3>
{{ table(one.title, one.head, one.rows) }}
{% endfor %}
</details>
{% endif %}
{% if confusions %}
<h3>Classes that are taken for others</h3>
<p>How many held-out images of each class (rows) the classifier that was trained on generated
images takes for each (columns), and the share that is right.</p>
<div class="matrices">
{% for one in confusions %}
<div class="confusion">
<h4>{{ one.name }}</h4>
<div class="scroll" role="region" aria-label="Confusion matrix of {{ one.name }}" tabindex="0">
<table>
<thead><tr><th scope="col">class</th>
{% for row in one.rows %}<th scope="col">{{ row.label }}</th>{% endfor %}
<th scope="col">right</th></tr></thead>
<tbody>
{% for row in one.rows %}
<tr><th scope="row">{{ row.label }}</th>
{% for cell in row.cells %}
<td{% if cell.shade %} style="background: rgb(var(--{{ cell.kind }}) / {{ cell.shade }})"
{% else %} class="none"{% endif %}>{{ cell.count }}</td>
{% endfor %}
<td>{{ row.right }}</td></tr>
{% endfor %}
</tbody>
</table></div></div>
{% endfor %}
</div>
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
{% if samples %}
<div class="rounds">
<div class="slider" hidden>
<output>round {{ samples.rounds[-1] }}</output>
<input type="range" min="0" max="{{ samples.rounds|length - 1 }}" autocomplete="off"
  value="{{ samples.rounds|length - 1 }}" data-rounds="{{ samples.rounds|join(" ") }}"
  aria-label="Round whose generated images are shown">
</div>
{% for cluster in samples.clusters %}
<h3>{{ cluster.title }}</h3>
<div class="pair">
<div class="frames">
{% for number, picture in cluster.frames.items() %}
<div data-round="{{ number }}"{% if not loop.last %} hidden{% endif %}>{{ grid(picture) }}</div>
{% endfor %}
</div>
{% for picture in cluster.real %}{{ grid(picture) }}{% endfor %}
</div>
{% if cluster.more %}
<details>
<summary>Between classes, and nearest to real images</summary>
<div class="pair">{% for picture in cluster.more %}{{ grid(picture) }}{% endfor %}</div>
</details>
{% endif %}
{% endfor %}
</div>
<script>{{ script }}</script>
{% endif %}

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
{{ table("Planned cuts", plan_head, plan) }}
{% elif cuts %}
<p>The cuts were listed, not planned.</p>
{{ table("Cuts", cuts_head, cuts) }}
{% else %}
<p>The clients hold their nets whole.</p>
{% endif %}
{% if latency %}{{ table("Time of an iteration", latency_head, latency) }}{% endif %}
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
{% if exposure.not_audited %}{% if exposure.own %}Nothing was told by{% else %}Not audited, as they
were not in the last round:{% endif %} client {{ exposure.not_audited|join(", ") }}.{% endif %}</p>
{% for title, head, rows in exposure.tables %}
<h3>{{ title }}</h3>
{{ table(title, head, rows) }}
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
{{ table(sections.costs, [], costs) }}
{% if exchanges %}
<h3>What a client sends and gets in an iteration</h3>
{{ table("Bytes of an iteration", ["exchange", "up", "down"], exchanges) }}
{% endif %}

<h2 id="repeat">{{ sections.repeat }}</h2>
{% if simulated %}
<p>The same data, clients and seed, from the folder where this run was started{% if resumed %},
beginning with the last checkpoint of {{ resumed }}{% endif %}:</p>
<pre>{{ command }}</pre>
<p>In one process, on processors of one kind, two runs with one seed end alike, unless cuts are
planned for measured devices; one that Flower ran varies a little.</p>
{% else %}
<p>With the same devices, from the folder of the code, with FLWR_HOME as their server says it, and
another output-dir if the file has one:</p>
<pre>{{ command }}</pre>
{% endif %}
<div class="config">{{ table("What it was run with", [], origin) }}</div>
<h3>Files</h3>
<ul>
{% for name, what in files.items() %}
<li><a href="{{ name }}">{{ name }}</a>{% if what %}: {{ what }}{% endif %}</li>
{% endfor %}
</ul>

<h2 id="config">{{ sections.config }}</h2>
<details>
<summary>{{ config|length }} keys{% if changed %}, {{ changed }} not at their default{% endif %}
</summary>
<div class="config">{{ table("Config", ["key", "value", "default"], config) }}</div>
</details>
{% endblock %}
"""
"""The report of one run."""
