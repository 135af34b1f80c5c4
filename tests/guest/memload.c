/*
 * In the guest: a load on memory that goes up and down at random, with content that is looked at.
 *
 *   memload SEED MOST_MIB STEP_MIB PAUSE_MS SECONDS
 *
 * Again and again it picks a size up to MOST_MIB, commits to it at once, then fills what is new a
 * step at a time; going down it compares first what it lets go of. One pick in four is nothing at
 * all. Prints a line "memload: ..." at its end: "all as written", or what was not.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB (1u << 20)
#define WORDS (MIB / sizeof(uint64_t))

static uint64_t *arena, seed;
static unsigned generation[65536], have;

static unsigned pick(unsigned limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % limit;
}

static uint64_t word(unsigned chunk, unsigned i)
{
    return ((uint64_t)chunk << 40 ^ (uint64_t)generation[chunk] << 20 ^ i) * UINT64_C(0x9e3779b97f4a7c15);
}

static void fill(unsigned chunk)
{
    generation[chunk]++;
    for (unsigned i = 0; i < WORDS; i++)
        arena[chunk * WORDS + i] = word(chunk, i);
}

static void compare(unsigned chunk)
{
    for (unsigned i = 0; i < WORDS; i++)
        if (arena[chunk * WORDS + i] != word(chunk, i)) {
            printf("memload: BAD: MiB %u, word %u is not what was written\n", chunk, i);
            exit(1);
        }
}

static void nap(unsigned ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    seed = strtoull(argv[1], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    unsigned most = (unsigned)strtoul(argv[2], NULL, 10), step = (unsigned)strtoul(argv[3], NULL, 10);
    unsigned pause = (unsigned)strtoul(argv[4], NULL, 10), peak = 0, moves = 0;
    time_t end = time(NULL) + (time_t)strtoul(argv[5], NULL, 10);
    if (most == 0 || most > 65536 || step == 0)
        return 2;
    arena = mmap(NULL, (size_t)most * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED)
        return 1;
    while (time(NULL) < end) {
        unsigned to = pick(4) ? pick(most + 1) : 0;
        if (to > have && mprotect(arena + have * WORDS, (size_t)(to - have) * MIB, PROT_READ | PROT_WRITE) < 0)
            to = have;                          /* not even committed to: the next pick may be smaller */
        for (unsigned n = 0; have < to; n++) {
            fill(have++);
            if (n % step == step - 1)
                nap(pause);
        }
        for (unsigned i = to; i < have; i++)
            compare(i);
        if (to < have)
            (void)mmap(arena + to * WORDS, (size_t)(have - to) * MIB, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        have = to;
        peak = have > peak ? have : peak;
        moves++;
        nap(2000 + pick(13000));
    }
    for (unsigned i = 0; i < have; i++)
        compare(i);
    printf("memload: %u moves, %u MiB at most, all as written\n", moves, peak);
    return 0;
}
