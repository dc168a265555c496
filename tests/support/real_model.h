/*
 * tests/support/real_model.h - the model file that is not part of the tree.
 */
#ifndef TSR_TESTS_SUPPORT_REAL_MODEL_H
#define TSR_TESTS_SUPPORT_REAL_MODEL_H

/* The path in the variable TSR_TEST_MODEL. When it is empty or unset: says so and leaves the
 * program with 77, which CTest counts as skipped. Call it first in main(). */
const char *real_model_path(void);

#endif
