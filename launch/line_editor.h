/*
 * launch/line_editor.h - one line at a terminal, edited with libedit. Private to line.c.
 *
 * Threads: one; one editor at a time.
 */
#ifndef TSR_LAUNCH_LINE_EDITOR_H
#define TSR_LAUNCH_LINE_EDITOR_H

#include "launch/line.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_line_editor tsr_line_editor;

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_line_editor_create(tsr_line_editor **out);
void tsr_line_editor_destroy(tsr_line_editor *editor); /* NULL is fine */

/* Append one line as typed, without its newline, and remember it. `goes_on`: it is a further part
 * of a line. *end is any but TOO_LONG. Errors: CANCELLED, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_line_editor_read(tsr_line_editor *editor, bool goes_on,
                                               tsr_text *text, tsr_line_end *end);

#ifdef __cplusplus
}
#endif

#endif
