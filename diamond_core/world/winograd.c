/* The world's convolutional networks on a CPU without matrix units: a list of steps over one image, and for training a
   convolution of a batch with its gradients. Our own.

   3x3 convolutions are Winograd's F(4x4, 3x3): 36 products for 16 outputs instead of 144. Norm, scale, shift and SiLU
   are one pass. What a convolution reads has a border of zeros.
   Written with the vector types that gcc and clang share, for registers of 512 bits where there are any. */

#ifdef __AVX512F__
#define LANES 16
enum { ROWS = 12, BLOCKS = 2 }; /* 24 sums of the 32 registers */
#else
enum { ROWS = 6, BLOCKS = 1 }; /* 12 of 16 */
#endif
#include "steps.h"

enum {
    TILE = 4, PATCH = 6, POSITIONS = 36,
    COLUMNS = 16, VECTORS = COLUMNS / LANES, /* of a block of outputs; a product holds ROWS of up to BLOCKS of them */
    BLOCK = 24,                    /* tiles that are transformed and multiplied before the next ones: cache */
    GAP = 32                       /* floats between positions, or their rows would drive each other out of the cache */
};

/* out[r][0..blocks COLUMNS) (+)= sum over i < k of a[r][i] b[block][i][0..COLUMNS), for known numbers of rows and blocks:
   twelve sums or more are under way, more than a processor's multipliers are deep */
static inline __attribute__((always_inline)) void product_of(const int rows, const int blocks, const float *restrict a,
                                                             ptrdiff_t a_row, const float *restrict b, ptrdiff_t b_block,
                                                             int k, float *restrict out, ptrdiff_t out_row, int adds) {
    const int vectors = blocks * VECTORS;
    vec sum[ROWS][BLOCKS * VECTORS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) sum[r][j] = adds ? load(out + r * out_row + j * LANES) : (vec){0};
    for (int i = 0; i < k; i++, b += COLUMNS) {
        vec weight[BLOCKS * VECTORS];
        for (int j = 0; j < vectors; j++) weight[j] = load(b + j / VECTORS * b_block + j % VECTORS * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            vec x = all(a[r * a_row + i]);
            for (int j = 0; j < vectors; j++) sum[r][j] += x * weight[j];
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) store(out + r * out_row + j * LANES, sum[r][j]);
}

static inline __attribute__((always_inline)) void rows_of(const int blocks, int rows, const float *a, ptrdiff_t a_row,
                                                          const float *b, ptrdiff_t b_block, int k, float *out,
                                                          ptrdiff_t out_row, int adds) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * a_row, out += ROWS * out_row)
        product_of(ROWS, blocks, a, a_row, b, b_block, k, out, out_row, adds);
    for (; rows >= 4; rows -= 4, a += 4 * a_row, out += 4 * out_row)
        product_of(4, blocks, a, a_row, b, b_block, k, out, out_row, adds);
    for (; rows >= 2; rows -= 2, a += 2 * a_row, out += 2 * out_row)
        product_of(2, blocks, a, a_row, b, b_block, k, out, out_row, adds);
    for (; rows; rows--, a += a_row, out += out_row) product_of(1, blocks, a, a_row, b, b_block, k, out, out_row, adds);
}

/* out[rows][c_out] (+)= a[rows][k] b[c_out / COLUMNS][k][COLUMNS]; from block to block of b it is `b_block` */
static void product(int rows, const float *a, ptrdiff_t a_row, const float *b, ptrdiff_t b_block, int k, float *out,
                    int c_out, int adds) {
    int c = 0;
    for (; c + BLOCKS * COLUMNS <= c_out; c += BLOCKS * COLUMNS, b += BLOCKS * b_block)
        rows_of(BLOCKS, rows, a, a_row, b, b_block, k, out + c, c_out, adds);
    for (; c < c_out; c += COLUMNS, b += b_block) rows_of(1, rows, a, a_row, b, b_block, k, out + c, c_out, adds);
}

static inline int padded_width(int w) { return (w + TILE - 1) / TILE * TILE + 2; }

/* Channels first outside -> channels last with a border inside. */
static void read_image(const Step *s, const Task *t) {
    int w = padded_width(s->w), h = padded_width(s->h);
    for (int y = part(h, t->thread, t->threads); y < part(h, t->thread + 1, t->threads); y++) {
        float *out = t->memory + s->out + (ptrdiff_t)y * w * s->c_out;
        memset(out, 0, sizeof(float) * w * s->c_out);
        if (y < 1 || y > s->h) continue;
        for (int c = 0; c < s->c_in; c++) {
            const float *in = t->input + ((ptrdiff_t)c * s->h + y - 1) * s->w;
            for (int x = 0; x < s->w; x++) out[(x + 1) * s->c_out + c] = in[x];
        }
    }
}

/* Of every channel: its first pixel, and the sums of what the others differ from it and of the squares of that. About
   zero, squares would drown the variance of channels that are nearly constant. */
static void statistics(const Step *s, const Task *t) {
    int vectors = s->c_in / LANES;
    for (int v = part(vectors, t->thread, t->threads); v < part(vectors, t->thread + 1, t->threads); v++) {
        const float *in = t->memory + s->in + v * LANES;
        double sum[LANES] = {0}, square[LANES] = {0};
        vec origin = load(in);
        for (int y = 0; y < s->h; y++) {
            vec a = {0}, b = {0}, a2 = {0}, b2 = {0};
            int x = 0;
            for (; x + 1 < s->w; x += 2, in += 2 * s->c_in) {
                vec p = load(in) - origin, q = load(in + s->c_in) - origin;
                a += p, a2 += p * p, b += q, b2 += q * q;
            }
            for (; x < s->w; x++, in += s->c_in) {
                vec p = load(in) - origin;
                a += p, a2 += p * p;
            }
            a += b, a2 += b2;
            for (int i = 0; i < LANES; i++) sum[i] += a[i], square[i] += a2[i];
        }
        float *out = t->memory + s->statistics + v * LANES;
        store(out, origin);
        for (int i = 0; i < LANES; i++) out[s->c_in + i] = (float)sum[i], out[2 * s->c_in + i] = (float)square[i];
    }
}

/* One or two images beside each other, normalised and through SiLU where asked, doubled in size where asked, with a
   border of zeros. */
static void prepare(const Step *s, const Task *t) {
    float a[s->c_in], b[s->c_in];
    if (s->groups) line_of_channels(s, t, t->memory + s->statistics, t->memory + s->statistics2, a, b);
    int edge = s->border, d = s->doubled;
    int w = edge ? padded_width(s->w) : s->w, h = edge ? padded_width(s->h) : s->h;
    for (int y = part(h, t->thread, t->threads); y < part(h, t->thread + 1, t->threads); y++) {
        float *out = t->memory + s->out + (ptrdiff_t)y * w * s->c_in;
        if (y < edge || y >= s->h + edge) {
            memset(out, 0, sizeof(float) * w * s->c_in);
            continue;
        }
        memset(out, 0, sizeof(float) * edge * s->c_in);
        memset(out + (s->w + edge) * s->c_in, 0, sizeof(float) * (w - s->w - edge) * s->c_in);
        out += edge * s->c_in;
        for (int x = 0; x < s->w; x++, out += s->c_in) {
            ptrdiff_t pixel = (ptrdiff_t)((y - edge) >> d) * (s->w >> d) + (x >> d);
            for (int i = 0; i < 2; i++) {
                int from = i ? s->c_first : 0, c = i ? s->c_in - s->c_first : s->c_first;
                const float *in = t->memory + (i ? s->in2 : s->in) + pixel * c;
                if (!s->groups) {
                    memcpy(out + from, in, sizeof(float) * c);
                    continue;
                }
                for (int j = 0; j < c; j += LANES) {
                    vec p = load(in + j) * load(a + from + j) + load(b + from + j);
                    if (s->silu) p = p / (1.0f + exponential(-p));
                    store(out + from + j, p);
                }
            }
        }
    }
}

/* Six numbers of a patch's row or column, transformed. */
static inline void forward(const vec d[PATCH], vec out[PATCH]) {
    vec p = d[4] - 4.0f * d[2], q = d[3] - 4.0f * d[1], r = d[4] - d[2], u = 2.0f * (d[3] - d[1]);
    out[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    out[1] = p + q;
    out[2] = p - q;
    out[3] = r + u;
    out[4] = r - u;
    out[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

static inline void backward(const vec m[PATCH], vec out[TILE]) {
    vec p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], u = m[3] - m[4];
    out[0] = m[0] + p + r;
    out[1] = q + 2.0f * u;
    out[2] = p + 4.0f * r;
    out[3] = q + 8.0f * u + m[5];
}

/* From one position to the next. */
static inline ptrdiff_t stride(int size, int c) { return (ptrdiff_t)size * c + GAP; }

/* A 3x3 convolution of one image. */
typedef struct {
    int h, w, c_in, c_out;
    const float *in; /* with a border */
    const float *weight, *bias, *residual;
    float *out;
} Conv;

static inline int tiles_across(int side) { return (side + TILE - 1) / TILE; }

/* patches[position][tile - first][c_in] of the tiles first..last and the channels from..to */
static void transform(const Conv *k, float *patches, int first, int last, int size, int from, int to) {
    int w = padded_width(k->w), across = tiles_across(k->w);
    for (int tile = first; tile < last; tile++) {
        const float *in = k->in + ((ptrdiff_t)(tile / across) * TILE * w + tile % across * TILE) * k->c_in;
        for (int c = from; c < to; c += LANES) {
            vec rows[PATCH][PATCH], d[PATCH], out[PATCH];
            for (int x = 0; x < PATCH; x++) {
                for (int y = 0; y < PATCH; y++) d[y] = load(in + ((ptrdiff_t)y * w + x) * k->c_in + c);
                forward(d, out);
                for (int y = 0; y < PATCH; y++) rows[y][x] = out[y];
            }
            float *p = patches + (ptrdiff_t)(tile - first) * k->c_in + c;
            for (int y = 0; y < PATCH; y++) {
                forward(rows[y], out);
                for (int x = 0; x < PATCH; x++) store(p + (ptrdiff_t)(y * PATCH + x) * stride(size, k->c_in), out[x]);
            }
        }
    }
}

/* products[position][tile][c_out] of the positions from..to of `size` tiles */
static void multiply(const Conv *k, const float *patches, float *products, int size, int from, int to) {
    ptrdiff_t block = (ptrdiff_t)k->c_in * COLUMNS;
    for (int p = from; p < to; p++)
        product(size, patches + p * stride(size, k->c_in), k->c_in, k->weight + (ptrdiff_t)p * k->c_out * k->c_in, block,
                k->c_in, products + p * stride(size, k->c_out), k->c_out, 0);
}

static void transform_back(const Conv *k, const float *products, int first, int last, int size, int from, int to) {
    int across = tiles_across(k->w);
    for (int tile = first; tile < last; tile++) {
        int y0 = tile / across * TILE, x0 = tile % across * TILE;
        for (int c = from; c < to; c += LANES) {
            vec columns[TILE][PATCH], m[PATCH], out[TILE];
            const float *p = products + (ptrdiff_t)(tile - first) * k->c_out + c;
            for (int x = 0; x < PATCH; x++) {
                for (int y = 0; y < PATCH; y++) m[y] = load(p + (ptrdiff_t)(y * PATCH + x) * stride(size, k->c_out));
                backward(m, out);
                for (int y = 0; y < TILE; y++) columns[y][x] = out[y];
            }
            vec bias = load(k->bias + c);
            for (int y = 0; y < smaller(TILE, k->h - y0); y++) {
                backward(columns[y], out);
                ptrdiff_t at = ((ptrdiff_t)(y0 + y) * k->w + x0) * k->c_out + c;
                for (int x = 0; x < smaller(TILE, k->w - x0); x++, at += k->c_out) {
                    vec sum = out[x] + bias;
                    if (k->residual) sum += load(k->residual + at);
                    store(k->out + at, sum);
                }
            }
        }
    }
}

/* The tiles first..end, in blocks; `work` holds POSITIONS of both strides of a block. */
static void convolve(const Conv *k, float *work, int first, int end) {
    float *products = work + POSITIONS * stride(BLOCK, k->c_in);
    for (; first < end; first += BLOCK) {
        int last = smaller(end, first + BLOCK), size = last - first;
        transform(k, work, first, last, size, 0, k->c_in);
        multiply(k, work, products, size, 0, POSITIONS);
        transform_back(k, products, first, last, size, 0, k->c_out);
    }
}

static void conv3(const Step *s, const Task *t) {
    int tiles = tiles_across(s->h) * tiles_across(s->w), i = t->thread, n = t->threads;
    float *work = t->memory + s->work;
    Conv k = {s->h, s->w, s->c_in, s->c_out, t->memory + s->in, t->weights + s->weight, t->weights + s->bias,
              s->adds ? t->memory + s->residual : NULL, t->memory + s->out};
    if (tiles >= BLOCK * n) {
        work += i * POSITIONS * (stride(BLOCK, s->c_in) + stride(BLOCK, s->c_out));
        convolve(&k, work, part(tiles, i, n), part(tiles, i + 1, n));
        return;
    }
    /* few tiles: the threads share all of them, by channels and positions */
    float *products = work + POSITIONS * stride(tiles, s->c_in);
    int v_in = s->c_in / LANES, v_out = s->c_out / LANES;
    transform(&k, work, 0, tiles, tiles, part(v_in, i, n) * LANES, part(v_in, i + 1, n) * LANES);
    barrier(t);
    multiply(&k, work, products, tiles, part(POSITIONS, i, n), part(POSITIONS, i + 1, n));
    barrier(t);
    transform_back(&k, products, 0, tiles, tiles, part(v_out, i, n) * LANES, part(v_out, i + 1, n) * LANES);
}

/* Adds bias and residual to a row of pixels. */
static void finish(const Step *s, const Task *t, ptrdiff_t pixel, int pixels) {
    for (int x = 0; x < pixels; x++)
        for (int c = 0; c < s->c_out; c += LANES) {
            ptrdiff_t at = (pixel + x) * s->c_out + c;
            vec sum = load(t->memory + s->out + at) + load(t->weights + s->bias + c);
            if (s->adds) sum += load(t->memory + s->residual + at);
            store(t->memory + s->out + at, sum);
        }
}

/* A 3x3 convolution of stride 2, as nine products. */
static void halve(const Step *s, const Task *t) {
    int w = padded_width(2 * s->w);
    for (int y = part(s->h, t->thread, t->threads); y < part(s->h, t->thread + 1, t->threads); y++) {
        for (int tap = 0; tap < 9; tap++)
            product(s->w, t->memory + s->in + ((ptrdiff_t)(2 * y + tap / 3) * w + tap % 3) * s->c_in, 2 * s->c_in,
                    t->weights + s->weight + (ptrdiff_t)tap * s->c_out * s->c_in, (ptrdiff_t)s->c_in * COLUMNS, s->c_in,
                    t->memory + s->out + (ptrdiff_t)y * s->w * s->c_out, s->c_out, tap > 0);
        finish(s, t, (ptrdiff_t)y * s->w, s->w);
    }
}

/* A 1x1 convolution of one image, or of two beside each other. */
static void conv1(const Step *s, const Task *t) {
    int pixels = s->h * s->w, c_second = s->c_in - s->c_first;
    int from = part(pixels, t->thread, t->threads), to = part(pixels, t->thread + 1, t->threads);
    for (int p = from; p < to; p += BLOCK) {
        int size = smaller(BLOCK, to - p);
        const float *weight = t->weights + s->weight;
        float *out = t->memory + s->out + (ptrdiff_t)p * s->c_out;
        ptrdiff_t block = (ptrdiff_t)s->c_in * COLUMNS;
        product(size, t->memory + s->in + (ptrdiff_t)p * s->c_first, s->c_first, weight, block, s->c_first, out, s->c_out, 0);
        if (c_second)
            product(size, t->memory + s->in2 + (ptrdiff_t)p * c_second, c_second, weight + COLUMNS * s->c_first, block,
                    c_second, out, s->c_out, 1);
    }
    finish(s, t, from, to - from);
}

/* The largest of two by two pixels. */
static void pool(const Step *s, const Task *t) {
    ptrdiff_t c = s->c_out, below = 2 * s->w * c;
    for (int y = part(s->h, t->thread, t->threads); y < part(s->h, t->thread + 1, t->threads); y++) {
        const float *in = t->memory + s->in + 2 * y * below;
        float *out = t->memory + s->out + y * s->w * c;
        for (int x = 0; x < s->w; x++, in += c)
            for (ptrdiff_t end = 0; end < c; end += LANES, in += LANES, out += LANES)
                store(out, larger(larger(load(in), load(in + c)), larger(load(in + below), load(in + below + c))));
    }
}

static void take_step(const Step *s, const Task *t) {
    static void (*const does[])(const Step *, const Task *) = {
        [READ] = read_image, [STATISTICS] = statistics, [PREPARE] = prepare, [CONV3] = conv3, [HALVE] = halve,
        [CONV1] = conv1,     [ATTEND] = attend,         [WRITE] = write_image, [POOL] = pool};
    does[s->kind](s, t);
}

/* A convolution of a batch, or the gradient of its weights: x (n, h, w, c_in), y (n, h, w, c_out) is the output, or its
   gradient. */
typedef struct {
    int n, h, w, c_in, c_out;
    const float *x, *weight, *bias;
    float *y, *memory, *gradient;
    ptrdiff_t memory_size; /* of one thread */
} Batch;

/* An image with a border. */
static void add_border(const float *in, int h, int w, int c, float *out) {
    int width = padded_width(w), height = padded_width(h);
    memset(out, 0, sizeof(float) * width * height * c);
    for (int y = 0; y < h; y++)
        memcpy(out + ((ptrdiff_t)(y + 1) * width + 1) * c, in + (ptrdiff_t)y * w * c, sizeof(float) * w * c);
}

static void convolve_images(const Member *m) {
    const Batch *b = m->job;
    float *bordered = b->memory + m->index * b->memory_size;
    float *work = bordered + (ptrdiff_t)padded_width(b->h) * padded_width(b->w) * b->c_in;
    for (int i; (i = __atomic_fetch_add(&m->team->next, 1, __ATOMIC_RELAXED)) < b->n;) {
        ptrdiff_t pixels = (ptrdiff_t)i * b->h * b->w;
        add_border(b->x + pixels * b->c_in, b->h, b->w, b->c_in, bordered);
        Conv k = {b->h, b->w, b->c_in, b->c_out, bordered, b->weight, b->bias, NULL, b->y + pixels * b->c_out};
        convolve(&k, work, 0, tiles_across(b->h) * tiles_across(b->w));
    }
}

/* y (n, h, w, c_out) = x (n, h, w, c_in) convolved with transformed weights, plus bias (c_out). */
void convolve_batch(int n, int h, int w, int c_in, int c_out, const float *x, const float *weight, const float *bias,
                    float *y, float *memory, ptrdiff_t memory_size, int threads) {
    Batch b = {n, h, w, c_in, c_out, x, weight, bias, y, memory, NULL, memory_size};
    together(convolve_images, &b, smaller(threads, n));
}

/* The transpose of `backward`. */
static inline void backward_transposed(const vec y[TILE], vec out[PATCH]) {
    vec p = y[0] + y[2], q = y[1] + y[3], r = y[0] + 4.0f * y[2], u = 2.0f * y[1] + 8.0f * y[3];
    out[0] = y[0];
    out[1] = p + q;
    out[2] = p - q;
    out[3] = r + u;
    out[4] = r - u;
    out[5] = y[3];
}

/* products[position][tile - first][c_out] of an output's gradient, whose sides divide by TILE */
static void transform_gradient(const Conv *k, float *products, int first, int last, int size) {
    int across = tiles_across(k->w);
    for (int tile = first; tile < last; tile++) {
        const float *in = k->out + ((ptrdiff_t)(tile / across) * TILE * k->w + tile % across * TILE) * k->c_out;
        for (int c = 0; c < k->c_out; c += LANES) {
            vec rows[PATCH][TILE], y[TILE], out[PATCH];
            for (int i = 0; i < TILE; i++) {
                for (int j = 0; j < TILE; j++) y[j] = load(in + ((ptrdiff_t)j * k->w + i) * k->c_out + c);
                backward_transposed(y, out);
                for (int j = 0; j < PATCH; j++) rows[j][i] = out[j];
            }
            float *p = products + (ptrdiff_t)(tile - first) * k->c_out + c;
            for (int j = 0; j < PATCH; j++) {
                backward_transposed(rows[j], out);
                for (int i = 0; i < PATCH; i++) store(p + (ptrdiff_t)(j * PATCH + i) * stride(size, k->c_out), out[i]);
            }
        }
    }
}

/* out[r][0..blocks COLUMNS) += sum over i < k of a[i][r] b[i][0..blocks COLUMNS) */
static inline __attribute__((always_inline)) void outer_of(const int rows, const int blocks, const float *restrict a,
                                                           const float *restrict b, ptrdiff_t b_step, int k,
                                                           ptrdiff_t a_step, float *restrict out, ptrdiff_t out_row) {
    const int vectors = blocks * VECTORS;
    vec sum[ROWS][BLOCKS * VECTORS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) sum[r][j] = load(out + r * out_row + j * LANES);
    for (int i = 0; i < k; i++, a += a_step, b += b_step) {
        vec other[BLOCKS * VECTORS];
        for (int j = 0; j < vectors; j++) other[j] = load(b + j * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            vec x = all(a[r]);
            for (int j = 0; j < vectors; j++) sum[r][j] += x * other[j];
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) store(out + r * out_row + j * LANES, sum[r][j]);
}

static inline __attribute__((always_inline)) void outer_rows(const int blocks, const float *a, int c_in, const float *b,
                                                             int k, float *out, int c_out) {
    int rows = c_in;
    for (; rows >= ROWS; rows -= ROWS, a += ROWS, out += ROWS * c_out)
        outer_of(ROWS, blocks, a, b, c_out, k, c_in, out, c_out);
    for (; rows >= 4; rows -= 4, a += 4, out += 4 * c_out) outer_of(4, blocks, a, b, c_out, k, c_in, out, c_out);
    for (; rows >= 2; rows -= 2, a += 2, out += 2 * c_out) outer_of(2, blocks, a, b, c_out, k, c_in, out, c_out);
}

/* out[c_in][c_out] += a[k][c_in], transposed, times b[k][c_out] */
static void outer(const float *a, int c_in, const float *b, int c_out, int k, float *out) {
    int c = 0;
    for (; c + BLOCKS * COLUMNS <= c_out; c += BLOCKS * COLUMNS) outer_rows(BLOCKS, a, c_in, b + c, k, out + c, c_out);
    for (; c < c_out; c += COLUMNS) outer_rows(1, a, c_in, b + c, k, out + c, c_out);
}

/* Every thread takes the same images each time, and their sums are added in one order: a run can be repeated. */
static void gather_gradients(const Member *m) {
    const Batch *b = m->job;
    int i = m->index, n = m->team->threads, tiles = tiles_across(b->h) * tiles_across(b->w);
    ptrdiff_t size = (ptrdiff_t)POSITIONS * b->c_in * b->c_out;
    float *sums = b->memory + i * b->memory_size, *bordered = sums + size;
    float *patches = bordered + (ptrdiff_t)padded_width(b->h) * padded_width(b->w) * b->c_in;
    float *products = patches + POSITIONS * stride(BLOCK, b->c_in);
    memset(sums, 0, sizeof(float) * size);
    for (int image = part(b->n, i, n); image < part(b->n, i + 1, n); image++) {
        ptrdiff_t pixels = (ptrdiff_t)image * b->h * b->w;
        add_border(b->x + pixels * b->c_in, b->h, b->w, b->c_in, bordered);
        Conv k = {b->h, b->w, b->c_in, b->c_out, bordered, NULL, NULL, NULL, b->y + pixels * b->c_out};
        for (int first = 0; first < tiles; first += BLOCK) {
            int last = smaller(tiles, first + BLOCK), block = last - first;
            transform(&k, patches, first, last, block, 0, b->c_in);
            transform_gradient(&k, products, first, last, block);
            for (int p = 0; p < POSITIONS; p++)
                outer(patches + p * stride(block, b->c_in), b->c_in, products + p * stride(block, b->c_out), b->c_out, block,
                      sums + (ptrdiff_t)p * b->c_in * b->c_out);
        }
    }
    if (n > 1) gate(m->team);
    ptrdiff_t from = size / LANES * i / n * LANES, to = size / LANES * (i + 1) / n * LANES;
    for (ptrdiff_t at = from; at < to; at += LANES) {
        vec sum = {0};
        for (int j = 0; j < n; j++) sum += load(b->memory + j * b->memory_size + at);
        store(b->gradient + at, sum);
    }
}

/* gradient (POSITIONS, c_in, c_out) of the transformed weights, from x (n, h, w, c_in) and the output's gradient y
   (n, h, w, c_out). */
void gather_batch(int n, int h, int w, int c_in, int c_out, const float *x, float *y, float *gradient, float *memory,
                  ptrdiff_t memory_size, int threads) {
    Batch b = {n, h, w, c_in, c_out, x, NULL, NULL, y, memory, gradient, memory_size};
    together(gather_gradients, &b, smaller(threads, n));
}

/* Three taps become six. */
static inline void forward_taps(const vec g[3], vec out[PATCH]) {
    vec even = g[0] + g[2], far = g[0] + 4.0f * g[2];
    out[0] = 0.25f * g[0];
    out[1] = (even + g[1]) * (-1.0f / 6);
    out[2] = (even - g[1]) * (-1.0f / 6);
    out[3] = (far + 2.0f * g[1]) * (1.0f / 24);
    out[4] = (far - 2.0f * g[1]) * (1.0f / 24);
    out[5] = g[2];
}

/* weight (c_out, c_in, 3, 3) -> out (POSITIONS, c_out / COLUMNS, c_in, COLUMNS). With `transposed`, weight is
   (c_in, c_out, 3, 3) and turned around: the convolution of the gradient. */
void transform_weights(const float *weight, int c_out, int c_in, int transposed, float *out) {
    for (int o = 0; o < c_out; o += LANES)
        for (int i = 0; i < c_in; i++) {
            vec rows[PATCH][3], g[3], six[PATCH];
            for (int x = 0; x < 3; x++) {
                for (int y = 0; y < 3; y++)
                    for (int lane = 0; lane < LANES; lane++)
                        g[y][lane] = transposed ? weight[((ptrdiff_t)i * c_out + o + lane) * 9 + 8 - 3 * y - x]
                                                : weight[((ptrdiff_t)(o + lane) * c_in + i) * 9 + 3 * y + x];
                forward_taps(g, six);
                for (int y = 0; y < PATCH; y++) rows[y][x] = six[y];
            }
            float *to = out + (ptrdiff_t)o / COLUMNS * COLUMNS * c_in + i * COLUMNS + o % COLUMNS;
            for (int y = 0; y < PATCH; y++) {
                forward_taps(rows[y], six);
                for (int x = 0; x < PATCH; x++) store(to + (ptrdiff_t)(y * PATCH + x) * c_out * c_in, six[x]);
            }
        }
}
