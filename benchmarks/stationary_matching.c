/* Stationary matching by hand: the yardstick of benchmarks/speed.py for the compiled simulation.

   The same algorithm as matchgym.baselines.simulate with the greedy policy and without synchronisation: SFC64 streams,
   inversion for the exponential clock, one alias table for all arrivals, a Gillespie loop, sorted preference lists. In
   `simulate` the policy reads the queues themselves; in `simulate_observed` it sees what a policy of the package sees, an
   observation of 32-bit floats written after every decision. Neither writes masks, which greedy does not read. */

#include <math.h>
#include <stdint.h>

typedef struct {
    int64_t n_suppliers, n_customers;
    double arrival_rate;           /* sum of lambda and gamma */
    const double *departure_rates; /* (I,) */
    const double *rewards;         /* (I, J) */
    const double *threshold;       /* (I + J,) alias table: suppliers, then customers */
    const int64_t *outcomes;       /* (I + J, 2) each cell's own type and its alias */
    const int64_t *order;          /* (J, I) preference lists, best first */
    const int64_t *length;         /* (J,) */
} Market;

typedef struct {
    uint64_t a, b, c, count;
} Stream;

static inline uint64_t next_word(Stream *s)
{
    uint64_t word = s->a + s->b + s->count++;
    s->a = s->b ^ (s->b >> 11);
    s->b = s->c + (s->c << 3);
    s->c = ((s->c << 24) | (s->c >> 40)) + word;
    return word;
}

static inline double uniform(Stream *s)
{
    return (double)(next_word(s) >> 11) * 0x1p-53;
}

static inline void observe(const int64_t *queue, int64_t customer, int64_t n, int64_t m, float *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)queue[i];
    for (int64_t j = 0; j < m; j++)
        out[n + j] = 0.0f;
    out[n + customer] = 1.0f;
}

/* Take `decisions` decisions in every row: streams (B, 4), queues (B, I), departure_rates, clocks, rewards (B,),
   customers (B,) are read and left ready for the next call, and obs (B, I + J) if is_observed. */
static inline void run(const Market *m, int64_t rows, int64_t decisions, uint64_t *streams, int64_t *queues,
                       double *departure, double *clock, int64_t *customers, double *rewards, float *observations,
                       const int is_observed)
{
    const int64_t n = m->n_suppliers, n_types = m->n_suppliers + m->n_customers;
    const double arrival_rate = m->arrival_rate, to_cells = n_types / m->arrival_rate;
    for (int64_t row = 0; row < rows; row++) {
        Stream s = {streams[4 * row], streams[4 * row + 1], streams[4 * row + 2], streams[4 * row + 3]};
        int64_t *queue = queues + n * row, customer = customers[row];
        double departure_rate = departure[row], elapsed = clock[row], earned = 0.0;
        float *obs = observations + n_types * row;
        if (is_observed)
            observe(queue, customer, n, n_types - n, obs);
        for (int64_t decision = 0; decision < decisions; decision++) {
            int64_t seen = customer;
            if (is_observed)
                for (seen = 0; obs[n + seen] == 0.0f; seen++)
                    ;
            const int64_t *list = m->order + n * seen;
            for (int64_t k = 0; k < m->length[seen]; k++) {
                int64_t i = list[k];
                if (is_observed ? obs[i] > 0.0f : queue[i] > 0) {
                    queue[i]--;
                    departure_rate -= m->departure_rates[i];
                    earned += m->rewards[i * m->n_customers + customer];
                    break;
                }
            }
            for (;;) {
                double total = arrival_rate + departure_rate;
                double fraction = uniform(&s), level = uniform(&s) * total;
                double cell = level * to_cells;
                int64_t i = (int64_t)cell;
                if (i >= n_types)
                    i = n_types - 1;
                i = m->outcomes[2 * i + (cell - i >= m->threshold[i])];
                elapsed -= log(1.0 - fraction) / total;
                if (level < arrival_rate) {
                    if (i >= n) {
                        customer = i - n;
                        break;
                    }
                    queue[i]++;
                    departure_rate += m->departure_rates[i];
                    continue;
                }
                level -= arrival_rate;
                for (int64_t i = 0; i < n; i++) {
                    double rate = m->departure_rates[i] * queue[i];
                    if (level < rate) {
                        queue[i]--;
                        departure_rate -= m->departure_rates[i];
                        break;
                    }
                    level -= rate;
                }
            }
            if (is_observed)
                observe(queue, customer, n, n_types - n, obs);
        }
        streams[4 * row] = s.a, streams[4 * row + 1] = s.b, streams[4 * row + 2] = s.c, streams[4 * row + 3] = s.count;
        departure[row] = departure_rate, clock[row] = elapsed, customers[row] = customer, rewards[row] += earned;
    }
}

void simulate(const Market *m, int64_t rows, int64_t decisions, uint64_t *streams, int64_t *queues, double *departure,
              double *clock, int64_t *customers, double *rewards, float *observations)
{
    run(m, rows, decisions, streams, queues, departure, clock, customers, rewards, observations, 0);
}

void simulate_observed(const Market *m, int64_t rows, int64_t decisions, uint64_t *streams, int64_t *queues,
                       double *departure, double *clock, int64_t *customers, double *rewards, float *observations)
{
    run(m, rows, decisions, streams, queues, departure, clock, customers, rewards, observations, 1);
}
