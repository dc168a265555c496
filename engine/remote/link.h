/*
 * engine/remote/link.h - one connection over a Unix socket, which never waits: bytes that came and
 * were not used yet, bytes that could not be sent yet. Private to the room.
 *
 * Threads: none of its own.
 */
#ifndef TSR_ENGINE_REMOTE_LINK_H
#define TSR_ENGINE_REMOTE_LINK_H

#include "engine/remote/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_link {
    int socket;
    tsr_text in;
    size_t n_used; /* of these, the first so many were */
    tsr_text out;
    size_t n_sent;
} tsr_link; /* start with TSR_LINK_NONE */

#define TSR_LINK_NONE ((tsr_link){.socket = -1})

/* Listens at a path: only its owner may connect. One that nobody listens at any more is taken over.
 * Errors: ARG (too long), IO, COMM (somebody listens there). */
TSR_MUST_CHECK tsr_status tsr_link_listen(int *out, const char *path);

/* link: the next that has come; none: its socket is -1. Errors: IO. */
TSR_MUST_CHECK tsr_status tsr_link_accept(tsr_link *link, int listening);

/* Errors: ARG, IO; COMM: nobody listens there now. */
TSR_MUST_CHECK tsr_status tsr_link_connect(tsr_link *link, const char *path);

void tsr_link_close(tsr_link *link); /* it is TSR_LINK_NONE then */

/* Whatever has come; whatever can be sent. *any, of what has come: was there something? Errors:
 * COMM (the other side is gone), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_link_receive(tsr_link *link, bool *any);
TSR_MUST_CHECK tsr_status tsr_link_send(tsr_link *link);

/* The next whole frame that came, used then; it lies there until the next tsr_link_receive().
 * False: there is none. Errors: FORMAT. */
TSR_MUST_CHECK tsr_status tsr_link_next(tsr_link *link, tsr_wire *frame, bool *is_there);

static inline size_t tsr_link_n_unsent(const tsr_link *link)
{
    return link->out.n_bytes - link->n_sent;
}

/* The process at the other end; 0: not known. */
int tsr_link_peer(const tsr_link *link);

#ifdef __cplusplus
}
#endif

#endif
