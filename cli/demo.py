"""`matchgym demo`: the whole mission on one small instance."""

from pathlib import Path

from rich.table import Table

from matchgym.baselines.exact import exact_value
from matchgym.cli.output import Stopwatch, console, progress_bar
from matchgym.envs.instance import InputError
from matchgym.envs.registry import find

ID, INSTANCE = "StationaryMatching-v0", "demo"


def run_demo(folder: Path, timesteps: int | None) -> None:
    """Bound, baselines, a trained agent, and a leaderboard page in `folder`."""
    from matchgym.agents import train
    from matchgym.leaderboards import find_task
    from matchgym.leaderboards.building import build_board

    watch, entry = Stopwatch(), find(ID)
    console.print(f"{ID}, instance {INSTANCE}; objective: long-run reward per unit of time")
    instance = entry.model.load(INSTANCE)
    console.rule("1  Bounds: what can any policy earn?", align="left")
    layer, lines = entry.layer("bounds"), {}
    for kind in layer.KINDS:
        found = layer.bound(instance, kind)
        found.verify()
        lines[kind] = found
        bracket = f"   the best policy, within {found.upper - found.lower:.0e}" if found.lower is not None else ""
        console.print(f"  {kind:15s} {found.certified_value:.6f}{bracket}")
    console.print("  every certificate verified in exact arithmetic")

    console.rule("2  The paper's algorithms, by their exact values", align="left")
    ceiling, best = lines[layer.KINDS[0]].certified_value, lines["optimum"].value
    table = Table("policy", "reward per time", "of optimum", "of bound", box=None, padding=(0, 2))
    for name, kind in entry.layer("baselines").POLICIES.items():
        try:
            value = exact_value(kind().fit(instance)).mean
        except InputError:
            table.add_row(name, "(in step 4)", "", "")
            continue
        table.add_row(name, f"{value:.6f}", f"{value / best:.2%}", f"{value / ceiling:.2%}")
    console.print(table)

    console.rule("3  An agent, trained with MaskablePPO", align="left")
    marks = {
        "bound (tlp-online)": ceiling,
        "exact optimum": best,
        "greedy": exact_value(entry.layer("baselines").POLICIES["greedy"]().fit(instance)).mean,
    }
    agent = train(ID, instance, "maskable_ppo", timesteps, folder=folder / "maskable-ppo", lines=marks)
    value = exact_value(agent.policy).mean
    console.print(
        f"  {agent.timesteps:,} steps in {agent.seconds:.0f} s\n"
        f"  exact value {value:.6f}: {value / best:.2%} of the optimum, {value / ceiling:.2%} of the bound"
    )
    console.print(f"  learning curve: {agent.folder / 'curve.png'}")

    console.rule("4  A leaderboard page, everyone under the same seeds", align="left")
    build_board(folder / "board", [find_task(INSTANCE)], [agent.folder], is_quick=True, bar=progress_bar)
    console.print(f"  page: {folder / 'board' / 'index.html'}")
    console.print(f"  all done in {watch.seconds:.0f} s")
