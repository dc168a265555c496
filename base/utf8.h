/*
 * base/utf8.h - which bytes are whole characters of UTF-8 (RFC 3629: no surrogates, nothing
 * overlong, nothing above U+10FFFF).
 */
#ifndef TSR_BASE_UTF8_H
#define TSR_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_UTF8_INVALID = 0,    /* no character begins here, whatever may follow */
    TSR_UTF8_UNFINISHED = -1 /* the bytes end before the character does */
};

/* Bytes of the character at the start of bytes: 1..4, or one of the above. n_bytes > 0. */
int tsr_utf8_measure(const char *bytes, size_t n_bytes);

/* How many of the first bytes are whole characters: up to the first that is not one. */
size_t tsr_utf8_valid(const char *bytes, size_t n_bytes);

/* n_bytes without the unfinished character at the end, if there is one. Bytes that can never
 * become a character are not held back. */
size_t tsr_utf8_whole(const char *bytes, size_t n_bytes);

/* The code point of the character at bytes, of which tsr_utf8_measure() has said that it is one. */
uint32_t tsr_utf8_decode(const char *bytes);

#ifdef __cplusplus
}
#endif

#endif
