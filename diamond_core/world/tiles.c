/* The world's convolutional networks on a CPU with matrix units (AMX): a list of steps over one image. Our own.

   A convolution is a product of tiles: 16 pixels of a row with 32 channels of bfloat16, read from the image as it lies,
   times 32 channels with 16 outputs. Sums are float32, and so is all that convolutions do not read. What they read has
   its channels rounded up to 32 and a border of zeros.
   With TILES_BY_HAND the tiles are arrays: the same loops run, and can be tested, on any processor. */

#define LANES 16
#include "steps.h"

#ifndef TILES_BY_HAND
#if !defined(__AMX_TILE__) || !defined(__AMX_BF16__) || !defined(__AVX512BF16__)
#error "this compiler knows no AMX of this processor"
#endif
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifndef TURN
#define TURN 4 /* strips that are multiplied with the same weights, before the next weights: cache */
#endif
enum {
    SIDE = 16, CHUNK = 32,                     /* rows of a tile, and its channels */
    ROW_BYTES = 64, TILE_BYTES = SIDE * ROW_BYTES,
    WIDE = 2 * SIDE,                           /* pixels and outputs of a block: four tiles of sums */
    FEW = 256 /* pixels, up to which threads share an image's outputs: there the weights are more than the image */
};
enum { SUMS = 0, PIXELS = 4, WEIGHTS = 6, TILES = 8 }; /* the first tile of each use; only as numbers in the calls */

typedef unsigned short bfloat;
typedef bfloat bvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

#ifdef TILES_BY_HAND

static __thread struct {
    int rows; /* of sums and pixels */
    unsigned char bytes[TILES][TILE_BYTES];
} hand;

int permit(void) { return 0; }
static void tiles_of(int rows) { hand.rows = rows; }
static void release(void) {}
static inline int rows_of(int n) { return n < WEIGHTS ? hand.rows : SIDE; }
static inline void tile_zero(int n) { memset(hand.bytes[n], 0, TILE_BYTES); }
static inline void tile_load(int n, const void *from, ptrdiff_t stride) {
    for (int r = 0; r < rows_of(n); r++)
        memcpy(hand.bytes[n] + r * ROW_BYTES, (const char *)from + r * stride, ROW_BYTES);
}
static inline void tile_store(int n, void *to, ptrdiff_t stride) {
    for (int r = 0; r < rows_of(n); r++)
        memcpy((char *)to + r * stride, hand.bytes[n] + r * ROW_BYTES, ROW_BYTES);
}
static inline float widened(bfloat x) {
    unsigned bits = (unsigned)x << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}
static void tile_dot(int sums, int pixels, int weights) {
    for (int r = 0; r < hand.rows; r++) {
        const bfloat *x = (const bfloat *)(hand.bytes[pixels] + r * ROW_BYTES);
        vec sum = load((const float *)(hand.bytes[sums] + r * ROW_BYTES));
        for (int i = 0; i < SIDE; i++) {
            ivec pair = *(const ivec *)(hand.bytes[weights] + i * ROW_BYTES);
            sum += all(widened(x[2 * i])) * (vec)(pair << 16);
            sum += all(widened(x[2 * i + 1])) * (vec)(pair & ~0xffff);
        }
        store((float *)(hand.bytes[sums] + r * ROW_BYTES), sum);
    }
}

/* To the nearest, of two the even one. */
static inline bvec narrowed(vec x) {
    ivec bits = (ivec)x;
    bits += 0x7fff + (bits >> 16 & 1);
    return __builtin_convertvector(bits >> 16, bvec);
}
static inline vec silu(vec x) { return x / (1.0f + exponential(-x)); }

#else

/* The kernel gives the tiles' memory to a process that asks. */
int permit(void) {
    const int ask = 0x1023, tile_data = 18;
    return (int)syscall(SYS_arch_prctl, ask, tile_data);
}

static void tiles_of(int rows) {
    struct {
        unsigned char palette, start, reserved[14];
        unsigned short row_bytes[16];
        unsigned char rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < TILES; i++) shape.row_bytes[i] = ROW_BYTES, shape.rows[i] = i < WEIGHTS ? rows : SIDE;
    __asm__ volatile("" ::"r"(&shape) : "memory"); /* gcc 12 tells its optimiser of the first bytes only */
    _tile_loadconfig(&shape);
}
static inline void release(void) { _tile_release(); }
#define tile_zero(n) _tile_zero(n)
#define tile_load(n, from, stride) _tile_loadd(n, (from), (stride))
#define tile_store(n, to, stride) _tile_stored(n, (to), (stride))
#define tile_dot(sums, pixels, weights) _tile_dpbf16ps(sums, pixels, weights)

static inline bvec narrowed(vec x) { return (bvec)_mm512_cvtneps_pbh((__m512)x); }

/* To 1e-4, which bfloat16 does not see: x / (1 + 2^-(x log2 e)). */
static inline vec silu(vec x) {
    vec power = x * -1.44269504f, whole = (vec)_mm512_roundscale_ps((__m512)power, 8), f = power - whole;
    vec p = ((0.0096181291f * f + 0.0555041087f) * f + 0.2402265070f) * f + 0.6931471806f;
    p = p * f + 1.0f;
    return x * (vec)_mm512_rcp14_ps(_mm512_scalef_ps((__m512)p, (__m512)whole) + 1.0f);
}

#endif

static inline int small(int a, int b, int n) { return (a + b) % n - n / 2; }
static inline bfloat bfloat_of(int number) {
    union { float number; unsigned bits; } x = {(float)number};
    return (bfloat)(x.bits >> 16);
}

/* Products of small whole numbers, which have no error, in tiles of so many rows: 0 if they are right. */
static int trial_of(int rows) {
    bfloat pixels[WIDE][CHUNK], weights[2][SIDE][CHUNK]; /* weights lie in pairs of channels */
    float sums[WIDE][WIDE];
    int wrong = 0;
    for (int r = 0; r < WIDE; r++)
        for (int i = 0; i < CHUNK; i++)
            pixels[r][i] = bfloat_of(small(3 * r, i, 7)), weights[r / SIDE][r % SIDE][i] = bfloat_of(small(5 * r, i, 9));
    __asm__ volatile("" ::"r"(pixels), "r"(weights) : "memory"); /* loads of tiles do not say what they read */
    tiles_of(rows);
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    tile_load(4, pixels, ROW_BYTES);
    tile_load(5, pixels + rows, ROW_BYTES);
    tile_load(6, weights, ROW_BYTES);
    tile_load(7, weights + 1, ROW_BYTES);
    tile_dot(0, 4, 6);
    tile_dot(1, 4, 7);
    tile_dot(2, 5, 6);
    tile_dot(3, 5, 7);
    tile_store(0, sums[0], 2 * ROW_BYTES);
    tile_store(1, sums[0] + SIDE, 2 * ROW_BYTES);
    tile_store(2, sums[rows], 2 * ROW_BYTES);
    tile_store(3, sums[rows] + SIDE, 2 * ROW_BYTES);
    release();
    for (int r = 0; r < 2 * rows; r++)
        for (int o = 0; o < WIDE; o++) {
            int sum = 0;
            for (int i = 0; i < CHUNK; i++)
                sum += small(3 * r, i, 7) * small(5 * (i / 2 + o / SIDE * SIDE), 2 * (o % SIDE) + i % 2, 9);
            wrong |= sums[r][o] != (float)sum;
        }
    return wrong;
}

/* 0 if tiles and vectors do here what is written. */
int trial(void) {
    vec x = all(1.0f), y = silu(x) - x * 0.7310586f;
    bvec ones = narrowed(x * 1.00390625f); /* between 1 and the next: to the even one */
    int wrong = trial_of(SIDE) | trial_of(SIDE / 2);
    for (int i = 0; i < LANES; i++) wrong |= !(y[i] < 1e-3f && y[i] > -1e-3f) || ones[i] != 0x3f80;
    return wrong;
}

static inline void put(bfloat *p, bvec x) { *(bvec *)p = x; }
static inline int rounded(int n) { return (n + CHUNK - 1) / CHUNK * CHUNK; }

/* Rows that one thread takes together, with statistics of their own: a block at least, if it can be, or several. */
static inline int strip_height(int h, int w) {
    int rows = 1, least = h * w > FEW ? 4 * WIDE : WIDE;
    while (rows < h && (rows * w < least || h % rows)) rows++;
    return rows;
}

/* Channels first outside -> channels last with a border inside. */
static void read_image(const Step *s, const Task *t) {
    int w = s->w + 2, h = s->h + 2, c_out = rounded(s->c_in);
    for (int y = part(h, t->thread, t->threads); y < part(h, t->thread + 1, t->threads); y++) {
        bfloat *out = (bfloat *)(t->memory + s->out) + (ptrdiff_t)y * w * c_out;
        memset(out, 0, sizeof(bfloat) * w * c_out);
        if (y < 1 || y > s->h) continue;
        for (int c = 0; c < s->c_in; c++) {
            const float *in = t->input + ((ptrdiff_t)c * s->h + y - 1) * s->w;
            for (int x = 0; x < s->w; x += LANES) {
                int n = smaller(LANES, s->w - x);
                float some[LANES] = {0};
                memcpy(some, in + x, sizeof(float) * n);
                bvec p = narrowed(load(some));
                for (int i = 0; i < n; i++) out[(ptrdiff_t)(x + i + 1) * c_out + c] = p[i];
            }
        }
    }
}

/* What the strips know of each channel, as of the whole image: the first pixel, and sums of what differs from it. */
static void gather(const float *restrict strips, int n, int pixels, int c, float *restrict out) {
    double sum[c], square[c];
    for (int i = 0; i < c; i++) sum[i] = square[i] = 0;
    for (int j = 0; j < n; j++) {
        const float *of = strips + (ptrdiff_t)j * 3 * c;
        for (int i = 0; i < c; i++) {
            double away = (double)of[i] - strips[i], own = of[c + i];
            sum[i] += own + pixels * away;
            square[i] += of[2 * c + i] + away * (2 * own + pixels * away);
        }
    }
    for (int i = 0; i < c; i++) out[i] = strips[i], out[c + i] = (float)sum[i], out[2 * c + i] = (float)square[i];
}

static void line(const Step *s, const Task *t, float *a, float *b) {
    int height = strip_height(s->h, s->w), n = s->h / height, pixels = height * s->w, c_second = s->c_in - s->c_first;
    float known[3 * s->c_in], *second = known + 3 * s->c_first;
    gather(t->memory + s->statistics, n, pixels, s->c_first, known);
    if (c_second) gather(t->memory + s->statistics2, n, pixels, c_second, second);
    line_of_channels(s, t, known, second, a, b);
}

/* Some channels of a row of pixels, whose inputs lie side by side, or are each taken twice. */
static void prepare_row(const Step *s, const float *in, int c, const float *a, const float *b, bfloat *out,
                        bfloat *raw) {
    int c_out = rounded(s->c_in);
    for (int x = 0; x < s->w; x++, out += c_out) {
        const float *pixel = in + (ptrdiff_t)(x >> s->doubled) * c;
        for (int j = 0; j < c; j += LANES) {
            vec p = load(pixel + j);
            if (raw) put(raw + (ptrdiff_t)x * c_out + j, narrowed(p));
            if (s->groups) p = p * load(a + j) + load(b + j);
            if (s->silu) p = silu(p);
            put(out + j, narrowed(p));
        }
    }
}

/* One or two images beside each other, normalised and through SiLU where asked, doubled in size where asked, with a
   border of zeros; and as they are, where asked, in a border of anything. */
static void prepare(const Step *s, const Task *t) {
    float a[s->c_in], b[s->c_in];
    if (s->groups) line(s, t, a, b);
    int w = s->w + 2, h = s->h + 2, c = rounded(s->c_in), c_second = s->c_in - s->c_first;
    for (int y = part(h, t->thread, t->threads); y < part(h, t->thread + 1, t->threads); y++) {
        ptrdiff_t row = (ptrdiff_t)y * w * c, from = (ptrdiff_t)((y - 1) >> s->doubled) * (s->w >> s->doubled);
        bfloat *out = (bfloat *)(t->memory + s->out) + row;
        bfloat *raw = s->has_raw ? (bfloat *)(t->memory + s->raw) + row + c : NULL;
        int inside = y > 0 && y <= s->h;
        if (!inside || c != s->c_in) {
            memset(out, 0, sizeof(bfloat) * w * c);
            if (raw && inside) memset(raw, 0, sizeof(bfloat) * s->w * c);
        }
        if (!inside) continue;
        memset(out, 0, sizeof(bfloat) * c);
        memset(out + (ptrdiff_t)(w - 1) * c, 0, sizeof(bfloat) * c);
        prepare_row(s, t->memory + s->in + from * s->c_first, s->c_first, a, b, out + c, raw);
        if (c_second)
            prepare_row(s, t->memory + s->in2 + from * c_second, c_second, a + s->c_first, b + s->c_first,
                        out + c + s->c_first, raw ? raw + s->c_first : NULL);
    }
}

/* An image normalised, in float32. */
static void normalise(const Step *s, const Task *t) {
    float a[s->c_in], b[s->c_in];
    line(s, t, a, b);
    int pixels = s->h * s->w;
    for (int p = part(pixels, t->thread, t->threads); p < part(pixels, t->thread + 1, t->threads); p++)
        for (int c = 0; c < s->c_in; c += LANES) {
            ptrdiff_t at = (ptrdiff_t)p * s->c_in + c;
            store(t->memory + s->out + at, load(t->memory + s->in + at) * load(a + c) + load(b + c));
        }
}

/* A bordered image that a convolution reads, in bytes. */
typedef struct {
    const char *first; /* what the first pixel's first tap reads */
    ptrdiff_t row, pixel, step; /* from one to the next; from what a pixel reads to what the next one does */
    int taps, chunks;           /* across: 3 or 1; of channels */
} Source;

static inline Source source_of(const float *image, int w, int c, int taps, int stride) {
    ptrdiff_t pixel = rounded(c) * (ptrdiff_t)sizeof(bfloat), row = (stride * w + 2) * pixel;
    return (Source){(const char *)image + (taps == 1 ? row + pixel : 0), row, pixel, stride * pixel, taps,
                    rounded(c) / CHUNK};
}

static inline const char *read_at(const Source *in, int w, int stride, int pixel) {
    return in->first + pixel / w * stride * in->row + pixel % w * in->step;
}

/* A convolution of one image, whose sums a 1x1 convolution of another image may join. */
typedef struct {
    int w, c_out, stride, rows; /* rows of a tile: pixels */
    int height, joined;
    Source in, in2;
    const char *weight;
    const float *bias, *residual;
    float *out, *statistics;
} Conv;

/* What a strip knows of up to WIDE channels; before its first block it has no origin. */
typedef struct {
    int begun;
    vec origin[2], sum[2], square[2];
} Known;

/* Adds what a source gives to the sums of a block: one or two tiles of pixels times one or two of outputs. What lies
   behind the weights that it used. */
static inline __attribute__((always_inline)) const char *add_products(const int pixels, const int outputs,
                                                                      const Source *in, const char *p0, const char *p1,
                                                                      const char *weight) {
    for (int y = 0; y < in->taps; y++)
        for (int x = 0; x < in->taps; x++) {
            const char *a0 = p0 + y * in->row + x * in->pixel, *a1 = p1 + y * in->row + x * in->pixel;
            for (int k = 0; k < in->chunks; k++, a0 += ROW_BYTES, a1 += ROW_BYTES, weight += outputs * TILE_BYTES) {
                tile_load(4, a0, in->step);
                tile_load(6, weight, ROW_BYTES);
                tile_dot(0, 4, 6);
                if (outputs > 1) tile_load(7, weight + TILE_BYTES, ROW_BYTES);
                if (outputs > 1) tile_dot(1, 4, 7);
                if (pixels > 1) tile_load(5, a1, in->step);
                if (pixels > 1) tile_dot(2, 5, 6);
                if (pixels > 1 && outputs > 1) tile_dot(3, 5, 7);
            }
        }
    return weight;
}

/* block[pixel][output] of tiles at `pixel` and the next one. */
static inline __attribute__((always_inline)) void multiply(const int pixels, const int outputs, const Conv *k,
                                                           int pixel, const char *weight, float *block) {
    tile_zero(0);
    if (outputs > 1) tile_zero(1);
    if (pixels > 1) tile_zero(2);
    if (pixels > 1 && outputs > 1) tile_zero(3);
    int next = pixels > 1 ? pixel + k->rows : pixel;
    weight = add_products(pixels, outputs, &k->in, read_at(&k->in, k->w, k->stride, pixel),
                          read_at(&k->in, k->w, k->stride, next), weight);
    if (k->joined)
        add_products(pixels, outputs, &k->in2, read_at(&k->in2, k->w, 1, pixel), read_at(&k->in2, k->w, 1, next),
                     weight);
    float *below = block + k->rows * outputs * SIDE;
    tile_store(0, block, outputs * ROW_BYTES);
    if (outputs > 1) tile_store(1, block + SIDE, outputs * ROW_BYTES);
    if (pixels > 1) tile_store(2, below, outputs * ROW_BYTES);
    if (pixels > 1 && outputs > 1) tile_store(3, below + SIDE, outputs * ROW_BYTES);
}

/* Bias and residual join a block's sums, which become the output and are gone through for the statistics. */
static inline __attribute__((always_inline)) void finish(const int outputs, const Conv *k, const float *restrict block,
                                                         int pixel, int pixels, int c, Known *known) {
    Known now = *known;
    const int step = k->c_out;
    const ptrdiff_t at = (ptrdiff_t)pixel * step + c;
    const float *restrict residual = k->residual ? k->residual + at : NULL;
    float *restrict out = k->out + at;
    vec bias[2];
    for (int v = 0; v < outputs; v++) {
        bias[v] = load(k->bias + c + v * LANES);
        vec first = load(block + v * LANES) + bias[v];
        if (residual) first += load(residual + v * LANES);
        if (!now.begun) now.origin[v] = first;
    }
    now.begun = 1;
    for (ptrdiff_t p = 0, i = 0; p < pixels; p++, i += step, block += outputs * SIDE)
#pragma GCC unroll 2
        for (int v = 0; v < outputs; v++) {
            vec x = load(block + v * LANES) + bias[v];
            if (residual) x += load(residual + i + v * LANES);
            store(out + i + v * LANES, x);
            vec away = x - now.origin[v];
            now.sum[v] += away, now.square[v] += away * away;
        }
    *known = now;
}

/* The outputs c.. of a strip. A block is finished behind the next one's products, which need not wait for it then. */
static inline __attribute__((always_inline)) void strip_of(const int outputs, const Conv *k, int strip, int c,
                                                           const char *weight) {
    float blocks[2][WIDE * WIDE] __attribute__((aligned(ROW_BYTES)));
    int pixel = strip * k->height * k->w, end = pixel + k->height * k->w, pixels = 0, turn = 0;
    Known known = {0};
    for (; pixel < end; turn ^= 1) {
        int before = pixels;
        pixels = pixel + k->rows < end ? 2 * k->rows : k->rows;
        if (pixels > k->rows)
            multiply(2, outputs, k, pixel, weight, blocks[turn]);
        else
            multiply(1, outputs, k, pixel, weight, blocks[turn]);
        if (before) finish(outputs, k, blocks[turn ^ 1], pixel - before, before, c, &known);
        pixel += pixels;
    }
    finish(outputs, k, blocks[turn ^ 1], pixel - pixels, pixels, c, &known);
    float *to = k->statistics + (ptrdiff_t)strip * 3 * k->c_out + c;
    if (k->statistics)
        for (int v = 0; v < outputs; v++) {
            store(to + v * LANES, known.origin[v]);
            store(to + k->c_out + v * LANES, known.sum[v]);
            store(to + 2 * k->c_out + v * LANES, known.square[v]);
        }
}

static void multiply_strip(const Conv *k, int strip, int c) {
    int chunks = k->in.taps * k->in.taps * k->in.chunks + (k->joined ? k->in2.chunks : 0);
    const char *weight = k->weight + (ptrdiff_t)c / SIDE * chunks * TILE_BYTES;
    if (c + SIDE < k->c_out)
        strip_of(2, k, strip, c, weight);
    else
        strip_of(1, k, strip, c, weight);
}

/* A convolution of 3x3, of stride 1 or 2, or of 1x1. */
static void convolve(const Step *s, const Task *t) {
    int stride = s->kind == HALVE ? 2 : 1, taps = s->kind == CONV1 ? 1 : 3, c_second = s->c_in - s->c_first;
    Conv k = {.w = s->w, .c_out = s->c_out, .stride = stride, .rows = SIDE, .height = strip_height(s->h, s->w),
              .joined = c_second > 0, .in = source_of(t->memory + s->in, s->w, s->c_first, taps, stride),
              .in2 = source_of(t->memory + s->in2, s->w, c_second, 1, 1),
              .weight = (const char *)(t->weights + s->weight), .bias = t->weights + s->bias,
              .residual = s->adds ? t->memory + s->residual : NULL, .out = t->memory + s->out,
              .statistics = s->counts ? t->memory + s->statistics : NULL};
    while (s->w % k.rows) k.rows--;
    tiles_of(k.rows);
    int strips = s->h / k.height, blocks = (s->c_out + WIDE - 1) / WIDE, all_of_it = strips * blocks;
    int few = s->h * s->w <= FEW, end = part(strips, t->thread + 1, t->threads);
    if (few)
        for (int i = part(all_of_it, t->thread, t->threads); i < part(all_of_it, t->thread + 1, t->threads); i++)
            multiply_strip(&k, i % strips, i / strips * WIDE);
    else
        for (int first = part(strips, t->thread, t->threads); first < end; first += TURN)
            for (int c = 0; c < s->c_out; c += WIDE)
                for (int i = first; i < smaller(end, first + TURN); i++) multiply_strip(&k, i, c);
    release();
}

static void take_step(const Step *s, const Task *t) {
    static void (*const does[])(const Step *, const Task *) = {
        [READ] = read_image, [PREPARE] = prepare, [NORMALISE] = normalise, [CONV3] = convolve,
        [HALVE] = convolve,  [CONV1] = convolve,  [ATTEND] = attend,       [WRITE] = write_image};
    does[s->kind](s, t);
}
