/* Writing recordings. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "hvtop/model.h"
#include "hvtop/record.h"

#define LEVEL 6
#define ZSTD_MAGIC_BYTES "\x28\xb5\x2f\xfd"

struct recorder {
    int fd;
    char *path;
    ZSTD_CCtx *z;
    uint64_t bytes;
    unsigned samples, hosts;
    bool begun;                                     /* a frame is open */
    json_t *name[MODEL_HOSTS_MAX], *columns[MODEL_HOSTS_MAX];
};

static int out_of_memory(struct hv_error *e) { return hv_fail(e, HV_NO_RESOURCES, NULL, "out of memory"); }

static int compress(struct recorder *r, const void *data, size_t len, ZSTD_EndDirective how, struct hv_error *e)
{
    char buf[16384];
    ZSTD_inBuffer in = {data, len, 0};
    for (size_t left = 1; left > 0 || in.pos < in.size;) {
        ZSTD_outBuffer out = {buf, sizeof(buf), 0};
        left = ZSTD_compressStream2(r->z, &out, &in, how);
        if (ZSTD_isError(left)) {
            return hv_fail(e, HV_FAILED, r->path, "cannot compress: %s", ZSTD_getErrorName(left));
        }
        int w = out.pos ? hv_write_all(r->fd, buf, out.pos) : 0;
        if (w < 0) {
            return hv_fail_errno(e, -w, r->path, "cannot write the recording");
        }
        r->bytes += out.pos;
        if (how == ZSTD_e_continue) {
            left = 0;
        }
    }
    return 0;
}

static int write_line(struct recorder *r, const json_t *o, bool flush, struct hv_error *e)
{
    hv_autofree char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6));
    size_t n = text ? strlen(text) : 0;
    if (!text) {
        return out_of_memory(e);
    }
    text[n] = '\n';                                 /* where the NUL was */
    return compress(r, text, n + 1, flush ? ZSTD_e_flush : ZSTD_e_continue, e);
}

/* Only what is ours, or empty, is overwritten. */
static int open_file(const char *path, struct hv_error *e)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct stat st;
    char magic[4];
    if (fd < 0 || fstat(fd, &st) < 0) {
        int err = errno;
        if (fd >= 0) {
            close(fd);
        }
        return hv_fail_errno(e, err, path, "cannot record");
    }
    bool ours = !S_ISREG(st.st_mode) || st.st_size == 0 ||
                (pread(fd, magic, sizeof(magic), 0) == 4 && memcmp(magic, ZSTD_MAGIC_BYTES, 4) == 0);
    if (!ours) {
        close(fd);
        return hv_fail(e, HV_CONFLICT, path, "is there and is no recording");
    }
    if (S_ISREG(st.st_mode) && ftruncate(fd, 0) < 0) {
        int err = errno;
        close(fd);
        return hv_fail_errno(e, err, path, "cannot record");
    }
    return fd;
}

int recorder_open(const char *path, unsigned hosts, struct recorder **ret, struct hv_error *e)
{
    struct recorder *r = hv_alloc(sizeof(*r));
    if (!r) {
        return out_of_memory(e);
    }
    r->hosts = MIN(hosts, MODEL_HOSTS_MAX);
    r->path = hv_strdup(path);
    r->z = ZSTD_createCCtx();
    r->fd = r->path && r->z ? open_file(path, e) : out_of_memory(e);
    if (r->fd < 0) {
        int err = r->fd;
        recorder_close(r, NULL);
        return err;
    }
    ZSTD_CCtx_setParameter(r->z, ZSTD_c_compressionLevel, LEVEL);
    ZSTD_CCtx_setParameter(r->z, ZSTD_c_checksumFlag, 1);
    *ret = r;
    return 0;
}

/* The header is written when the hosts are known by name, as late as the first message. */
static int begin_frame(struct recorder *r, struct hv_error *e)
{
    int err = 0;
    if (r->bytes == 0 && !r->begun) {
        json_t *names = json_array();
        for (unsigned i = 0; i < r->hosts; i++) {
            json_array_append_new(names, r->name[i] ? json_incref(r->name[i]) : json_string(""));
        }
        json_t *head = json_pack("{s:i s:s s:o}", "hvrec", RECORD_VERSION, "version", HV_VERSION, "hosts", names);
        err = write_line(r, head, false, e);
        json_decref(head);
    }
    r->begun = true;
    r->samples = 0;
    for (unsigned i = 0; i < r->hosts && err == 0; i++) {
        if (r->name[i] || r->columns[i]) {
            json_t *o = json_pack("{s:i s:O* s:O*}", "host", (int)i, "name", r->name[i], "columns", r->columns[i]);
            err = write_line(r, o, false, e);
            json_decref(o);
        }
    }
    return err;
}

/* Remember v in *slot. Did it change? */
static bool remember(json_t **slot, json_t *v)
{
    if (!v || (*slot && json_equal(*slot, v))) {
        return false;
    }
    json_decref(*slot);
    *slot = json_incref(v);
    return true;
}

int recorder_write(struct recorder *r, const json_t *msg, struct hv_error *e)
{
    json_int_t host = json_integer_value(json_object_get(msg, "host"));
    if (json_object_get(msg, "history") || host < 0 || host >= (json_int_t)r->hosts) {
        return 0;
    }
    remember(&r->name[host], json_object_get(msg, "name"));
    bool columns = remember(&r->columns[host], json_object_get(msg, "columns"));
    int err = 0;
    if (!r->begun) {
        err = begin_frame(r, e);
        columns = false;
    }
    /* Host and time come first: a reader that looks for a time need not parse the rest. */
    json_t *line = json_pack("{s:I s:O*}", "host", host, "time_ms", json_object_get(msg, "time_ms"));
    if (json_object_update(line, (json_t *)msg) < 0) {
        json_decref(line);
        return out_of_memory(e);
    }
    if (!columns) {
        json_object_del(line, "columns");           /* said before in this frame */
    }
    if (err == 0) {
        err = line ? write_line(r, line, true, e) : out_of_memory(e);
    }
    json_decref(line);
    if (err == 0 && json_object_get(msg, "rows") && ++r->samples >= RECORD_FRAME_SAMPLES) {
        err = compress(r, NULL, 0, ZSTD_e_end, e);
        r->begun = false;
    }
    return err;
}

uint64_t recorder_bytes(const struct recorder *r) { return r->bytes; }

int recorder_close(struct recorder *r, struct hv_error *e)
{
    int err = 0;
    if (!r) {
        return 0;
    }
    if (r->fd >= 0 && r->begun) {
        err = compress(r, NULL, 0, ZSTD_e_end, e);
    }
    if (r->fd >= 0 && close(r->fd) < 0 && err == 0) {
        err = hv_fail_errno(e, errno, r->path, "cannot write the recording");
    }
    for (unsigned i = 0; i < MODEL_HOSTS_MAX; i++) {
        json_decref(r->name[i]);
        json_decref(r->columns[i]);
    }
    ZSTD_freeCCtx(r->z);
    free(r->path);
    free(r);
    return err;
}
