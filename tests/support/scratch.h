/*
 * tests/support/scratch.h - a folder of the test's own, gone when it ends, and what is asked of
 * messages.
 */
#ifndef TSR_TESTS_SUPPORT_SCRATCH_H
#define TSR_TESTS_SUPPORT_SCRATCH_H

/* Setup and teardown of a group (cmocka). Removing fails when a test left a file behind. */
int scratch_make(void **state);
int scratch_remove(void **state);

const char *scratch_folder(void);

/* A path in the folder. Good until the second next call. */
const char *scratch_path(const char *name);

/* The last fault's message is one sentence: it names `name` and says `part`, is of a sensible
 * length and on one line. */
void assert_sentence(const char *name, const char *part);

#endif
