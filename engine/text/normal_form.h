/*
 * engine/text/normal_form.h - Unicode's four normal forms (unicode.org/reports/tr15), by utf8proc.
 */
#ifndef TSR_ENGINE_TEXT_NORMAL_FORM_H
#define TSR_ENGINE_TEXT_NORMAL_FORM_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_normal_form {
    TSR_NORMAL_FORM_C,
    TSR_NORMAL_FORM_D,
    TSR_NORMAL_FORM_KC,
    TSR_NORMAL_FORM_KD,
    TSR_NORMAL_FORM_COUNT
} tsr_normal_form;

/*
 * Append the text in this form. The time grows with the text, whatever marks it has in whatever
 * order.
 *
 *   text         valid UTF-8
 *   code_points  [*capacity] room that is kept from call to call; start with NULL and 0, the caller
 *                frees it with tsr_free()
 *
 * Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_normal_form_append(tsr_text *out, tsr_normal_form form,
                                                 tsr_text_view text, int32_t **code_points,
                                                 size_t *capacity);

#ifdef __cplusplus
}
#endif

#endif
