/* From messages to the model and the recording, whether they are live or replayed. */
#include "hvtop/feed.h"
#include "hvtop/hvtop.h"
#include "hvtop/record.h"

#define BEFORE_MS (15 * 60 * 1000)       /* what a jump reads of before, for the fine graphs */
#define BEFORE_COARSE_MS (24 * 3600 * 1000)
#define MINUTE_MS 60000u

int top_take(struct top_source *s, json_t *msg, struct hv_error *e)
{
    int r = 0;
    if (model_apply(s->m, msg) == 0 && s->recorder) {
        r = recorder_write(s->recorder, msg, e);
    }
    json_decref(msg);
    return r;
}

static uint64_t time_of(const json_t *msg)
{
    json_int_t t = json_integer_value(json_object_get(msg, "time_ms"));
    return t > 0 ? (uint64_t)t : 0;
}

void top_go_to(struct top_source *s, uint64_t time_ms)
{
    uint64_t begin = time_ms > BEFORE_COARSE_MS ? time_ms - BEFORE_COARSE_MS : 0;
    uint64_t fine = time_ms > BEFORE_MS ? time_ms - BEFORE_MS : 0, next[MODEL_HOSTS_MAX];
    json_t *msg;
    model_forget(s->m);
    for (unsigned i = 0; i < MODEL_HOSTS_MAX; i++) {
        next[i] = begin;
    }
    replay_seek(s->replay, begin);
    /* A sample a minute for the long spans, then all of the last minutes. What comes after the moment
     * itself is read, and kept until it is due. */
    while ((msg = replay_next_after(s->replay, next))) {
        uint64_t t = time_of(msg);
        json_int_t host = json_integer_value(json_object_get(msg, "host"));
        if (t > time_ms) {
            s->pending = msg;
            break;
        }
        if (t && json_object_get(msg, "rows") && host >= 0 && host < MODEL_HOSTS_MAX) {
            next[host] = MIN(t - t % MINUTE_MS + MINUTE_MS, MAX(fine, t));
        }
        top_take(s, msg, NULL);
    }
}
