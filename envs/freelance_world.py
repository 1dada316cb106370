"""What an epoch of a freelance market brings: jobs and agents, by their laws."""

from matchgym.envs.compile import kernel
from matchgym.envs.freelance_instances import BINOMIAL, POISSON
from matchgym.envs.rng import binomial, poisson, uniform


@kernel
def draw_kernel(stream, b, law, mean, trials, factor):
    """A Poisson or binomial count."""
    if mean * factor <= 0.0:
        return 0
    if law == POISSON:
        return int(poisson(stream, b, mean * factor))
    return int(binomial(stream, b, trials, mean * factor / trials))


@kernel
def outcome_kernel(stream, b, levels):
    """The index of an outcome; a certain one needs no number."""
    k = 0
    if len(levels) > 1:
        level = uniform(stream, b)
        while k < len(levels) - 1 and level >= levels[k]:
            k += 1
    return k


@kernel
def world_kernel(params, state, b):
    """Draw the arrivals and the agents of the epoch that begins."""
    skills = params.job_hours.shape[1]
    if params.arrival_law <= BINOMIAL:
        factor = params.pattern[state.elapsed_time[b] % len(params.pattern)]
        for j in range(len(params.arrival_means)):
            mean, trials = params.arrival_means[j], params.arrival_trials[j]
            state.arrivals[b, j] = draw_kernel(state.world, b, params.arrival_law, mean, trials, factor)
    else:
        k = outcome_kernel(state.world, b, params.arrival_levels)
        for j in range(len(params.arrival_means)):
            state.arrivals[b, j] = params.arrival_counts[k, j]
    if params.agent_law <= BINOMIAL:
        for i in range(len(params.agent_means)):
            mean, trials = params.agent_means[i], params.agent_trials[i]
            state.agents[b, i] = draw_kernel(state.world, b, params.agent_law, mean, trials, 1.0)
    else:
        k = outcome_kernel(state.world, b, params.agent_levels)
        for i in range(len(params.agent_means)):
            state.agents[b, i] = params.agent_counts[k, i]
    for k in range(state.hours.shape[1]):
        state.hours[b, k] = 0.0
    for i in range(len(params.agent_means)):
        if state.agents[b, i] > 0:
            for s in range(skills):
                state.hours[b, params.agent_category[i] * skills + s] += state.agents[b, i] * params.agent_hours[i, s]
