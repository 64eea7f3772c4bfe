/* AMX's instructions on a processor without them: each ends in SIGILL, is read, and is done here. For tests.

   As in Intel's manual (volume 2, "TDPBF16PS" and its neighbours); what would be a fault there is counted. */

#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, ROWS = 16, BYTES = 64 };
enum { NONE, P66, PF3, PF2 }; /* VEX.pp */

static __thread struct {
    int configured, rows[TILES], bytes[TILES];
    unsigned char of[TILES][ROWS][BYTES];
} now;
static const int REGISTERS[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
static long done[256], wrong;

long times(int opcode) { return done[opcode]; }
long faults(void) { return wrong; }

static void must(int holds) { wrong += !holds; }

static void configure(const unsigned char *from) {
    memset(&now, 0, sizeof now);
    must(from[0] == 1 && from[1] == 0);
    for (int i = 0; i < TILES; i++) {
        now.rows[i] = from[48 + i];
        now.bytes[i] = from[16 + 2 * i] | from[17 + 2 * i] << 8;
        must(now.rows[i] <= ROWS && now.bytes[i] <= BYTES && !now.rows[i] == !now.bytes[i]);
    }
    now.configured = 1;
}

static float of_bfloat(const unsigned char *x) {
    uint32_t bits = (uint32_t)(x[0] | x[1] << 8) << 16;
    float y;
    memcpy(&y, &bits, sizeof y);
    return y;
}

static void dot(int sums, int a, int b) {
    must(now.rows[sums] == now.rows[a] && now.bytes[sums] == now.bytes[b] && now.bytes[a] == 4 * now.rows[b]);
    for (int m = 0; m < now.rows[sums]; m++)
        for (int n = 0; n < now.bytes[sums] / 4; n++) {
            float old, even = 0, odd = 0;
            for (int k = 0; k < now.rows[b]; k++) {
                even += of_bfloat(now.of[a][m] + 4 * k) * of_bfloat(now.of[b][k] + 4 * n);
                odd += of_bfloat(now.of[a][m] + 4 * k + 2) * of_bfloat(now.of[b][k] + 4 * n + 2);
            }
            memcpy(&old, now.of[sums][m] + 4 * n, sizeof old);
            old += even + odd;
            memcpy(now.of[sums][m] + 4 * n, &old, sizeof old);
        }
}

static void trapped(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *p = (const unsigned char *)registers[REG_RIP], *next = p + 5;
    (void)info;
    if (p[0] != 0xc4 || (p[1] & 0x1f) != 2 || (p[3] != 0x49 && p[3] != 0x4b && p[3] != 0x5c)) {
        signal(signal_number, SIG_DFL); /* none of ours */
        return;
    }
    int high_index = !(p[1] & 0x40) << 3, high_base = !(p[1] & 0x20) << 3, prefix = p[2] & 3, opcode = p[3];
    int mode = p[4] >> 6, tile = p[4] >> 3 & 7, low = p[4] & 7, third = ~(p[2] >> 3) & 15;
    char *memory = NULL;
    ptrdiff_t stride = 0;
    if (mode != 3) {
        int relative = mode == 0 && low == 5, bare = 0;
        if (low == 4) {
            int index = (*next >> 3 & 7) | high_index;
            stride = index == 4 ? 0 : registers[REGISTERS[index]] * (1 << (*next >> 6));
            bare = mode == 0 && (*next & 7) == 5;
            low = *next++ & 7;
        }
        if (!relative && !bare) memory = (char *)registers[REGISTERS[low | high_base]];
        int32_t away = 0;
        if (mode == 1) away = (signed char)*next++;
        if (mode == 2 || relative || bare) memcpy(&away, next, sizeof away), next += sizeof away;
        memory += away + (relative ? (ptrdiff_t)next : 0);
    }
    done[opcode]++;
    if (opcode == 0x49 && mode != 3) {
        must(prefix == NONE);
        configure((unsigned char *)memory + stride);
    } else if (opcode == 0x49 && prefix == NONE) {
        memset(&now, 0, sizeof now);
    } else {
        must(now.configured && now.rows[tile]);
        if (opcode == 0x49) {
            must(prefix == PF2);
            memset(now.of[tile], 0, sizeof now.of[tile]);
        } else if (opcode == 0x5c) {
            must(prefix == PF3 && mode == 3);
            dot(tile, low, third);
        } else {
            must(mode != 3 && prefix != NONE);
            if (prefix != PF3) memset(now.of[tile], 0, sizeof now.of[tile]);
            for (int r = 0; r < now.rows[tile]; r++)
                if (prefix == PF3) memcpy(memory + r * stride, now.of[tile][r], now.bytes[tile]);
                else memcpy(now.of[tile][r], memory + r * stride, now.bytes[tile]);
        }
    }
    registers[REG_RIP] = (greg_t)next;
}

static struct sigaction before;

int begin(void) {
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    return sigaction(SIGILL, &action, &before);
}

int end(void) { return sigaction(SIGILL, &before, NULL); }
