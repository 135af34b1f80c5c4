/*
 * One instruction, two decoders: does x86_decode() say what Zydis says?
 *
 * Compared: defined or not, length, operation (through a name map), condition, operand size,
 * address size, and of each operand its kind, register, size, value, segment, base, index,
 * scale, displacement. Where Zydis is known to differ from the SDM or from the machine, an
 * exception says so (zydis_except.c); exceptions are counted, never silent.
 */
#ifndef HV_TESTS_TOOLS_ZYDIS_COMPARE_H
#define HV_TESTS_TOOLS_ZYDIS_COMPARE_H

#include <Zydis/Zydis.h>

#include "hv/engine/soft/insn.h"

struct zcmp {
    enum x86_mode mode;
    ZydisDecoder decoder;
    /* Of the last zcmp_one(): */
    struct x86_insn in;
    int r;                          /* x86_decode's answer */
    ZyanStatus status;
    ZydisDecodedInstruction zin;
    ZydisDecodedOperand zop[ZYDIS_MAX_OPERAND_COUNT];
};

enum zcmp_result { ZCMP_SAME, ZCMP_BOTH_BAD, ZCMP_EXCEPTED, ZCMP_DIFFERENT };

/* Says whether a difference is known; what is the short word zcmp_one() would answer with. */
struct zexcept {
    const char *name, *reason;
    bool (*applies)(const struct zcmp *c, const uint8_t *p, const char *what);
    uint64_t count;
};
extern struct zexcept zexcepts[];
extern const size_t zexcept_count;

void zcmp_init(struct zcmp *c, enum x86_mode mode);
/* Decode p[len] with both. *what: which part differs, a constant string; NULL if none does. */
enum zcmp_result zcmp_one(struct zcmp *c, const uint8_t *p, size_t len, const char **what);
/* Print the last comparison, several lines. */
void zcmp_print(const struct zcmp *c, const uint8_t *p, size_t len, const char *what);

#endif
