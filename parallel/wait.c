#include "parallel/wait.h"

#include <sched.h>

#include "base/clock.h"

enum {
    TURNS_A_LOOK = 32, // spinning turns from one look at the clock to the next
    FIRST_NAP_US = 20
};

tsr_wait_policy tsr_wait_policy_step(bool crowded, int64_t limit_ns)
{
    // Measured with 4 ranks on 2 cores: 8 us a meeting without spinning, 100 us with 20 us of it.
    return (tsr_wait_policy){.spin_ns = crowded ? 0 : 200000,
                             .yield_ns = 10000000,
                             .nap_most_us = 50,
                             .limit_ns = limit_ns};
}

tsr_wait_policy tsr_wait_policy_idle(bool crowded)
{
    // Between two steps the leader only picks tokens: what takes longer is a pause worth sleeping
    // through.
    return (tsr_wait_policy){.spin_ns = crowded ? 0 : 200000,
                             .yield_ns = crowded ? 500000 : 0,
                             .nap_most_us = 1000,
                             .limit_ns = 0};
}

static void spin_once(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void tsr_wait_begin(tsr_wait *wait, tsr_wait_policy policy)
{
    *wait = (tsr_wait){.policy = policy, .nap_us = FIRST_NAP_US, .spinning = true};
}

bool tsr_wait_turn(tsr_wait *wait)
{
    const tsr_wait_policy *policy = &wait->policy;
    int64_t now;
    int64_t waited;

    if (wait->spinning && wait->n_turns++ % TURNS_A_LOOK != TURNS_A_LOOK - 1) {
        spin_once();
        return true;
    }
    now = tsr_clock_ns();
    if (wait->began_ns == 0) {
        wait->began_ns = now;
    }
    waited = now - wait->began_ns;
    if (waited < policy->spin_ns) {
        spin_once();
        return true;
    }
    wait->spinning = false;
    if (policy->limit_ns > 0 && waited > policy->limit_ns) {
        return false;
    }
    if (waited < policy->yield_ns) {
        (void)sched_yield();
        return true;
    }
    tsr_clock_sleep_us(wait->nap_us);
    wait->nap_us = wait->nap_us * 2 < policy->nap_most_us ? wait->nap_us * 2 : policy->nap_most_us;
    return true;
}
