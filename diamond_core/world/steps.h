/* What the engines in C have in common: a list of steps over one image, the threads that take it together, and what
   is the same for all. Our own.

   Images lie as [row][column][channel]. Written with the vector types that gcc and clang share; a source may say how
   many LANES it wants, and says what a step does (`take_step`). */

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>

#ifndef LANES
#define LANES 8
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

enum { TURNS = 10000 }; /* at a gate: some ten microseconds */
enum Kind { READ, STATISTICS, PREPARE, CONV3, HALVE, CONV1, ATTEND, WRITE, NORMALISE, POOL };

/* One step. Places are counted in floats from the start of the image's memory or of the weights. */
typedef struct {
    int kind, h, w, c_in, c_out;      /* of the output; c_in of all inputs together */
    int c_first;                      /* channels of the first of two inputs */
    int groups, modulated, silu;      /* PREPARE: the norm, if any; its scale, less 1, and shift are of the modulation */
    int doubled, border;              /* PREPARE: pixels are repeated; zeros lie around */
    int adds, heads;                  /* `residual` is added; ATTEND */
    int has_raw, counts;              /* tiles.c, PREPARE: `raw` is written, too; convolutions: `statistics` are */
    ptrdiff_t in, in2, out, residual, work, raw;
    ptrdiff_t statistics, statistics2; /* of the inputs' channels, see there */
    ptrdiff_t weight, bias, scale, shift;
} Step;

/* Threads that work together. At the gate they turn for a moment, for the next step is some ten microseconds away, and
   then let others run. */
typedef struct {
    int threads, ready, arrived, round, next;
} Team;

typedef struct Member {
    Team *team;
    int index;
    void (*does)(const struct Member *);
    const void *job;
} Member;

typedef struct {
    Team *team;
    const float *weights, *modulation, *input;
    float *memory, *output;
    int thread, threads;
} Task;

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec x) { *(vec *)p = x; }
#if LANES == 8
static inline vec all(float x) { return (vec){x, x, x, x, x, x, x, x}; }
#else
static inline vec all(float x) { return (vec){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
#endif

static inline vec chosen(ivec yes, vec x, vec y) { return (vec)((yes & (ivec)x) | (~yes & (ivec)y)); }

static inline vec larger(vec x, vec y) { return chosen(x > y, x, y); }

static inline int smaller(int a, int b) { return a < b ? a : b; }

/* A thread's part of n things: from part(t) to part(t + 1). */
static inline int part(int n, int t, int threads) { return (int)((long)n * t / threads); }

static void gate(Team *team) {
    int round = __atomic_load_n(&team->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == team->threads) {
        __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
        __atomic_add_fetch(&team->round, 1, __ATOMIC_RELEASE);
        return;
    }
    for (int turns = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; turns++)
        if (turns > TURNS) sched_yield();
}

static void barrier(const Task *t) {
    if (t->threads > 1) gate(t->team);
}

static void *begin(void *argument) {
    const Member *m = argument;
    while (!__atomic_load_n(&m->team->ready, __ATOMIC_ACQUIRE)) sched_yield();
    m->does(m);
    return NULL;
}

/* Does a job on several threads. They are made for each call, which takes microseconds: threads that rest between calls
   would have to be woken as well. Those that the system refuses are done without. */
static void together(void (*does)(const Member *), const void *job, int threads) {
    if (threads < 1) return;
    Team team = {1, 0, 0, 0, 0};
    pthread_t others[threads];
    Member members[threads];
    for (int i = 0; i < threads; i++) members[i] = (Member){&team, i, does, job};
    while (team.threads < threads && pthread_create(others + team.threads, NULL, begin, members + team.threads) == 0)
        team.threads++;
    __atomic_store_n(&team.ready, 1, __ATOMIC_RELEASE);
    does(members);
    for (int i = 1; i < team.threads; i++) pthread_join(others[i], NULL);
}

/* e^x to 2e-7, for |x| < 87: 2^n e^f with f in +-ln(2)/2 by its series. */
static inline vec exponential(vec x) {
    const vec most = all(87.0f), magic = all(12582912.0f);
    x = chosen(x < most, x, most);
    x = chosen(x > -most, x, -most);
    vec n = x * 1.44269504f + magic;
    ivec bits = (ivec)n;
    n -= magic;
    vec f = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = 1.0f / 5040 * f + 1.0f / 720;
    p = p * f + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    return (vec)((ivec)p + (bits << 23));
}

static void write_image(const Step *s, const Task *t) {
    for (int y = part(s->h, t->thread, t->threads); y < part(s->h, t->thread + 1, t->threads); y++)
        for (int c = 0; c < s->c_out; c++)
            for (int x = 0; x < s->w; x++)
                t->output[((ptrdiff_t)c * s->h + y) * s->w + x] =
                    t->memory[s->in + ((ptrdiff_t)y * s->w + x) * s->c_in + c];
}

/* What the norm and its scale and shift do to a channel: x a[c] + b[c]. Of the channels of each input: a pixel, and the
   sums of what the others differ from it and of the squares of that. */
static void line_of_channels(const Step *s, const Task *t, const float *first, const float *second, float *a,
                             float *b) {
    int size = s->c_in / s->groups, c_second = s->c_in - s->c_first;
    const float *scale = (s->modulated ? t->modulation : t->weights) + s->scale;
    const float *shift = (s->modulated ? t->modulation : t->weights) + s->shift;
    double pixels = (double)s->h * s->w;
    for (int g = 0; g < s->groups; g++) {
        double mean = 0, variance = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int c = g * size; c < (g + 1) * size; c++) {
                int is_first = c < s->c_first, n = is_first ? s->c_first : c_second;
                const float *of = is_first ? first + c : second + c - s->c_first;
                double origin = of[0], sum = of[n], square = of[2 * n], away = origin - mean;
                if (pass == 0)
                    mean += (origin + sum / pixels) / size;
                else
                    variance += (square / pixels + 2 * away * sum / pixels + away * away) / size;
            }
        variance = (variance > 0 ? variance : 0) + 1e-5;
        float factor = (float)(1 / __builtin_sqrt(variance));
        for (int c = g * size; c < (g + 1) * size; c++) {
            a[c] = factor * (scale[c] + (s->modulated ? 1 : 0));
            b[c] = shift[c] - (float)mean * a[c];
        }
    }
}

static inline float total_of(vec x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

/* Attention over pixels, whose number divides by LANES; a pixel holds its queries (divided by the temperature already),
   keys and values. */
static void attend(const Step *s, const Task *t) {
    int n = s->h * s->w, c = s->c_out, size = c / s->heads;
    float *scores = t->memory + s->work + (ptrdiff_t)t->thread * n * (1 + 2 * size), *keys = scores + n;
    float *values = keys + n * size;
    for (int head = part(s->heads, t->thread, t->threads); head < part(s->heads, t->thread + 1, t->threads); head++) {
        const float *in = t->memory + s->in + head * size;
        for (int j = 0; j < n; j++)
            for (int i = 0; i < size; i++) {
                keys[i * n + j] = in[(ptrdiff_t)j * 3 * c + c + i];
                values[i * n + j] = in[(ptrdiff_t)j * 3 * c + 2 * c + i];
            }
        for (int at = 0; at < n; at++) {
            const float *q = in + (ptrdiff_t)at * 3 * c;
            vec most = all(-3e38f), total = {0};
            for (int j = 0; j < n; j += LANES) {
                vec sum = {0};
                for (int i = 0; i < size; i++) sum += q[i] * load(keys + i * n + j);
                most = larger(most, sum);
                store(scores + j, sum);
            }
            float top = most[0];
            for (int i = 1; i < LANES; i++) top = most[i] > top ? most[i] : top;
            for (int j = 0; j < n; j += LANES) {
                vec weight = exponential(load(scores + j) - top);
                total += weight;
                store(scores + j, weight);
            }
            float share = 1 / total_of(total);
            float *out = t->memory + s->out + (ptrdiff_t)at * c + head * size;
            for (int i = 0; i < size; i++) {
                vec sum = {0};
                for (int j = 0; j < n; j += LANES) sum += load(scores + j) * load(values + i * n + j);
                out[i] = share * total_of(sum);
            }
        }
    }
}

static void take_step(const Step *s, const Task *t);

static void take(const Step *steps, int num_steps, const Task *t) {
    for (int i = 0; i < num_steps; i++) {
        take_step(steps + i, t);
        barrier(t);
    }
}

/* What is done with n images. */
typedef struct {
    const Step *steps;
    int num_steps, n, threads; /* for which there is memory: the system may grant fewer */
    ptrdiff_t input_size, modulation_size, output_size, memory_size;
    Task task;
} Images;

static void take_images(const Member *m) {
    const Images *images = m->job;
    Task t = images->task;
    t.team = m->team;
    int is_shared = images->n < images->threads, i = 0;
    if (is_shared)
        t.thread = m->index, t.threads = m->team->threads;
    else
        t.memory += m->index * images->memory_size;
    for (;; i++) {
        if (!is_shared) i = __atomic_fetch_add(&m->team->next, 1, __ATOMIC_RELAXED);
        if (i >= images->n) return;
        t.input = images->task.input + i * images->input_size;
        t.modulation = images->task.modulation + i * images->modulation_size;
        t.output = images->task.output + i * images->output_size;
        take(images->steps, images->num_steps, &t);
    }
}

/* Runs the steps over n images. Fewer images than threads are shared, one after the other; of more, each is one
   thread's. inputs (n, input_size), modulations (n, modulation_size), outputs (n, output_size); memory is for
   `threads` images. */
void run(const Step *steps, int num_steps, const float *weights, int n, const float *inputs, ptrdiff_t input_size,
         const float *modulations, ptrdiff_t modulation_size, float *outputs, ptrdiff_t output_size, float *memory,
         ptrdiff_t memory_size, int threads) {
    Images images = {steps, num_steps, n, threads, input_size, modulation_size, output_size, memory_size,
                     {NULL, weights, modulations, inputs, memory, outputs, 0, 1}};
    together(take_images, &images, threads);
}
