/*
 * Debian's own kernels, as tests/guest/fetch.sh puts them into the cache: loading them
 * both ways, as bzImage and as ELF, and cut files.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>

#include "hv/boot/blob.h"
#include "hv/boot/loader.h"
#include "hv/boot/unpack.h"
#include "tests/unit/boot/fixture.h"

struct debian { const char *name, *format; int fd; char version[80]; };
static struct debian KERNELS[] = { { "cloud", "lz4", -1, "" }, { "generic", "xz", -1, "" } };

/* The same cache as tests/guest/lib.sh. */
static char *cache_path(const char *what, const char *name)
{
    const char *c = getenv("HV_TEST_CACHE"), *x = getenv("XDG_CACHE_HOME"), *h = getenv("HOME");
    if (c) {
        return hv_asprintf("%s/%s-%s", c, what, name);
    }
    return x ? hv_asprintf("%s/hv-tests/%s-%s", x, what, name)
             : hv_asprintf("%s/.cache/hv-tests/%s-%s", h ? h : "/tmp", what, name);
}

static int open_kernels(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(KERNELS); i++) {
        struct debian *d = &KERNELS[i];
        hv_autofree char *file = cache_path("vmlinuz", d->name), *mods = cache_path("modules", d->name);
        char link[256];
        ssize_t n = readlink(mods, link, sizeof(link) - 1);
        d->fd = open(file, O_RDONLY | O_CLOEXEC);
        if (d->fd < 0 || n < 0) {
            print_message("no %s: run tests/guest/fetch.sh\n", file);
            d->fd = -1;
            continue;
        }
        link[n] = '\0';
        hv_strlcpy(d->version, strrchr(link, '/') + 1, sizeof(d->version));
    }
    return 0;
}

static struct debian *kernel(void **state)
{
    struct debian *d = *state;
    if (d->fd < 0) {
        skip();
    }
    return d;
}

static void vm_debian(struct vm *v, const struct debian *d, uint64_t ram)
{
    vm_init(v, ram);
    v->cfg.kernel_fd = fcntl(d->fd, F_DUPFD_CLOEXEC, 3);
    assert_true(v->cfg.kernel_fd >= 0);
}

static void test_unpacked(void **state)
{
    struct debian *d = kernel(state);
    struct vm v;
    hv_autofree char *want = hv_asprintf("Linux %s, bzImage, %s", d->version, d->format);

    vm_debian(&v, d, 128 * MIB);
    vm_boots(&v);
    assert_string_equal(v.res.kernel, want);
    assert_int_equal(v.res.entry.mode, BOOT_MODE_LONG64);
    assert_int_equal(v.res.entry.rip, 0x1000000);
    assert_true(v.res.kernel_end > 40 * MIB && v.res.kernel_end < 128 * MIB);
    assert_int_not_equal(ram64(&v, 0x1000000), 0);
    vm_fini(&v);
}

static void test_guest_unpacks(void **state)
{
    struct debian *d = kernel(state);
    struct vm v;
    uint8_t file[512], ram[512];

    vm_debian(&v, d, 6 * GIB);
    v.cfg.guest_unpacks = true;
    vm_boots(&v);
    assert_int_equal(v.res.entry.rip, 0x1000200);
    assert_int_equal(pread(d->fd, file, 512, 0), 512);
    off_t prot = (file[0x1F1] + 1) * 512;
    assert_int_equal(pread(d->fd, file, 512, prot), 512);
    assert_int_equal(mem_read(v.m, 0x1000000, ram, 512), 0);
    assert_memory_equal(ram, file, 512);
    vm_fini(&v);
}

static int keep(void *image, uint64_t off, const uint8_t *data, size_t len, struct hv_error *e)
{
    (void)e;
    memcpy((uint8_t *)image + off, data, len);
    return 0;
}

/*
 * The vmlinux inside, given as a file of its own, enters by PVH at the address of its note. Unpacked from its
 * bzImage it is the same in RAM, but for pages of zeros, which cost the host nothing.
 */
static void test_vmlinux(void **state)
{
    struct debian *d = kernel(state);
    struct vm v;
    uint8_t h[0x300];

    assert_int_equal(pread(d->fd, h, sizeof(h), 0), sizeof(h));
    off_t at = (h[0x1F1] + 1) * 512 + (off_t)get_le32(h + 0x248);
    size_t packed_len = get_le32(h + 0x24C);
    uint8_t *packed = hv_alloc(packed_len);
    assert_int_equal(pread(d->fd, packed, packed_len, at), packed_len);
    struct blob file = blob_from_memory(packed, packed_len, "x");
    size_t len = get_le32(packed + packed_len - 4);
    uint8_t *image = hv_alloc(len);
    assert_int_equal(unpack(unpack_detect(packed, packed_len), &file, 0, packed_len, len, keep, image, NULL), 0);

    vm_init(&v, 128 * MIB);
    vm_kernel(&v, image, len);
    vm_boots(&v);
    hv_autofree char *want = hv_asprintf("Linux %s, ELF, PVH entry", d->version);
    assert_string_equal(v.res.kernel, want);
    assert_int_equal(v.res.entry.mode, BOOT_MODE_FLAT32);
    assert_true(v.res.entry.rip > 0x1000000 && v.res.entry.rip < 0x1001000);

    struct vm w;
    struct stat whole, sparse;
    struct mem_pin a, b;
    vm_debian(&w, d, 128 * MIB);
    vm_boots(&w);
    assert_int_equal(fstat(mem_fd(v.m), &whole), 0);
    assert_int_equal(fstat(mem_fd(w.m), &sparse), 0);
    assert_true(sparse.st_blocks + 8 * 512 < whole.st_blocks);
    assert_int_equal(w.res.kernel_base, v.res.kernel_base);
    assert_int_equal(w.res.kernel_end, v.res.kernel_end);
    assert_int_equal(mem_pin(v.m, v.res.kernel_base, v.res.kernel_end - v.res.kernel_base, MEM_READ, &a), 0);
    assert_int_equal(mem_pin(w.m, v.res.kernel_base, v.res.kernel_end - v.res.kernel_base, MEM_READ, &b), 0);
    assert_int_equal(memcmp(a.hva, b.hva, a.len), 0);
    mem_unpin(&a);
    mem_unpin(&b);
    vm_fini(&w);
    vm_fini(&v);
    free(packed);
    free(image);
}

static void test_needs_memory(void **state)
{
    struct debian *d = kernel(state);
    struct vm v;

    vm_debian(&v, d, 48 * MIB);
    vm_refuses(&v, HV_NO_RESOURCES, "of memory, the VM has 48M");
    assert_memory_equal(v.e.hint, "--memory ", 9);
    v.cfg.guest_unpacks = true;
    vm_refuses(&v, HV_NO_RESOURCES, "of memory, the VM has 48M");
    vm_fini(&v);
}

/* Cut at every place where something else begins. */
static void test_truncated(void **state)
{
    struct debian *d = kernel(state);
    struct vm v;
    struct stat st;

    assert_int_equal(fstat(d->fd, &st), 0);
    size_t size = (size_t)st.st_size;
    uint8_t *file = hv_alloc(size);
    assert_int_equal(pread(d->fd, file, size, 0), st.st_size);
    size_t prot = (file[0x1F1] + 1u) * 512;
    size_t payload = prot + get_le32(file + 0x248);
    size_t end = prot + get_le32(file + 0x1F4) * 16u;
    assert_true(end <= size);
    const size_t cuts[] = {
        end - 1, end - 16, payload + get_le32(file + 0x24C), payload + get_le32(file + 0x24C) - 4, payload + 4,
        payload, prot + 0x210, prot + 0x200, prot, prot - 1, 0x1000, 0x290, 0x264, 0x263, 0x24C, 0x238, 0x211,
        0x206, 0x205, 0x202, 0x200, 0x1F1, 0x40, 0x3F, 2, 1,
    };

    vm_init(&v, 128 * MIB);
    vm_kernel(&v, file, size);
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        assert_int_equal(ftruncate(v.cfg.kernel_fd, (off_t)cuts[i]), 0);
        vm_refuses(&v, HV_USAGE, cuts[i] >= 2 ? "is truncated" : "is not a kernel");
    }
    vm_fini(&v);
    free(file);
}

int main(void)
{
#define BOTH(fn) { #fn ", cloud", fn, NULL, NULL, &KERNELS[0] }, { #fn ", generic", fn, NULL, NULL, &KERNELS[1] }
    const struct CMUnitTest tests[] = {
        BOTH(test_unpacked), BOTH(test_guest_unpacks), BOTH(test_vmlinux), BOTH(test_needs_memory),
        BOTH(test_truncated),
    };
    return cmocka_run_group_tests(tests, open_kernels, NULL);
}
