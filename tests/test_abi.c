/*
 * The layouts that programs were compiled with. One that differs here breaks them: raise
 * TSR_TESSERA_ABI (and the number in engine/tessera.map) when a version with the old one is out,
 * and write the new one down.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/tessera.h"

typedef struct layout {
    const char *what;
    size_t is;
    size_t was;
} layout;

// clang-format off
#define SIZE(type, was) {#type, sizeof(type), was}
#define PLACE(type, field, was) {#type "." #field, offsetof(type, field), was}
// clang-format on

static void structs_have_the_layout_of_their_abi(void **state)
{
    static const layout layouts[] = {
        SIZE(tsr_model_facts, 168),
        SIZE(tsr_model_encoding, 32),
        SIZE(tsr_model_kv, 16),
        SIZE(tsr_model_share, 80),
        SIZE(tsr_chat_message, 16),
        SIZE(tsr_engine_options, 152),
        PLACE(tsr_engine_options, drain_s, 144),
        SIZE(tsr_top_token, 16),
        SIZE(tsr_event, 200),
        PLACE(tsr_event, text, 32),
        PLACE(tsr_event, reason, 112),
        SIZE(tsr_generation, 232),
        PLACE(tsr_generation, n, 68),
        PLACE(tsr_generation, on_event, 216),
        SIZE(tsr_engine_stats, 176),
        SIZE(tsr_launch_options, 184),
        SIZE(tsr_engine_device, 72),
        SIZE(tsr_memory_stats, 216),
        SIZE(tsr_plan_request, 184),
        SIZE(tsr_plan_share, 56),
        SIZE(tsr_plan, 136),
    };

    (void)state;
    assert_int_equal(TSR_TESSERA_ABI, 0);
    assert_int_equal(tsr_tessera_abi(), TSR_TESSERA_ABI);
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        if (layouts[i].is != layouts[i].was) {
            print_error("%s is at or has %zu bytes; with this ABI it was %zu\n", layouts[i].what,
                        layouts[i].is, layouts[i].was);
        }
    }
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        assert_int_equal(layouts[i].is, layouts[i].was);
    }
}

static void numbers_of_statuses_and_events_stay(void **state)
{
    (void)state;
    assert_int_equal(TSR_ERR_ARG, 1);
    assert_int_equal(TSR_ERR_CANCELLED, 9);
    assert_int_equal(TSR_EVENT_TOKEN, 0);
    assert_int_equal(TSR_EVENT_END, 4);
    assert_int_equal(TSR_STOPPING_NEVER, 2);
    assert_int_equal(TSR_MEMORY_DISK, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(structs_have_the_layout_of_their_abi),
        cmocka_unit_test(numbers_of_statuses_and_events_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
