/*
 * engine/text/byte_alphabet.h - the 256 letters in which byte-level vocabularies write bytes.
 *
 * A printable byte stands for itself as a code point; the other 68 are numbered from U+0100 on, in
 * order (bytes_to_unicode() in github.com/openai/gpt-2, src/encoder.py). A space is U+0120.
 */
#ifndef TSR_ENGINE_TEXT_BYTE_ALPHABET_H
#define TSR_ENGINE_TEXT_BYTE_ALPHABET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Write a byte's letter as UTF-8. Returns its bytes, 1 or 2. */
int tsr_byte_alphabet_write(char letter[2], uint8_t byte);

/* The byte that a code point stands for; -1 if it is not in the alphabet. */
int tsr_byte_alphabet_read(uint32_t code_point);

#ifdef __cplusplus
}
#endif

#endif
