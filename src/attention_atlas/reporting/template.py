"""The Jinja2 template of the report, as a Python string so that it is installed with the package."""

# ruff: noqa: E501  (lines of HTML)

PAGE = """{% macro outcome(o) %}
{{ o.claim }}: <span{% if o.verdict in ("contrary to the paper", "not met") %} class="contrary"{% endif %}>{{ o.verdict }}</span>
{% if o.reason %} <span class="ci">({{ o.reason }})</span>{% endif %}
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention Atlas: report</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; max-width: 70em; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.7em; margin-bottom: .2em; }
h2 { font-size: 1.35em; margin-top: 2.2em; border-bottom: 1px solid #ccc; padding-bottom: .2em; }
h3 { font-size: 1.08em; margin: 1.8em 0 .4em; }
table { border-collapse: collapse; font-size: .92em; margin: .6em 0; }
th, td { padding: .3em .7em; text-align: left; vertical-align: top; border-bottom: 1px solid #e2e2e2; }
thead th { border-bottom: 1.5px solid #666; font-weight: 600; }
td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ci, .small { color: #5c5c5c; font-size: .88em; }
.paper { color: #0b5394; }
.contrary { color: #b00020; font-weight: 600; }
.wide { overflow-x: auto; }
figure { margin: 1em 0 1.8em; }
figure img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .92em; max-width: 56em; }
.about td { padding: .1em .7em; border: 0; }
li { max-width: 62em; margin-bottom: .25em; }
p { max-width: 62em; }
@media print { body { max-width: none; margin: 0; } figure, tr { break-inside: avoid; } }
</style>
</head>
<body>
<h1>Attention Atlas</h1>
<p>Numbers of the papers <span class="paper">in blue</span> next to ours{% if profile %} (profile
<b>{{ profile }}</b>){% endif %}. Square brackets: 95&nbsp;% bootstrap interval over images; &ldquo;none&rdquo;
if there is none, e.g. for a single image. Chance: the value for attention or a method without any
information. Layers and heads count from 1. The interval of a highest head or layer does not account for its
selection. A claim of a paper is judged by these intervals: “as in the paper”, “contrary to the paper” or “not
decided”. They cover the variation of test images, not of training runs.</p>
{% if studies|length > 1 %}
<ul>{% for s in studies %}<li><a href="#{{ s.name }}">{{ s.title }}</a></li>{% endfor %}</ul>
{% endif %}
{% if studies|selectattr("targets")|list %}
<h2 id="targets">Targets</h2>
<p>What the studies should show in this profile. Met or not met: the whole interval is on one side of the target; not
decided: the interval includes it.</p>
<div class="wide"><table>
<thead><tr><th>study</th><th>number</th><th class="num">value</th><th class="num">interval</th><th class="num">chance</th>
<th class="num">n</th><th>compared with</th><th>target</th></tr></thead>
<tbody>
{% for s in studies %}{% for t in s.targets %}
<tr><td>{% if loop.first %}<a href="#{{ s.name }}">{{ s.title }}</a>{% endif %}</td><td>{{ t.name }}</td>
<td class="num"><b>{{ t.ours.value }}</b>{{ t.unit }}</td><td class="num ci">{{ t.ours.interval }}</td>
<td class="num">{{ t.ours.chance }}</td><td class="num">{{ t.ours.n }}</td><td class="small">{{ t.other }}</td>
<td>{% if t.outcome %}{{ outcome(t.outcome) }}{% endif %}</td></tr>
{% endfor %}{% endfor %}
</tbody></table></div>
{% endif %}
{% for s in studies %}
<h2 id="{{ s.name }}">{{ s.title }}</h2>
{% if s.paper %}<p class="small">{{ s.paper }}</p>{% endif %}
{% if s.intro %}<p>{{ s.intro }}</p>{% endif %}
{% if s.headlines %}
<h3>The paper's numbers and ours</h3>
<div class="wide"><table>
<thead><tr><th>number</th><th class="num paper">paper</th><th class="num">ours</th><th class="num">interval</th>
<th class="num">chance</th><th class="num">n</th><th>where</th><th>the paper's claim</th><th>convention</th></tr></thead>
<tbody>
{% for h in s.headlines %}
<tr><td>{{ h.name }}</td><td class="num paper">{{ h.paper or "—" }}</td>
<td class="num"><b>{{ h.ours.value }}</b>{{ h.unit }}</td><td class="num ci">{{ h.ours.interval }}</td>
<td class="num">{{ h.ours.chance }}</td><td class="num">{{ h.ours.n }}</td><td>{{ h.ours.where }}</td>
<td>{% if h.outcome %}{{ outcome(h.outcome) }}{% endif %}</td>
<td class="small">{{ h.convention }}{{ h.ours.note }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% for t in s.tables %}
<h3>{{ t.title }}</h3>
<div class="wide"><table>
<thead><tr><th></th>{% for c in t.columns %}<th class="num">{{ c }}</th>{% endfor %}<th class="num">n</th></tr></thead>
<tbody>
{% for r in t.rows %}
<tr><td>{{ r.label }}{% if not r.present %} <span class="small">(not run)</span>{% endif %}</td>
{% for c in r.cells %}
<td class="num">{% if c.paper %}<span class="paper">{{ c.paper }}</span><br>{% endif %}
<b>{{ c.ours.value }}</b>{% if c.ours.interval not in ("", "none") %}<br><span class="ci">{{ c.ours.interval }}</span>{% endif %}
{% if c.ours.chance %}<br><span class="small">chance {{ c.ours.chance }}</span>{% endif %}</td>
{% endfor %}
<td class="num">{{ r.n }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if t.claims %}
<p class="small">The paper's claims:</p>
<ul>{% for what, found in t.claims %}<li class="small">{{ what }}: {{ outcome(found) }}</li>{% endfor %}</ul>
{% endif %}
{% if t.caption or t.footnotes %}<p class="small">{{ t.caption }}{% for f in t.footnotes %} A dash: {{ f }}.{% endfor %}</p>{% endif %}
{% endfor %}
{% for f in s.figures %}
<figure><h3>{{ f.title }}</h3>
<img alt="{{ f.title }}" width="{{ f.width }}" src="data:image/png;base64,{{ f.data }}">
<figcaption>{{ f.caption }} <a href="{{ f.pdf }}">PDF</a></figcaption></figure>
{% endfor %}
{% for t in s.summaries %}
<h3>{{ t.title }}</h3>
<div class="wide"><table>
<thead><tr><th>attention</th><th>condition</th><th class="num">mean over heads</th><th class="num">interval</th>
<th class="num">chance</th><th class="num">highest head</th><th class="num">interval</th><th>where</th>
<th class="num">n</th></tr></thead>
<tbody>
{% for l in t.lines %}
<tr><td>{{ l.kind }}</td><td>{{ l.condition }}</td><td class="num">{{ l.overall.value }}</td>
<td class="num ci">{{ l.overall.interval }}</td><td class="num">{{ l.overall.chance }}</td>
{% if l.best %}
<td class="num"><b>{{ l.best.value }}</b></td><td class="num ci">{{ l.best.interval }}</td><td>{{ l.best.where }}</td>
{% else %}
<td></td><td></td><td></td>
{% endif %}
<td class="num">{{ l.overall.n }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if t.caption %}<p class="small">{{ t.caption }}</p>{% endif %}
{% endfor %}
{% if s.notes %}
<h3>Notes</h3>
<ul>{% for n in s.notes %}<li>{{ n }}</li>{% endfor %}</ul>
{% endif %}
{% if s.about %}
<h3>What was measured</h3>
<table class="about">{% for k, v in s.about %}<tr><td class="small">{{ k }}</td><td>{{ v }}</td></tr>{% endfor %}</table>
{% endif %}
<p class="small">All numbers:
{% for f in s.files %}<a href="{{ s.folder }}/tables/{{ f }}.csv">{{ f }}.csv</a>{{ " " if not loop.last }}{% endfor %}</p>
{% endfor %}
</body>
</html>
"""
