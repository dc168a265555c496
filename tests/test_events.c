/* The queue of events: what comes out is what went in, whatever became of the originals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "engine/tessera.h"
#include "tests/support/torture.h"

static void events_come_out_in_order_with_all_they_point_at(void **state)
{
    char text[] = "whole, and more";
    char message[] = "why";
    float logits[] = {1, -2, 3};
    tsr_top_token top[] = {{5, -0.5}, {6, -1.5}};
    tsr_event in = {
        .kind = TSR_EVENT_TOKEN, .id = 7, .text = text, .text_bytes = 5, .top = top, .n_top = 2};
    tsr_events *events = NULL;
    tsr_event out;
    bool found;

    (void)state;
    assert_int_equal(tsr_events_create(&events), TSR_OK);
    tsr_events_add(events, &in);
    tsr_events_add(events, &(tsr_event){.kind = TSR_EVENT_LOGITS, .logits = logits, .n_values = 3});
    tsr_events_add(events, &(tsr_event){.kind = TSR_EVENT_END, .text = "", .message = message});
    memset(text, 'x', sizeof(text) - 1);
    memset(message, 'x', sizeof(message) - 1);
    memset(logits, 0, sizeof(logits));
    memset(top, 0, sizeof(top));

    assert_int_equal(tsr_events_next(events, &out, &found), TSR_OK);
    assert_true(found);
    assert_int_equal(out.id, 7);
    assert_string_equal(out.text, "whole");
    assert_int_equal(out.text_bytes, 5);
    assert_int_equal(out.top[1].id, 6);
    assert_true(out.top[1].logprob == -1.5 && out.n_top == 2);
    assert_int_equal(tsr_events_next(events, &out, &found), TSR_OK);
    assert_true(out.kind == TSR_EVENT_LOGITS && out.logits[1] == -2 && out.text == NULL);
    assert_int_equal(tsr_events_next(events, &out, &found), TSR_OK);
    assert_string_equal(out.message, "why");
    assert_int_equal(tsr_events_next(events, &out, &found), TSR_OK);
    assert_false(found);

    tsr_events_add(events, &in); // and it goes on when it was empty
    assert_int_equal(tsr_events_next(events, &out, &found), TSR_OK);
    assert_true(found);
    tsr_events_add(events, &in); // what nobody takes is given back with the queue
    tsr_events_destroy(events);
    tsr_events_destroy(NULL);
}

static void behind_an_event_that_found_no_memory_none_is_kept(void **state)
{
    const tsr_event in = {.kind = TSR_EVENT_TOKEN, .text = "a", .text_bytes = 1};
    tsr_events *events = NULL;
    tsr_event out;
    bool found;

    (void)state;
    assert_int_equal(tsr_events_create(&events), TSR_OK);
    tsr_events_add(events, &in);
    tsr_alloc_fail_nth(1);
    tsr_events_add(events, &in);
    tsr_events_add(events, &in);
    assert_int_equal(tsr_events_next(events, &out, &found), TSR_OK);
    assert_true(found);
    assert_int_equal(tsr_events_next(events, &out, &found), TSR_ERR_NOMEM);
    tsr_events_destroy(events);
}

static tsr_status make(void *ctx)
{
    tsr_events *events = NULL;
    const tsr_status st = tsr_events_create(&events);

    (void)ctx;
    tsr_events_destroy(events);
    return st;
}

static void a_queue_that_cannot_be_made_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(torture(make, NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_out_in_order_with_all_they_point_at),
        cmocka_unit_test(behind_an_event_that_found_no_memory_none_is_kept),
        cmocka_unit_test(a_queue_that_cannot_be_made_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
