"""What an epoch of a freelance market brings: jobs and agents, by their laws."""

from matchgym.envs.compile import outlined_kernel
from matchgym.envs.freelance_instances import BINOMIAL, POISSON
from matchgym.envs.rng import binomial, poisson, uniform


@outlined_kernel
def draw_counts(stream, b, law, means, trials, factor, levels, outcomes, counts):
    """Draw counts[b] (n,): with means (n,) times factor or, of a finite law, one of outcomes (K, n).

    levels (K,) are cumulative probabilities. The arguments are what is read, not whole records, so that a call is cheap.
    """
    if law <= BINOMIAL:
        for j in range(len(means)):
            mean = means[j] * factor
            if mean <= 0.0:
                counts[b, j] = 0
            elif law == POISSON:
                counts[b, j] = int(poisson(stream, b, mean))
            else:
                counts[b, j] = int(binomial(stream, b, trials[j], mean / trials[j]))
        return
    k = 0
    if len(levels) > 1:
        level = uniform(stream, b)
        while k < len(levels) - 1 and level >= levels[k]:
            k += 1
    for j in range(len(means)):
        counts[b, j] = outcomes[k, j]


@outlined_kernel
def world_kernel(params, state, b):
    """Draw the arrivals and the agents of the epoch that begins."""
    skills, stream = params.job_hours.shape[1], state.world
    factor = params.pattern[state.elapsed_time[b] % len(params.pattern)]
    draw_counts(
        stream, b, params.arrival_law, params.arrival_means, params.arrival_trials, factor,
        params.arrival_levels, params.arrival_counts, state.arrivals,
    )  # fmt: skip
    draw_counts(
        stream, b, params.agent_law, params.agent_means, params.agent_trials, 1.0,
        params.agent_levels, params.agent_counts, state.agents,
    )  # fmt: skip
    for k in range(state.hours.shape[1]):
        state.hours[b, k] = 0.0
    for i in range(len(params.agent_means)):
        if state.agents[b, i] > 0:
            for s in range(skills):
                state.hours[b, params.agent_category[i] * skills + s] += state.agents[b, i] * params.agent_hours[i, s]
