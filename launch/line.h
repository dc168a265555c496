/*
 * launch/line.h - the lines that somebody types.
 *
 * At a terminal (stdin and stdout both) a line is edited, earlier ones are remembered, and a sign
 * stands before it. Otherwise lines are just read. A line that ends in a backslash goes on with the
 * next one; the backslash becomes a newline.
 *
 * Threads: one. At a terminal there is one reader at a time.
 */
#ifndef TSR_LAUNCH_LINE_H
#define TSR_LAUNCH_LINE_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_LINE_MOST_BYTES = 16 << 20 /* of one line, all its parts together */
};

typedef struct tsr_line tsr_line;

typedef enum tsr_line_end {
    TSR_LINE_TYPED,     /* a line, without its newline */
    TSR_LINE_TOO_LONG,  /* one that was passed over */
    TSR_LINE_CLEARED,   /* Ctrl-C at a terminal, with something typed, which is gone */
    TSR_LINE_INTERRUPT, /* Ctrl-C at a terminal, with nothing typed */
    TSR_LINE_CLOSED     /* no more will come */
} tsr_line_end;

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_line_open(tsr_line **out);
void tsr_line_close(tsr_line *line); /* NULL is fine */

bool tsr_line_is_edited(const tsr_line *line);

/*
 * Wait for a line. `text` is emptied first and holds it when *end is TYPED: any bytes.
 * Errors: CANCELLED (asked to end by a signal), IO, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_line_read(tsr_line *line, tsr_text *text, tsr_line_end *end);

#ifdef __cplusplus
}
#endif

#endif
