/*
 * engine/jinja/jtext.h - strings of templates: building them, and cutting them by characters.
 *
 * Strings are UTF-8; a byte that is no part of a character counts as one character. Which bytes
 * were said (jvalue.h) goes along with them.
 */
#ifndef TSR_ENGINE_JINJA_JTEXT_H
#define TSR_ENGINE_JINJA_JTEXT_H

#include "engine/jinja/jvalue.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A string that is being made; start with {0}. */
struct tsr_jbuilder {
    char *bytes;
    size_t n_bytes;
    size_t capacity;
    tsr_text_run *said;
    int n_said;
    int said_capacity;
};

/* The template's own words. */
TSR_MUST_CHECK tsr_status tsr_jtext_put(tsr_jrun *run, tsr_jbuilder *b, const char *bytes,
                                        size_t n_bytes);
TSR_MUST_CHECK tsr_status tsr_jtext_put_words(tsr_jrun *run, tsr_jbuilder *b, const char *words);
/* Somebody's, if `said`. */
TSR_MUST_CHECK tsr_status tsr_jtext_put_said(tsr_jrun *run, tsr_jbuilder *b, const char *bytes,
                                             size_t n_bytes, bool said);
TSR_MUST_CHECK tsr_status tsr_jtext_put_text(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text);
/* Bytes [first, end) of text. */
TSR_MUST_CHECK tsr_status tsr_jtext_put_part(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text,
                                             size_t first, size_t end);
/* The builder is {0} again. */
TSR_MUST_CHECK tsr_status tsr_jtext_finish(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext **out);
TSR_MUST_CHECK tsr_status tsr_jtext_finish_value(tsr_jrun *run, tsr_jbuilder *b, tsr_jvalue *out);

/* The template's own words; they must outlive the run. */
TSR_MUST_CHECK tsr_status tsr_jtext_words(tsr_jrun *run, const tsr_jtext **out, const char *words);
/* A copy of bytes, all of them said or none. */
TSR_MUST_CHECK tsr_status tsr_jtext_copy(tsr_jrun *run, const tsr_jtext **out, const char *bytes,
                                         size_t n_bytes, bool said);
/* Bytes [first, end) of text; the bytes are shared. */
TSR_MUST_CHECK tsr_status tsr_jtext_part(tsr_jrun *run, const tsr_jtext **out,
                                         const tsr_jtext *text, size_t first, size_t end);
TSR_MUST_CHECK tsr_status tsr_jtext_part_value(tsr_jrun *run, tsr_jvalue *out,
                                               const tsr_jtext *text, size_t first, size_t end);
bool tsr_jtext_said_at(const tsr_jtext *text, size_t at);

bool tsr_jtext_equal(const tsr_jtext *a, const tsr_jtext *b);
int tsr_jtext_compare(const tsr_jtext *a, const tsr_jtext *b); /* by code points */
/* Byte offset of the first `what` at or behind `from`; SIZE_MAX: none. The last one, wholly before
 * `end`, likewise. */
size_t tsr_jtext_find(const tsr_jtext *text, const tsr_jtext *what, size_t from);
size_t tsr_jtext_find_last(const tsr_jtext *text, const tsr_jtext *what, size_t end);

/* ---- characters --------------------------------------------------------------------------------
 */

/* The character at byte `at`: its bytes; *c its code point, -1 for a byte that is no character. */
size_t tsr_jtext_character(const tsr_jtext *text, size_t at, int32_t *c);
/* The same of the one that ends before byte `end` > 0. */
size_t tsr_jtext_character_before(const tsr_jtext *text, size_t end, int32_t *c);
int64_t tsr_jtext_n_characters(const tsr_jtext *text);
size_t tsr_jtext_offset(const tsr_jtext *text, int64_t character); /* its byte, or the end */

TSR_MUST_CHECK tsr_status tsr_jtext_put_character(tsr_jrun *run, tsr_jbuilder *b, int32_t c,
                                                  bool said);

bool tsr_jtext_is_space(int32_t c); /* as Python's str.isspace() */

typedef enum tsr_jtext_case {
    TSR_JTEXT_LOWER,
    TSR_JTEXT_UPPER,
    TSR_JTEXT_CAPITALIZE,
    TSR_JTEXT_TITLE, /* str.title(): behind whatever has no case */
    TSR_JTEXT_SWAP,
    TSR_JTEXT_CASE_COUNT
} tsr_jtext_case;
TSR_MUST_CHECK tsr_status tsr_jtext_recase(tsr_jrun *run, const tsr_jtext **out,
                                           const tsr_jtext *text, tsr_jtext_case how);

typedef enum tsr_jtext_class {
    TSR_JTEXT_ALPHA,
    TSR_JTEXT_DIGIT,
    TSR_JTEXT_ALNUM,
    TSR_JTEXT_SPACE,
    TSR_JTEXT_LOWERCASE, /* there is a cased character and all cased ones are so, as is the next */
    TSR_JTEXT_UPPERCASE,
    TSR_JTEXT_PRINTABLE,
    TSR_JTEXT_CLASS_COUNT
} tsr_jtext_class;
bool tsr_jtext_is(const tsr_jtext *text, tsr_jtext_class what);
bool tsr_jtext_is_printable(int32_t c);

/* Without the characters of `chars` (NULL: space) at its left or right end. */
TSR_MUST_CHECK tsr_status tsr_jtext_strip(tsr_jrun *run, const tsr_jtext **out,
                                          const tsr_jtext *text, const tsr_jtext *chars, bool left,
                                          bool right);

/* Behind the line break at byte `at`: \r\n counts as one; `at` when there is none. */
size_t tsr_jtext_line_break(const tsr_jtext *text, size_t at);

#ifdef __cplusplus
}
#endif

#endif
