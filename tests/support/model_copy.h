/*
 * tests/support/model_copy.h - a copy of one of the folders of tests/data/models, to be spoilt, and
 * opened as a rank does. There is one at a time, in the scratch folder.
 */
#ifndef TSR_TESTS_SUPPORT_MODEL_COPY_H
#define TSR_TESTS_SUPPORT_MODEL_COPY_H

#include "engine/weights.h"

/* In place of the one before; config.json has its lists on one line. */
void model_copy_make(const char *name);
void model_copy_remove(void);

const char *model_copy_path(const char *name); /* of a file in it; good until the next call */

/* A whole file. The caller frees it. A 0 stands behind it. */
char *model_copy_read(const char *path, size_t *n_bytes);
void model_copy_write(const char *name, const char *bytes, size_t n_bytes);

/* The first `was` in a file becomes `is`; in a header of fixed length both are as long. */
void model_copy_change(const char *name, const char *was, const char *is);

/* Opens the folder with all that a rank does alone; nothing stays open. weights may be NULL. */
tsr_status model_copy_load(tsr_weights *weights, int rank, int n_ranks, tsr_format as);

#endif
