/* From messages to the model and the recording, whether they are live or replayed. */
#include "hvtop/feed.h"
#include "hvtop/hvtop.h"
#include "hvtop/record.h"

#define BEFORE_MS (15 * 60 * 1000)       /* what a jump reads of before, for the fine graphs */
#define BEFORE_COARSE_MS (24 * 3600 * 1000)

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
    /* A day of it in single samples for the long spans, a frame apart; then the last minutes whole. */
    uint64_t begin = time_ms > BEFORE_COARSE_MS ? time_ms - BEFORE_COARSE_MS : 0;
    uint64_t fine = time_ms > BEFORE_MS ? time_ms - BEFORE_MS : 0, first = replay_first_ms(s->replay);
    json_t *msg;
    model_forget(s->m);
    for (uint64_t at = MAX(begin, first); at < fine; at += 5 * 60 * 1000) {
        replay_seek(s->replay, at);
        bool sampled = false;
        while (!sampled && (msg = replay_next(s->replay))) {
            uint64_t t = time_of(msg);
            sampled = t && json_object_get(msg, "rows");
            at = sampled ? MAX(at, t) : at;
            if (t <= time_ms) {
                top_take(s, msg, NULL);
            } else {
                json_decref(msg);
            }
        }
        if (!sampled) {
            break;
        }
    }
    replay_seek(s->replay, fine);
    /* Up to the moment itself; what comes after it is read again later. */
    while ((msg = replay_next(s->replay))) {
        if (time_of(msg) > time_ms) {
            s->pending = msg;
            break;
        }
        top_take(s, msg, NULL);
    }
}
