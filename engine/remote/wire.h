/*
 * engine/remote/wire.h - what an engine's clients and its leader say to each other, as bytes.
 * Private to the room.
 *
 * A stream of frames: the length of all of it and the kind, four bytes each, then fields, every one
 * on eight bytes; numbers as this machine keeps them, for both sides are on one host. A frame is a
 * multiple of eight bytes and lies at one, so that lists are used where they lie.
 *
 *   client to leader   HELLO (version, owner, the folder to remove when that one has gone), then
 *                      SUBMIT (name, generation), CANCEL (name), BLOCKS (to be told of them)
 *   leader to client   HELLO (version, the model's path, stats), then EVENT (name, event), STATS,
 *                      MEMORY (what each rank's memory held), MARK, BLOCKS (owners, places)
 *
 * Names are the client's own. MARK stands behind the events of a step: a client acts on what is
 * before a MARK only, so that it never has the last token of an answer without its end.
 *
 * One function passes a thing both ways, which is why the two sides cannot differ. Whoever reads
 * trusts nothing: lengths are held to what is there, numbers to their types, choices to their
 * range; whether a generation makes sense is the engine's to say.
 *
 * Threads: none of its own.
 */
#ifndef TSR_ENGINE_REMOTE_WIRE_H
#define TSR_ENGINE_REMOTE_WIRE_H

#include "base/text.h"
#include "engine/stops.h"
#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_WIRE_VERSION = 2, /* goes up with every change of what is said */
    TSR_WIRE_MOST_BYTES = 64 << 20,
    TSR_WIRE_HEAD_BYTES = 8
};

typedef enum tsr_wire_kind {
    TSR_WIRE_HELLO,
    TSR_WIRE_SUBMIT,
    TSR_WIRE_CANCEL,
    TSR_WIRE_EVENT,
    TSR_WIRE_STATS,
    TSR_WIRE_MEMORY,
    TSR_WIRE_MARK,
    TSR_WIRE_BLOCKS,
    TSR_WIRE_KIND_COUNT
} tsr_wire_kind;

/* A frame on its way out, or one that came. */
typedef struct tsr_wire {
    tsr_wire_kind kind;
    tsr_text *out;  /* writing: it is appended here; NULL: reading */
    size_t began;   /* writing: where it begins there */
    const char *at; /* reading: what has not been read yet; good as long as the bytes are */
    const char *end;
    bool
        is_bad; /* memory was short, or something does not make sense; nothing happens after that */
} tsr_wire;

/* Begins a frame behind what is there. */
tsr_wire tsr_wire_write(tsr_text *out, tsr_wire_kind kind);

/* Ends it. Errors: NOMEM, ARG (larger than TSR_WIRE_MOST_BYTES); there is nothing of it then. */
TSR_MUST_CHECK tsr_status tsr_wire_finish(tsr_wire *wire);

/* The first frame of n_bytes bytes that came, which lie at a multiple of eight; *used: how many it
 * has, 0 while it is not whole. Errors: FORMAT. */
TSR_MUST_CHECK tsr_status tsr_wire_read(tsr_wire *wire, size_t *used, const char *bytes,
                                        size_t n_bytes);

/* A frame that was read to its end, and made sense? Errors: FORMAT. */
TSR_MUST_CHECK tsr_status tsr_wire_check(const tsr_wire *wire);

/* ---- fields: written, or read into what is pointed to ------------------------------------------
 */

void tsr_wire_int64(tsr_wire *wire, int64_t *value);
void tsr_wire_int(tsr_wire *wire, int *value);
void tsr_wire_bool(tsr_wire *wire, bool *value);
void tsr_wire_real(tsr_wire *wire, double *value);

/* A text and the 0 behind it; read, it lies in the frame. NULL stays NULL. n_bytes may be NULL. */
void tsr_wire_text(tsr_wire *wire, const char **text, size_t *n_bytes);

/* The texts that a generation which was read stops at. */
typedef struct tsr_wire_stops {
    const char *texts[TSR_STOPS_MOST];
    size_t n_bytes[TSR_STOPS_MOST];
} tsr_wire_stops;

/* All but on_event and ctx. Read, its lists lie in the frame and in *stops. */
void tsr_wire_generation(tsr_wire *wire, tsr_generation *generation, tsr_wire_stops *stops);

/* All but the id. Read, its lists and texts lie in the frame. */
void tsr_wire_event(tsr_wire *wire, tsr_event *event);

void tsr_wire_stats(tsr_wire *wire, tsr_engine_stats *stats);

/* ranks [n_ranks] */
void tsr_wire_memory(tsr_wire *wire, tsr_memory_stats *ranks, int n_ranks);

/* Whose blocks are, and where: see tsr_engine_blocks(). Read, the lists lie in the frame. */
void tsr_wire_blocks(tsr_wire *wire, const int64_t **owners, int64_t *n_owners,
                     const uint8_t **places, int64_t *n_places);

#ifdef __cplusplus
}
#endif

#endif
