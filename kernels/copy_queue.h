/*
 * kernels/copy_queue.h - copies between device and host memory on a queue of their own, beside the
 * device's arithmetic.
 *
 * A copy comes after all that the device's own queue had been given when it was put; the device
 * waits for no copy. So: no op that needs a copy, or touches what it reads or writes, is queued
 * before the ticket is done. On the CPU, whose ops have ended when they return, a thread of its own
 * copies; on a GPU it is a stream, with an event a ticket. Host memory is from
 * tsr_device_alloc_host().
 *
 * Copies are carried out in order. Threads: the thread that owns the device.
 */
#ifndef TSR_KERNELS_COPY_QUEUE_H
#define TSR_KERNELS_COPY_QUEUE_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_copy_queue tsr_copy_queue;

typedef enum tsr_copy_way {
    TSR_COPY_TO_DEVICE,
    TSR_COPY_TO_HOST
} tsr_copy_way;

/* depth: copies under way at once. dev is borrowed. Errors: ARG, NOMEM, DEVICE. */
TSR_MUST_CHECK tsr_status tsr_copy_queue_create(tsr_copy_queue **out, tsr_device *dev, int depth);
void tsr_copy_queue_destroy(tsr_copy_queue *queue); /* waits for what is under way; NULL is fine */

/* Tickets count from 0. Errors: FULL (`depth` copies are under way; no message), DEVICE. */
TSR_MUST_CHECK tsr_status tsr_copy_queue_put(tsr_copy_queue *queue, tsr_copy_way way, void *to,
                                             const void *from, size_t n_bytes, int64_t *ticket);

bool tsr_copy_queue_is_done(tsr_copy_queue *queue, int64_t ticket);

/* Returns when the copy is done; a failure leaves undefined bytes in its target. It can be asked
 * until `depth` more copies have been put. Errors: DEVICE, IO. */
TSR_MUST_CHECK tsr_status tsr_copy_queue_wait(tsr_copy_queue *queue, int64_t ticket);

/* Nanoseconds that copies have taken so far. */
int64_t tsr_copy_queue_busy_ns(const tsr_copy_queue *queue);

#ifdef __cplusplus
}
#endif

#endif
