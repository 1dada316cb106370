"""`matchgym demo`: the whole mission on one small instance."""

from pathlib import Path

from rich.table import Table

from matchgym.baselines.exact import exact_value
from matchgym.cli.output import Stopwatch, console, significant
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find

ID, INSTANCE = "StationaryMatching-v0", "demo"


def run_demo(folder: Path, timesteps: int | None) -> None:
    """Bound, baselines, a trained agent, and a leaderboard page in `folder`."""
    from matchgym.agents import train
    from matchgym.leaderboards.board import build_board

    watch, entry = Stopwatch(), find(ID)
    instance = entry.model.load(INSTANCE)
    console.rule(f"1  Bounds: what can any policy earn on {ID}, instance {INSTANCE}?", align="left")
    layer, lines = entry.layer("bounds"), {}
    for kind in layer.KINDS:
        found = layer.bound(instance, kind)
        found.verify()
        lines[kind] = found
        bracket = f"  in [{found.lower:.9g}, {found.upper:.9g}]" if found.lower is not None else ""
        console.print(f"  {kind:15s} {found.certified_value:.6f}{bracket}   verified in exact arithmetic")

    console.rule("2  The paper's algorithms, by the exact value of their Markov chain", align="left")
    ceiling, best = lines[layer.KINDS[0]].certified_value, lines["optimum"].value
    table = Table("policy", "reward per unit of time", "share of the optimum", "share of the bound", box=None, padding=(0, 2))
    for name, kind in entry.layer("baselines").POLICIES.items():
        try:
            value = exact_value(kind().fit(instance)).mean
        except InputError:
            table.add_row(name, "-", "(simulated in step 4)", "")
            continue
        table.add_row(name, f"{value:.6f}", f"{value / best:.2%}", f"{value / ceiling:.2%}")
    console.print(table)

    console.rule("3  An agent: MaskablePPO of sb3-contrib on the native vector environment", align="left")
    marks = {
        "bound (tlp-online)": ceiling,
        "exact optimum": best,
        "greedy": exact_value(entry.layer("baselines").POLICIES["greedy"]().fit(instance)).mean,
    }
    agent = train(ID, instance, "maskable_ppo", timesteps, folder=folder / "agent", lines=marks)
    value = exact_value(agent.policy).mean
    console.print(
        f"  {agent.timesteps:,} steps in {agent.seconds:.0f} s; exact value {value:.6f}: {value / best:.2%} of the optimum, "
        f"{significant(value / ceiling, 4)} of the bound"
    )
    console.print(f"  learning curve: {agent.folder / 'curve.png'}")

    console.rule("4  Leaderboard: everyone under the same seeds, between the anchor and the bound", align="left")
    page = build_board(folder / "board", tasks=[INSTANCE], agents=[agent.folder], quick=True)
    console.print(f"  page: {page}")
    console.print(f"  all done in {watch.seconds:.0f} s")
