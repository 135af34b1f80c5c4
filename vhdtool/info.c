/* A disk as JSON: what `info` prints, and what other programs read with -o json. */
#include <string.h>

#include "hv/base/units.h"
#include "vhdtool/vhdtool.h"

static json_t *text_or_null(const char *s)
{
    return s && s[0] ? json_string(s) : json_null();
}

static json_t *guid_or_null(const struct guid *g)
{
    char text[GUID_TEXT_SIZE];

    return guid_is_zero(g) ? json_null() : json_string(guid_format(g, text));
}

static json_t *layer_json(struct disk_layer *l, bool count)
{
    struct disk_info i;
    char time[40];

    if (disk_layer_info(l, count, &i) < 0) {
        return json_null();
    }
    return json_pack(
        "{s:s s:s s:s s:I s:I s:I s:I s:o s:I s:i s:i s:o s:o s:o s:o s:o s:o s:b s:o}",
        "path", disk_file_path(disk_layer_file(l)),
        "format", disk_kind_name(i.kind),
        "type", disk_type_name(i.type),
        "size", (json_int_t)i.size,
        "file_size", (json_int_t)i.file_size,
        "allocated", (json_int_t)i.allocated,
        "block_size", (json_int_t)i.block_size,
        "blocks_present", count && i.blocks ? json_integer((json_int_t)i.blocks_present) : json_null(),
        "blocks", (json_int_t)i.blocks,
        "logical_sector", (int)i.logical_sector,
        "physical_sector", (int)i.physical_sector,
        "id", guid_or_null(&i.id),
        "data_id", guid_or_null(&i.data_id),
        "creator", text_or_null(i.creator),
        "created", i.created_s ? json_string(format_time_utc(i.created_s * NS_PER_SEC, time, sizeof(time))) : json_null(),
        "chs_size", i.chs_size ? json_integer((json_int_t)i.chs_size) : json_null(),
        "log_dirty", i.kind == DISK_VHDX ? json_boolean(i.log_dirty) : json_null(),
        "saved_state", i.saved_state,
        "note", text_or_null(i.note));
}

/* A stored name of a parent as this host would write it: "..\\base.vhdx" is ../base.vhdx. */
static json_t *host_name(const struct disk_parent_ref *ref)
{
    const char *name = ref->relative[0] ? ref->relative : ref->absolute[0] ? ref->absolute : ref->name;
    char text[sizeof(ref->relative)];

    hv_strlcpy(text, name + (strncmp(name, ".\\", 2) == 0 ? 2 : 0), sizeof(text));
    for (char *p = text; name == ref->relative && *p; p++) {
        *p = *p == '\\' ? '/' : *p;
    }
    return text_or_null(text);
}

json_t *info_json(struct disk *d, const char *path, const char *in_use, bool count)
{
    json_t *o = layer_json(disk_layer(d, 0), count), *chain = json_array();
    struct disk_info i;

    if (!json_is_object(o) || disk_layer_info(disk_layer(d, 0), false, &i) < 0) {
        json_decref(chain);
        return o;
    }
    json_object_set_new(o, "path", json_string(path));
    for (unsigned n = 1; disk_layer(d, n); n++) {
        json_array_append_new(chain, layer_json(disk_layer(d, n), false));
    }
    json_object_set_new(o, "parent", !i.has_parent ? json_null()
                        : disk_layer(d, 1) ? json_string(disk_file_path(disk_layer_file(disk_layer(d, 1))))
                        : host_name(&i.parent));
    json_object_set_new(o, "in_use", text_or_null(in_use));
    json_object_set_new(o, "chain", chain);
    return o;
}
