/* The storage controller beside a driver that keeps the rules: set-up, sub-channels, what a close leaves. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "hv/vsp/storage.h"
#include "hv/vsp/storage_proto.h"
#include "tests/fuzz/fuzz_fs.h"
#include "tests/unit/vmbus/guest.h"

enum { SUBS = 3, RING = 4, BYTES = 64 * 1024 };

static struct fixture {
    struct guest g;
    struct disk_queue *queue;
    struct storage *s;
    uint8_t bytes[BYTES];
    struct fuzz_bytes file;
    struct disk *disk;
    struct scsi_unit *unit;
    struct guest_channel *primary;
    gpa_t data;                        /* a page for commands */
} x;

static int begin(void **state)
{
    x = (struct fixture){.file = {x.bytes, BYTES}};
    guest_start(&x.g);
    struct storage_config cfg = {.bus = x.g.bus, .sub_channels = SUBS};
    assert_int_equal(disk_queue_new(&x.g.f.loop, 1, false, &x.queue), 0);
    cfg.queue = x.queue;
    assert_int_equal(storage_new(&cfg, &x.s, NULL), 0);
    for (unsigned i = 0; i < BYTES; i++)
        x.bytes[i] = (uint8_t)(i / 512);
    x.disk = fuzz_disk(&x.file);
    assert_int_equal(scsi_unit_new(SCSI_DISK, x.disk, false, x.queue, &x.unit), 0);
    assert_int_equal(storage_set_unit(x.s, 0, x.unit), 0);
    x.data = guest_pages(&x.g, 1);
    return 0;
}

static int end(void **state)
{
    storage_set_unit(x.s, 0, NULL);
    scsi_unit_free(x.unit);
    disk_close(x.disk, NULL);
    storage_free(x.s);
    disk_queue_free(x.queue);
    guest_turn(&x.g);
    guest_stop(&x.g);
    return 0;
}

/* One operation and its answer's status; a[] is both. */
static uint32_t operation(struct guest_channel *c, uint32_t op, uint8_t *a)
{
    uint64_t transaction = 0;
    put_le32(a + VSTOR_OPERATION, op);
    guest_send(c, op, a, VSTOR_LEN);
    assert_int_equal(guest_recv(c, NULL, &transaction, a, VSTOR_LEN), VSTOR_LEN);
    assert_int_equal(transaction, op);
    assert_int_equal(get_le32(a + VSTOR_OPERATION), VSTOR_COMPLETE_IO);
    return get_le32(a + VSTOR_STATUS);
}

/* As storvsc does it, up to the request for sub-channels; returns how many the host can offer. */
static unsigned set_up(void)
{
    uint8_t a[VSTOR_LEN] = {0};
    x.primary = guest_open(&x.g, get_le32(x.g.offer[0].m + OFFER_RELID), RING);
    assert_int_equal(operation(x.primary, VSTOR_BEGIN_INIT, a), 0);
    memset(a, 0, sizeof(a));
    put_le16(a + VSTOR_VERSION, 0x7777);
    assert_int_equal(operation(x.primary, VSTOR_QUERY_VERSION, a), VSTOR_STATUS_REVISION_MISMATCH);
    memset(a, 0, sizeof(a));
    put_le16(a + VSTOR_VERSION, VSTOR_WIN10);
    assert_int_equal(operation(x.primary, VSTOR_QUERY_VERSION, a), 0);
    memset(a, 0, sizeof(a));
    assert_int_equal(operation(x.primary, VSTOR_QUERY_PROPERTIES, a), 0);
    unsigned subs = get_le16(a + VSTOR_MAX_SUB_CHANNELS);
    assert_int_equal(get_le32(a + VSTOR_PROP_FLAGS) & VSTOR_PROP_MULTI_CHANNEL, subs ? 1 : 0);
    memset(a, 0, sizeof(a));
    assert_int_equal(operation(x.primary, VSTOR_END_INIT, a), 0);
    assert_true(storage_ready(x.s));
    return subs;
}

static uint32_t ask_for_sub_channels(unsigned n)
{
    uint8_t a[VSTOR_LEN] = {0};
    put_le16(a + VSTOR_PAYLOAD, (uint16_t)n);
    return operation(x.primary, VSTOR_CREATE_SUB_CHANNELS, a);
}

/* Takes the offers of sub-channels that have come and opens them; how many. */
static unsigned open_sub_channels(struct guest_channel *c[SUBS])
{
    unsigned n = 0;
    uint32_t relid[SUBS];
    for (const uint8_t *m; (m = guest_next(&x.g)); n++) {
        assert_int_equal(get_le32(m), VMBUS_MSG_OFFER);
        assert_memory_equal(m + OFFER_CLASS, x.g.offer[0].m + OFFER_CLASS, 32);       /* same class and instance */
        assert_int_equal(get_le16(m + OFFER_SUB_INDEX), n + 1);
        relid[n] = get_le32(m + OFFER_RELID);
        assert_int_equal(get_le32(m + OFFER_CONNECTION), relid[n] | VMBUS_SINT << 12);
    }
    for (unsigned i = 0; i < n; i++)
        c[i] = guest_open(&x.g, relid[i], RING);
    return n;
}

/* READ(10) of one block; not yet waited for. */
static void send_read(struct guest_channel *c, uint64_t transaction, uint8_t block)
{
    uint8_t range[PKT_GPA_RANGES - PKT_HEADER + 16] = {0}, a[VSTOR_LEN] = {0};
    put_le32(range + PKT_GPA_COUNT - PKT_HEADER, 1);
    put_le32(range + 8, 512);
    put_le64(range + 16, x.data >> HV_PAGE_SHIFT);
    put_le32(a + VSTOR_OPERATION, VSTOR_EXECUTE_SRB);
    a[SRB_CDB_LEN] = 10;
    a[SRB_DATA_IN] = SRB_READ;
    put_le32(a + SRB_DATA_LEN, 512);
    a[SRB_CDB] = SCSI_READ_10;
    a[SRB_CDB + 5] = block;
    a[SRB_CDB + 8] = 1;
    assert_true(guest_send_raw(c, VMBUS_PKT_GPA_DIRECT, PKT_FLAG_COMPLETION, transaction, range, sizeof(range), a, sizeof(a)));
    guest_turn(&x.g);
}

static void expect_read(struct guest_channel *c, uint64_t transaction, uint8_t block)
{
    uint8_t a[VSTOR_LEN], got[512];
    uint64_t t;
    disk_queue_drain(x.queue);
    assert_int_equal(guest_recv(c, NULL, &t, a, sizeof(a)), VSTOR_LEN);
    assert_int_equal(t, transaction);
    assert_int_equal(a[SRB_STATUS], SRB_OK);
    assert_int_equal(mem_read(x.g.mem, x.data, got, sizeof(got)), 0);
    assert_true(got[0] == block && got[511] == block);
}

static void answers_come_by_the_channel_of_the_command(void **state)
{
    struct guest_channel *sub[SUBS];
    guest_connect(&x.g);
    assert_int_equal(x.g.offers, 1);
    assert_int_equal(set_up(), SUBS);
    assert_int_equal(ask_for_sub_channels(SUBS + 1), VSTOR_STATUS_INVALID);
    assert_int_equal(ask_for_sub_channels(SUBS), 0);
    assert_int_equal(open_sub_channels(sub), SUBS);
    for (unsigned i = 0; i < SUBS; i++) {
        send_read(sub[i], 100 + i, (uint8_t)(10 + i));
        expect_read(sub[i], 100 + i, (uint8_t)(10 + i));
        assert_true(x.g.signals[sub[i]->relid] > 0);
    }
    send_read(x.primary, 7, 3);
    expect_read(x.primary, 7, 3);
    uint8_t a[VSTOR_LEN] = {0};
    put_le16(a + VSTOR_PAYLOAD, 1);
    assert_int_equal(operation(sub[0], VSTOR_CREATE_SUB_CHANNELS, a), VSTOR_STATUS_INVALID);
    assert_int_equal(ask_for_sub_channels(SUBS), 0);                                  /* there already */
    assert_null(guest_next(&x.g));
    assert_int_equal(x.g.faults, 0);
}

static void fewer_may_be_asked_for(void **state)
{
    struct guest_channel *sub[SUBS];
    guest_connect(&x.g);
    set_up();
    assert_int_equal(ask_for_sub_channels(0), 0);
    assert_null(guest_next(&x.g));
    assert_int_equal(ask_for_sub_channels(1), 0);
    assert_int_equal(open_sub_channels(sub), 1);
}

/* The saved guest's sub-channels stay open in a machine that has never offered any. */
static void sub_channels_are_saved_and_loaded(void **state)
{
    struct guest_channel *sub[SUBS];
    struct save_writer w;
    struct load_reader r;
    struct hv_error e = {0};
    guest_connect(&x.g);
    set_up();
    assert_int_equal(ask_for_sub_channels(SUBS), 0);
    assert_int_equal(open_sub_channels(sub), SUBS);
    for (unsigned into = 0; into < 2; into++) {                /* itself; one that was reset before */
        vmbus_pause(x.g.bus);
        machine_clock_pause(x.g.f.m);
        save_init(&w);
        machine_save(x.g.f.m, &w);
        if (into)
            machine_reset(x.g.f.m);
        assert_int_equal(load_init(&r, w.out.buf, w.out.len, &e), 0);
        assert_int_equal(machine_load(x.g.f.m, &r, &e), 0);
        save_fini(&w);
        machine_clock_resume(x.g.f.m);
        vmbus_resume(x.g.bus);
        guest_turn(&x.g);
        assert_null(guest_next(&x.g));                         /* nothing is rescinded or offered again */
        for (unsigned i = 0; i < SUBS; i++) {
            send_read(sub[i], 200 + i, (uint8_t)(20 + i));
            expect_read(sub[i], 200 + i, (uint8_t)(20 + i));
        }
    }
    assert_int_equal(x.g.faults, 0);
}

/* The driver goes: sub-channels are rescinded. The next one starts from the beginning. */
static void a_closed_primary_ends_its_sub_channels(void **state)
{
    struct guest_channel *sub[SUBS];
    guest_connect(&x.g);
    set_up();
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(ask_for_sub_channels(SUBS), 0);
        assert_int_equal(open_sub_channels(sub), SUBS);
        for (unsigned i = 0; i < SUBS; i++)
            guest_close(sub[i]);
        guest_post_words(&x.g, VMBUS_MSG_CLOSE, VMBUS_SIZE_CLOSE, x.primary->relid, 0, 0);
        for (unsigned i = SUBS; i > 0; i--) {
            assert_int_equal(get_le32(guest_expect(&x.g, VMBUS_MSG_RESCIND) + MSG_RELID), sub[i - 1]->relid);
            guest_post_words(&x.g, VMBUS_MSG_RELID_RELEASED, VMBUS_SIZE_RELID_RELEASED, sub[i - 1]->relid, 0, 0);
        }
        guest_post_words(&x.g, VMBUS_MSG_GPADL_TEARDOWN, VMBUS_SIZE_GPADL_TEARDOWN, x.primary->relid, x.primary->gpadl, 0);
        guest_expect(&x.g, VMBUS_MSG_GPADL_TORNDOWN);
        x.g.ins = x.g.taken = x.g.channels = 0;
        assert_int_equal(set_up(), SUBS);
    }
    assert_int_equal(x.g.faults, 0);
}

/* A new kernel (kexec) finds one channel, not those that the last one asked for. */
static void a_new_contact_finds_the_primary_only(void **state)
{
    struct guest_channel *sub[SUBS];
    guest_connect(&x.g);
    set_up();
    assert_int_equal(ask_for_sub_channels(SUBS), 0);
    assert_int_equal(open_sub_channels(sub), SUBS);
    x.g.ins = x.g.taken = x.g.channels = 0;
    guest_connect(&x.g);
    assert_int_equal(x.g.offers, 1);
    set_up();
    assert_int_equal(ask_for_sub_channels(SUBS), 0);
    assert_int_equal(open_sub_channels(sub), SUBS);
}

/* A command that hangs holds its rings: the GPADL stays, and so does the channel's past. */
static void a_channel_is_opened_again_when_its_commands_have_ended(void **state)
{
    guest_connect(&x.g);
    set_up();
    scsi_unit_limit(x.unit, 1);
    send_read(x.primary, 1, 1);                                /* what the limit lets through, */
    send_read(x.primary, 2, 2);                                /* and what waits */
    assert_int_equal(scsi_unit_busy(x.unit) > 0, 1);
    guest_post_words(&x.g, VMBUS_MSG_CLOSE, VMBUS_SIZE_CLOSE, x.primary->relid, 0, 0);
    guest_post_words(&x.g, VMBUS_MSG_GPADL_TEARDOWN, VMBUS_SIZE_GPADL_TEARDOWN, x.primary->relid, x.primary->gpadl, 0);
    assert_null(guest_next(&x.g));                             /* not torn down yet */
    gpa_t ring = guest_pages(&x.g, 2 * RING);
    uint32_t gpadl = guest_gpadl(&x.g, x.primary->relid, ring, 2 * RING);
    assert_int_not_equal(gpadl, 0);
    assert_int_not_equal(guest_open_raw(&x.g, x.primary->relid, gpadl, 0, RING), 0);
    scsi_unit_release(x.unit);
    disk_queue_drain(x.queue);
    guest_turn(&x.g);
    assert_int_equal(get_le32(guest_expect(&x.g, VMBUS_MSG_GPADL_TORNDOWN) + GPADL_GONE_HANDLE), x.primary->gpadl);
    assert_int_equal(guest_open_raw(&x.g, x.primary->relid, gpadl, 0, RING), 0);
    assert_int_equal(x.g.faults, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_come_by_the_channel_of_the_command, begin, end),
        cmocka_unit_test_setup_teardown(fewer_may_be_asked_for, begin, end),
        cmocka_unit_test_setup_teardown(sub_channels_are_saved_and_loaded, begin, end),
        cmocka_unit_test_setup_teardown(a_closed_primary_ends_its_sub_channels, begin, end),
        cmocka_unit_test_setup_teardown(a_new_contact_finds_the_primary_only, begin, end),
        cmocka_unit_test_setup_teardown(a_channel_is_opened_again_when_its_commands_have_ended, begin, end),
    };
    return cmocka_run_group_tests_name("vsp/storage", tests, NULL, NULL);
}
