#include "engine/text/byte_alphabet.h"

// The bytes without a printable letter are 0..32, 127..160 and 173.
enum {
    FIRST_RUN = 0x100,           // 0..32
    SECOND_RUN = FIRST_RUN + 33, // 127..160
    THIRD_RUN = SECOND_RUN + 34, // 173
    END_OF_RUNS = THIRD_RUN + 1
};

int tsr_byte_alphabet_write(char letter[2], uint8_t byte)
{
    uint32_t code_point = byte;

    if (byte <= 32) {
        code_point = FIRST_RUN + (uint32_t)byte;
    } else if (byte >= 127 && byte <= 160) {
        code_point = SECOND_RUN + (uint32_t)byte - 127;
    } else if (byte == 173) {
        code_point = THIRD_RUN;
    }
    if (code_point < 0x80) {
        letter[0] = (char)code_point;
        return 1;
    }
    letter[0] = (char)(0xc0 | code_point >> 6);
    letter[1] = (char)(0x80 | (code_point & 0x3f));
    return 2;
}

int tsr_byte_alphabet_read(uint32_t code_point)
{
    if (code_point >= END_OF_RUNS) {
        return -1;
    }
    if (code_point >= THIRD_RUN) {
        return 173;
    }
    if (code_point >= SECOND_RUN) {
        return (int)code_point - SECOND_RUN + 127;
    }
    if (code_point >= FIRST_RUN) {
        return (int)code_point - FIRST_RUN;
    }
    if (code_point <= 32 || (code_point >= 127 && code_point <= 160) || code_point == 173) {
        return -1;
    }
    return (int)code_point;
}
