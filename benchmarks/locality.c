/* JSQ(d) on N servers of rate 1 and the complete graph, by hand: the yardstick of benchmarks/locality.py.

   The uniformised event loop: every event is an arrival with probability lambda / (lambda + 1), else a departure at a uniform
   server, void if it is empty. Tasks in system are summed over arrivals (which see time averages), so that no clock is needed. */

#include <stdint.h>

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

/* `arrivals` more tasks at queues (N,); stream (4,) is left ready for the next call. Returns the sum of the queue lengths that
   tasks joined, themselves included: minus the sum of rewards. */
double simulate(int64_t n, int64_t d, double load, int64_t arrivals, uint64_t *stream, int32_t *queues)
{
    Stream s = {stream[0], stream[1], stream[2], stream[3]};
    double sojourn = 0.0;
    const double share = load / (load + 1.0);
    while (arrivals > 0) {
        if (uniform(&s) < share) {
            int64_t best = (int64_t)(uniform(&s) * n);
            for (int64_t k = 1; k < d; k++) {
                int64_t other = best;
                while (other == best) /* different for d = 2; for more, repeats are rare at large N */
                    other = (int64_t)(uniform(&s) * n);
                if (queues[other] < queues[best])
                    best = other;
            }
            sojourn += ++queues[best];
            arrivals--;
        } else {
            int64_t j = (int64_t)(uniform(&s) * n);
            if (queues[j] > 0)
                queues[j]--;
        }
    }
    stream[0] = s.a, stream[1] = s.b, stream[2] = s.c, stream[3] = s.count;
    return sojourn;
}
