/*
 * engine/text/code_point.h - what a character is, as tokenizers ask it.
 */
#ifndef TSR_ENGINE_TEXT_CODE_POINT_H
#define TSR_ENGINE_TEXT_CODE_POINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

bool tsr_code_point_is_space(uint32_t code_point);       /* Unicode's White_Space */
bool tsr_code_point_is_number(uint32_t code_point);      /* Nd, Nl, No */
bool tsr_code_point_is_punctuation(uint32_t code_point); /* P*, and what ASCII has of S* */
bool tsr_code_point_is_mark(uint32_t code_point);        /* Mn, Mc, Me */
bool tsr_code_point_is_word(uint32_t code_point); /* letter, mark, decimal digit, connector */

/* Write a code point as UTF-8. Returns its bytes, 1 to 4. */
int tsr_code_point_write(char out[4], uint32_t code_point);

/* Bytes of the white space at the end and at the start of a text (any bytes). */
size_t tsr_code_point_spaces_behind(const char *text, size_t n_bytes);
size_t tsr_code_point_spaces_before(const char *text, size_t n_bytes);

/* Does a text (any bytes) end, or begin, with part of a word? */
bool tsr_code_point_word_ends(const char *text, size_t n_bytes);
bool tsr_code_point_word_begins(const char *text, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
