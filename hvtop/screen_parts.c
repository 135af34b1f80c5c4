/* Parts of the detail screen: processors beside integration services, disks, the job under way. */
#include "hvtop/screen_parts.h"

#include <math.h>

#include "hvtop/draw.h"

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static double part(const json_t *disk, enum top_disk i)
{
    const json_t *v = json_array_get(disk, i);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *word(const json_t *disk, enum top_disk i, const char *otherwise)
{
    const char *s = json_string_value(json_array_get(disk, i));
    return s ? s : otherwise;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* A part of a row, in the form of its column. */
static const char *latency(double us, char *buf, size_t size)
{
    snprintf(buf, size, isnan(us) ? "-" : us < 9950 ? "%.1f ms" : "%.0f ms", MIN(us / 1000, 1e9));
    return buf;
}

static const char *rate(double bytes, char *buf, size_t size)
{
    char a[32];
    snprintf(buf, size, isnan(bytes) ? "-" : bytes < 0.5 ? "0" : "%s/s", draw_size(bytes, a, sizeof(a)));
    return buf;
}

unsigned parts_disks(const json_t *row)
{
    return (unsigned)MIN(json_array_size(json_object_get(row, "disks")), (size_t)PARTS_DISKS_MAX);
}

void parts_disk_line(struct canvas *c, int y, const json_t *row, unsigned i)
{
    const json_t *d = json_array_get(json_object_get(row, "disks"), i);
    char r[48], w[48], n[32], l[32], used[32], size[32], right[80];
    int x = canvas_text(c, y, 0, -1, STYLE_TITLE, strcmp(word(d, TOP_DISK_TYPE, ""), "dvd") == 0 ? "dvd  " : "disk ");
    snprintf(right, sizeof(right), "%s/%s", draw_size(part(d, TOP_DISK_USED), used, sizeof(used)), draw_size(part(d, TOP_DISK_SIZE), size, sizeof(size)));
    int end = canvas_right(c, y, c->w, STYLE_NORMAL, right) - 1;
    char line[160];
    snprintf(line, sizeof(line), "r %s  w %s  %s IOPS  %s", rate(part(d, TOP_DISK_READ), r, sizeof(r)), rate(part(d, TOP_DISK_WRITE), w, sizeof(w)),
             top_count(part(d, TOP_DISK_IOPS), n, sizeof(n)), latency(part(d, TOP_DISK_LATENCY), l, sizeof(l)));
    x += canvas_printf(c, y, x, STYLE_NORMAL, "%s ", word(d, TOP_DISK_LOCATION, "-"));
    int room = end - x - (int)strlen(line) - 2;
    strbuf_auto cut = {0};
    cli_cut(&cut, file_name(word(d, TOP_DISK_PATH, "no medium")), (unsigned)MAX(room, 4), c->ascii);
    x += 2 + canvas_text(c, y, x, MAX(MIN(room, end - x), 0), STYLE_NORMAL, cut.buf ? cut.buf : "");
    canvas_text(c, y, x, MAX(end - x, 0), STYLE_NORMAL, line);
}

unsigned parts_services(const json_t *row)
{
    const char *s = json_string_value(json_object_get(row, "services"));
    unsigned n = s && *s;
    for (; s && *s; s++) {
        n += *s == ',';
    }
    return n;
}

int parts_disk_table(struct canvas *c, int y, int h, const json_t *row)
{
    unsigned n = parts_disks(row);
    static const struct { int end; const char *word; } heads[] = {{60, "READ"}, {70, "WRITE"}, {79, "IOPS"}, {90, "LATENCY"}, {98, "QUEUE"}, {114, "USED/SIZE"}};
    canvas_text(c, y, 0, -1, STYLE_TITLE, "Disk");
    if (!n) {
        canvas_text(c, y, 11, -1, STYLE_DIM, "none");
        return 1;
    }
    canvas_text(c, y, 11, -1, STYLE_HEADER, "PATH");
    for (unsigned i = 0; i < ARRAY_SIZE(heads); i++) {
        canvas_right(c, y, heads[i].end, STYLE_HEADER, heads[i].word);
    }
    int used_lines = 1;
    for (unsigned i = 0; i < n && used_lines < h; i++, used_lines++) {
        const json_t *d = json_array_get(json_object_get(row, "disks"), i);
        char a[80], b[32], e[32];
        int at = y + used_lines;
        strbuf_auto cut = {0};
        cli_cut(&cut, word(d, TOP_DISK_PATH, "no medium"), 40, c->ascii);
        canvas_text(c, at, 2, 8, STYLE_NORMAL, word(d, TOP_DISK_LOCATION, "-"));
        canvas_text(c, at, 11, 40, STYLE_NORMAL, cut.buf ? cut.buf : "");
        canvas_right(c, at, heads[0].end, STYLE_NORMAL, rate(part(d, TOP_DISK_READ), a, sizeof(a)));
        canvas_right(c, at, heads[1].end, STYLE_NORMAL, rate(part(d, TOP_DISK_WRITE), a, sizeof(a)));
        canvas_right(c, at, heads[2].end, STYLE_NORMAL, top_count(part(d, TOP_DISK_IOPS), a, sizeof(a)));
        canvas_right(c, at, heads[3].end, STYLE_NORMAL, latency(part(d, TOP_DISK_LATENCY), a, sizeof(a)));
        canvas_right(c, at, heads[4].end, STYLE_NORMAL, top_count(part(d, TOP_DISK_QUEUE), a, sizeof(a)));
        snprintf(a, sizeof(a), "%s/%s", draw_size(part(d, TOP_DISK_USED), b, sizeof(b)), draw_size(part(d, TOP_DISK_SIZE), e, sizeof(e)));
        canvas_right(c, at, heads[5].end, STYLE_NORMAL, a);
    }
    return used_lines;
}

/* "heartbeat ok 3.2" in three columns, of a list joined by commas. */
static void service_line(struct canvas *c, int y, int x, const char *s)
{
    static const int at[] = {0, 14, 26};
    for (unsigned i = 0; i < ARRAY_SIZE(at) && *s; i++) {
        size_t n = i + 1 < ARRAY_SIZE(at) ? strcspn(s, " ") : strlen(s);
        char word[32];
        snprintf(word, sizeof(word), "%.*s", (int)MIN(n, sizeof(word) - 1), s);
        canvas_text(c, y, x + at[i], -1, i == 1 && strcmp(word, "ok") != 0 ? STYLE_DIM : STYLE_NORMAL, i == 1 && strcmp(word, "ok") == 0 ? "OK" : word);
        s += n + (s[n] == ' ');
    }
}

int parts_cpu_and_services(struct canvas *c, int y, int h, const json_t *row)
{
    const json_t *cpu = json_object_get(row, "processor"), *each = json_object_get(cpu, "vcpu_pct");
    const char *services = json_string_value(json_object_get(row, "services"));
    char a[32], b[32], d[32];
    const int half = 78;
    size_t n = json_array_size(each), shown = MIN(n, (size_t)MAX(h - 1, 0)), lines = 0;
    bool more = shown < n && shown > 0;
    int x = canvas_text(c, y, 0, -1, STYLE_TITLE, "vCPU");
    double pct = number(cpu, "cpu_pct");
    x += isnan(pct) ? canvas_printf(c, y, x, STYLE_NORMAL, "      total -") : canvas_printf(c, y, x, STYLE_NORMAL, "      total %.0f%%", pct);
    canvas_printf(c, y, x, STYLE_NORMAL, "   exits %s/s   hypercalls %s/s   interrupts %s/s", top_count(number(cpu, "exits"), a, sizeof(a)),
                  top_count(number(cpu, "hypercalls"), b, sizeof(b)), top_count(number(cpu, "interrupts"), d, sizeof(d)));
    if (c->w > half) {
        canvas_text(c, y, half, -1, STYLE_TITLE, "Integration services");
    }
    for (size_t i = 0; i < shown; i++) {
        int at = y + 1 + (int)i;
        if (more && i == shown - 1) {
            canvas_printf(c, at, 2, STYLE_DIM, "and %zu more", n - i);
            break;
        }
        const json_t *v = json_array_get(each, i);
        double p = json_is_number(v) ? json_number_value(v) : NAN;
        struct draw_part busy = {isnan(p) ? 0 : p, '|', 0x2588, STYLE_BUSY};
        canvas_printf(c, at, 2, STYLE_NORMAL, "%2zu", i);
        draw_bar(c, at, 6, 40, 100, &busy, 1);
        canvas_printf(c, at, 47, STYLE_NORMAL, isnan(p) ? "   -" : "%3.0f%%", p);
    }
    for (const char *p = services ? services : ""; *p && (int)lines < h - 1 && c->w > half; lines++) {
        char line[80];
        size_t len = strcspn(p, ",");
        snprintf(line, sizeof(line), "%.*s", (int)MIN(len, sizeof(line) - 1), p);
        service_line(c, y + 1 + (int)lines, half + 2, line);
        p += len + strspn(p + len, ", ");
    }
    return 1 + (int)MAX(shown, lines);
}

void parts_vcpu_text(const json_t *row, char *buf, size_t size)
{
    const json_t *each = cli_json_path(row, "processor.vcpu_pct");
    size_t at = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < json_array_size(each) && at + 16 < size; i++) {
        const json_t *v = json_array_get(each, i);
        int n = json_is_number(v) ? snprintf(buf + at, size - at, "%s%zu:%.0f", i ? " " : "", i, MIN(MAX(json_number_value(v), 0), 100))
                                  : snprintf(buf + at, size - at, "%s%zu:-", i ? " " : "", i);
        at += n > 0 ? (size_t)n : 0;
    }
}
