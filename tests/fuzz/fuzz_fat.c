/* FAT from a stranger: patches to a FAT16 or FAT32 image, then everything in it is read. */
#include "hv/fs/fat.h"
#include "tests/fuzz/fuzz_fs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const uint64_t fat_sizes[2] = { 4 * MIB, 36 * MIB };

static void make_fat(struct fuzz_bytes *image)
{
    uint8_t data[9000];
    struct fat_file f[] = {
        { .path = (char *)"a/b/c", .data = data, .len = 5000 },
        { .path = (char *)"dir", .dir = true },
        { .path = (char *)"big/name-5 with a long name that takes several entries.txt", .data = data, .len = 100 },
        { .path = (char *)"FILE", .data = data, .len = sizeof(data) },
    };
    struct fat_make m = { .label = "FUZZ", .zeroed = true, .files = f, .n = ARRAY_SIZE(f) };
    struct disk *d = fuzz_disk(image);

    memset(data, 0x5a, sizeof(data));
    hv_assert(fat_make(d, 0, image->len, &m, NULL) == 0);
    hv_assert(disk_close(d, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct fuzz_bytes base[2], image[2];
    static uint16_t units[2][64];
    static size_t n_units[2];
    struct hv_error e = { 0 };
    struct fs *fs;

    if (!base[0].p) {
        for (unsigned i = 0; i < 2; i++) {
            base[i] = (struct fuzz_bytes){ hv_alloc(fat_sizes[i]), fat_sizes[i] };
            image[i] = (struct fuzz_bytes){ hv_alloc(fat_sizes[i]), fat_sizes[i] };
            hv_assert(base[i].p && image[i].p);
            make_fat(&base[i]);
            n_units[i] = fuzz_units(&base[i], units[i], ARRAY_SIZE(units[i]));
            memcpy(image[i].p, base[i].p, fat_sizes[i]);
        }
    }
    if (len < 1) {
        return 0;
    }
    unsigned which = data[0] & 1;
    for (size_t i = 0; i < n_units[which]; i++) {
        memcpy(image[which].p + units[which][i] * 4096, base[which].p + units[which][i] * 4096, 4096);
    }
    fuzz_patch(&image[which], units[which], n_units[which], data + 1, len - 1);
    struct disk *d = fuzz_disk(&image[which]);
    if (fat_open(d, 0, fat_sizes[which], &fs, &e) == 0) {
        fuzz_walk(fs, 60);
        fs_close(fs);
    } else {
        hv_assert(e.message[0]);
    }
    fuzz_check(d);
    disk_close(d, NULL);
    return 0;
}
