"""The pages of words: what changed, the rules, and how to read ranks."""

from collections.abc import Sequence

from matchgym.leaderboards.board import ABOVE_BOUND, levels
from matchgym.leaderboards.markup import Record, facts, minus, page, text
from matchgym.leaderboards.measuring import TREND_GROWTH
from matchgym.leaderboards.network import OPERATIONS
from matchgym.leaderboards.ranking import RESAMPLES
from matchgym.leaderboards.shapes import MAX_AXES
from matchgym.leaderboards.tasks import LOOKS

TITLES = {
    "season-opened": "Season opened",
    "season-closed": "Season closed, secret revealed",
    "season-archived": "Last board of a season kept",
    "submitted": "Submitted",
    "refused": "Not evaluated",
}


def changes_page(board: Record, records: Sequence[Record]) -> str:
    """The records that change who is on the board, newest first, and how many rows were measured for each."""
    names = {record["body"]["artefact"]: record["body"]["name"] for record in records if record["kind"] == "submitted"}
    rows = [record["body"]["artefact"] for record in records if record["kind"] == "evaluated"]
    items = []
    for record in reversed(records):
        if record["kind"] not in TITLES:
            continue
        body = record["body"]
        what = {
            "season-opened": f"{text(body['season'])}, commitment <code>{text(body.get('commitment'))}</code>, suite "
            f"{text(body.get('suite_version'))}, scorer {text(body.get('scorer_version'))}",
            "season-closed": f"{text(body['season'])}, secret <code>{text(body.get('secret'))}</code>",
            "season-archived": f'{text(body["season"])}, <a href="blobs/{text(body.get("board_sha256"))}"><code>'
            f"{text(body.get('board_sha256'))}</code></a>",
            "submitted": f"{text(body.get('name'))}, {rows.count(body.get('artefact'))} measurements, sha256 "
            f"<code>{text(body.get('artefact', '')[:16])}</code>",
            "refused": f"{text(names.get(body.get('artefact'), ''))} on {text(body.get('task'))}: {text(body.get('reason'))}",
        }[record["kind"]]
        items.append(
            f"<tr><td class='number'>{record['n']}</td><td class='number'>{text(record['at'])}</td>"
            f"<td>{TITLES[record['kind']]}</td><td class='reason'>{what}</td></tr>"
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Record", "When", "What", "Which"))
    body = (
        "<p>Records are appended and never changed; each holds the sha256 of the one before. Whatever came in stays listed."
        '</p><div class="scroll" role="region" aria-label="Changes" tabindex="0"><table>'
        f'<caption class="hidden">Changes, newest first</caption><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(items)}</tbody></table></div>"
    )
    return page("Changes", body, board, "changes.html")


def rules_page(board: Record) -> str:
    """What may be submitted and how it is evaluated."""
    looks = ", ".join(map(str, LOOKS[:-1]))
    season = board["season"]
    secret = "not revealed while the season is open" if season["secret"] is None else f"<code>{text(season['secret'])}</code>"
    body = f"""
<h2>What is submitted</h2>
<p>A policy, never a number and never code: a folder with a manifest and one file per entry. <code>onnx-mlp/1</code> is
a small network from an observation to one score per action; <code>declarative/1</code> names a policy of the package and
its parameters. No pickle and no archive is ever opened. All baselines came through the same door.</p>
<p>A network is an ONNX file of the operations {", ".join(sorted(OPERATIONS))}. Weights are constants, tables have up to
{MAX_AXES} axes and no operation works along the first, that of the observations.</p>
<pre>matchgym export runs/NAME -o DIR --author "..."
matchgym check DIR
matchgym submit DIR</pre>
<h2>How it is evaluated</h2>
<p>The project runs it. A network runs in a jail that sees observations and nothing else; the evaluating side applies
the mask and
chooses the action. A row is measured on {looks} and then {LOOKS[-1]} replications, and left at a look at which it is
significantly
worse than the best classical baseline. Its mean is then that of this baseline on all replications plus the mean
difference
on those that both have. Rows of the first tier, and the best agent better than the best baseline, are measured once more on
fresh seeds; a row
counts as better only if these agree.</p>
<h2>Seeds</h2>
<p>Public seeds are for practice. A season’s seeds come from a secret whose sha256 is published when the season opens;
the secret is
published when it closes, and then anyone can replay any row.</p>
{facts({"Season": text(season["name"]), "Commitment": f"<code>{text(season['commitment'])}</code>", "Secret": secret})}
<h2>What is not a record</h2>
<p>A mean above the certified bound by more than {ABOVE_BOUND:g} standard errors is a bug, and the row is quarantined.
A policy
under which the backlog grows (costs rise along the run beyond doubt and by a factor of {TREND_GROWTH:g}) is unstable:
score −1 on
that task, no interval. Copies of what is on the board are refused; rows that decide alike are marked. Every attempt stays
listed.</p>
<h2>Methods</h2>
<p>A row is one policy, and its interval is the noise of evaluation. What a training method does is another question: a
method is
listed once five independently trained agents of one name are submitted, with the interquartile mean over runs and
tasks and a
bootstrap over training seeds.</p>"""
    return page("Rules", body, board, "rules.html")


def ranks_page(board: Record) -> str:
    """What ranks, tiers, verdicts and scores do and do not say."""
    error = levels()
    body = f"""
<h2>Scores</h2>
<p>For replication b the score is (J<sub>b</sub> {minus("-")} J0<sub>b</sub>) / mean of (UB<sub>b</sub> {minus("-")}
J0<sub>b</sub>):
J is the objective, J0 that of the anchor under the same seeds, UB the certified bound. 0 is the anchor, 1 the bound.
The interval is
Student’s over replications for a ratio of means, since the anchor’s mean is an estimate too. Where every replication
draws an
instance of its own, each has its own bound.</p>
<h2>Ranks</h2>
<p>All pairs of rows are compared at once, under the same seeds: the largest |t| over all pairs, if no row were better
than another,
is drawn {RESAMPLES:,} times by turning the signs of whole replications. A pair differs if its own t is beyond the
{error["family"]:.0%}
quantile of that. A rank a–b says that a {minus("-")} 1 rows are better and that b is the number of rows that are not
worse; with
95 % confidence every row’s true rank lies in its interval.</p>
<h2>Tiers</h2>
<p>Rows are in order of their means. The first leads tier 1; a row that is significantly worse than the leader of the
present tier
leads the next one, any other joins. The order within a tier is not significant against its first row. A row may still
tie with
members of the tier above, which its ranks show.</p>
<h2>Against the best baseline</h2>
<p>Better, tie or worse is a paired t test against the classical baseline with the largest mean (the exact optimum and
policies that
are told hidden rewards do not count as such), Holm-adjusted over the rows of the task, at {error["look"]:.2%} because
a row may be
looked at three times. “Better” stands only if fresh seeds say so too: of a hundred agents that equal the best
baseline, with
probability 95 % none is called better.</p>
<h2>Tracks</h2>
<p>A track is one environment. Its score is the unweighted mean over its tasks; the worst task and the interquartile
mean stand beside
it, since a mean can hide a failure.</p>"""
    return page("How to read ranks", body, board, "ranks.html")
