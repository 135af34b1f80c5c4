/* One-byte opcodes: decoder rows for decode_tab.c. SDM volume 2, table A-2; groups table A-6. */

#define ALU_ROWS(h, a, b, c, d, e, f, name, lk)                                            \
    OPC(h##a, M(name, BY | (lk), Eb, Gb)) OPC(h##b, M(name, lk, Ev, Gv))                   \
    OPC(h##c, M(name, BY, Gb, Eb)) OPC(h##d, M(name, 0, Gv, Ev))                           \
    OPC(h##e, I(name, BY, AL, Ibb)) OPC(h##f, I(name, 0, rAX, Iz))
ALU_ROWS(0, 0, 1, 2, 3, 4, 5, ADD, LK)
ALU_ROWS(0, 8, 9, A, B, C, D, OR, LK)
ALU_ROWS(1, 0, 1, 2, 3, 4, 5, ADC, LK)
ALU_ROWS(1, 8, 9, A, B, C, D, SBB, LK)
ALU_ROWS(2, 0, 1, 2, 3, 4, 5, AND, LK)
ALU_ROWS(2, 8, 9, A, B, C, D, SUB, LK)
ALU_ROWS(3, 0, 1, 2, 3, 4, 5, XOR, LK)
ALU_ROWS(3, 8, 9, A, B, C, D, CMP, 0)
OPC(06, I(PUSH, N64, SES)) OPC(07, I(POP, N64, SES)) OPC(0E, I(PUSH, N64, SCS))
OPC(16, I(PUSH, N64, SSS)) OPC(17, I(POP, N64, SSS)) OPC(1E, I(PUSH, N64, SDS))
OPC(1F, I(POP, N64, SDS))
OPC(27, I(DAA, N64)) OPC(2F, I(DAS, N64)) OPC(37, I(AAA, N64)) OPC(3F, I(AAS, N64))

OPC_LO(4, I(INC, N64, Zv))
OPC_HI(4, I(DEC, N64, Zv))
OPC_LO(5, I(PUSH, D64, Zv))
OPC_HI(5, I(POP, D64, Zv))

OPC(60, I(PUSHA, N64)) OPC(61, I(POPA, N64)) OPC(62, MM(BOUND, N64, Gv, M2v))
OPC(63, M(ARPL, N64, Ew, Gw), M(MOVSXD, M64, Gv, Ez))
OPC(68, I(PUSH, D64, Iz)) OPC(69, M(IMUL, 0, Gv, Ev, Iz)) OPC(6A, I(PUSH, D64, Ibs))
OPC(6B, M(IMUL, 0, Gv, Ev, Ibs))
OPC(6C, I(INS, BY, Yb, DX)) OPC(6D, I(INS, RF_OSZ4, Yz, DX))
OPC(6E, I(OUTS, BY, DX, Xb)) OPC(6F, I(OUTS, RF_OSZ4, DX, Xz))
OPC_LO(7, I(JCC, COND | F64, Jb))
OPC_HI(7, I(JCC, COND | F64, Jb))

#define GRP1_ROWS(at, e, i)                                                                \
    M(ADD, RG(0) | LK | (at), e, i), M(OR, RG(1) | LK | (at), e, i),                       \
    M(ADC, RG(2) | LK | (at), e, i), M(SBB, RG(3) | LK | (at), e, i),                      \
    M(AND, RG(4) | LK | (at), e, i), M(SUB, RG(5) | LK | (at), e, i),                      \
    M(XOR, RG(6) | LK | (at), e, i), M(CMP, RG(7) | (at), e, i)
OPC(80, GRP1_ROWS(BY, Eb, Ibb)) OPC(81, GRP1_ROWS(0, Ev, Iz))
OPC(82, GRP1_ROWS(BY | N64, Eb, Ibb)) OPC(83, GRP1_ROWS(0, Ev, Ibs))
OPC(84, M(TEST, BY, Eb, Gb)) OPC(85, M(TEST, 0, Ev, Gv))
OPC(86, M(XCHG, BY | LK, Eb, Gb)) OPC(87, M(XCHG, LK, Ev, Gv))
OPC(88, M(MOV, BY, Eb, Gb)) OPC(89, M(MOV, 0, Ev, Gv)) OPC(8A, M(MOV, BY, Gb, Eb)) OPC(8B, M(MOV, 0, Gv, Ev))
OPC(8C, M(MOV_SEG, RGS(0x3f), EvMw, Sw)) OPC(8D, MM(LEA, 0, Gv, Mlea))
OPC(8E, M(MOV_SEG, RGS(0x3d), Sw, Ew)) OPC(8F, M(POP, RG(0) | D64, Ev))
OPC(90, I(PAUSE, PF3), I(NOP, RB0), I(XCHG, 0, Zv, rAX))
OPC(91, I(XCHG, 0, Zv, rAX)) OPC(92, I(XCHG, 0, Zv, rAX)) OPC(93, I(XCHG, 0, Zv, rAX))
OPC(94, I(XCHG, 0, Zv, rAX)) OPC(95, I(XCHG, 0, Zv, rAX)) OPC(96, I(XCHG, 0, Zv, rAX))
OPC(97, I(XCHG, 0, Zv, rAX))
OPC(98, I(CBW, 0)) OPC(99, I(CWD, 0)) OPC(9A, I(CALL_FAR, N64, Ioff, Iw2)) OPC(9B, I(FWAIT, 0))
OPC(9C, I(PUSHF, D64)) OPC(9D, I(POPF, D64)) OPC(9E, I(SAHF, 0)) OPC(9F, I(LAHF, 0))
OPC(A0, I(MOV, BY, AL, Ob)) OPC(A1, I(MOV, 0, rAX, Ov)) OPC(A2, I(MOV, BY, Ob, AL)) OPC(A3, I(MOV, 0, Ov, rAX))
OPC(A4, I(MOVS, BY, Yb, Xb)) OPC(A5, I(MOVS, 0, Yv, Xv)) OPC(A6, I(CMPS, BY, Xb, Yb)) OPC(A7, I(CMPS, 0, Xv, Yv))
OPC(A8, I(TEST, BY, AL, Ibb)) OPC(A9, I(TEST, 0, rAX, Iz))
OPC(AA, I(STOS, BY, Yb)) OPC(AB, I(STOS, 0, Yv)) OPC(AC, I(LODS, BY, Xb)) OPC(AD, I(LODS, 0, Xv))
OPC(AE, I(SCAS, BY, Yb)) OPC(AF, I(SCAS, 0, Yv))
OPC_LO(B, I(MOV, BY, Zb, Ib))
OPC_HI(B, I(MOV, 0, Zv, Iv))

#define GRP2_ROWS(at, e, i)                                                                \
    M(ROL, RG(0) | (at), e, i), M(ROR, RG(1) | (at), e, i), M(RCL, RG(2) | (at), e, i),    \
    M(RCR, RG(3) | (at), e, i), M(SHL, RG(4) | (at), e, i), M(SHR, RG(5) | (at), e, i),    \
    M(SHL, RG(6) | (at), e, i), M(SAR, RG(7) | (at), e, i)
OPC(C0, GRP2_ROWS(BY, Eb, Ib)) OPC(C1, GRP2_ROWS(0, Ev, Ib))
OPC(C2, I(RET, F64, Iw)) OPC(C3, I(RET, F64))
OPC(C4, MM(LES, N64, Gv, Mp)) OPC(C5, MM(LDS, N64, Gv, Mp))
OPC(C6, M(MOV, RG(0) | BY, Eb, Ib), MR(XABORT, RG(7) | RM(0), Ib))
OPC(C7, M(MOV, RG(0), Ev, Iz), MR(XBEGIN, RG(7) | RM(0), Jz))
OPC(C8, I(ENTER, D64, Iw, Ib2)) OPC(C9, I(LEAVE, D64)) OPC(CA, I(RET_FAR, 0, Iw)) OPC(CB, I(RET_FAR, 0))
OPC(CC, I(INT3, 0)) OPC(CD, I(INT, 0, Ib)) OPC(CE, I(INTO, N64)) OPC(CF, I(IRET, 0))
OPC(D0, GRP2_ROWS(BY, Eb, One)) OPC(D1, GRP2_ROWS(0, Ev, One))
OPC(D2, GRP2_ROWS(BY, Eb, CL)) OPC(D3, GRP2_ROWS(0, Ev, CL))
OPC(D4, I(AAM, N64, Ib)) OPC(D5, I(AAD, N64, Ib)) OPC(D6, I(SALC, N64)) OPC(D7, I(XLAT, 0, MBX))
OPC(E0, I(LOOPNE, F64, Jb)) OPC(E1, I(LOOPE, F64, Jb)) OPC(E2, I(LOOP, F64, Jb)) OPC(E3, I(JCXZ, F64, Jb))
OPC(E4, I(IN, BY, AL, Ib)) OPC(E5, I(IN, RF_OSZ4, zAX, Ib)) OPC(E6, I(OUT, BY, Ib, AL)) OPC(E7, I(OUT, RF_OSZ4, Ib, zAX))
OPC(E8, I(CALL, F64, Jz)) OPC(E9, I(JMP, F64, Jz)) OPC(EA, I(JMP_FAR, N64, Ioff, Iw2)) OPC(EB, I(JMP, F64, Jb))
OPC(EC, I(IN, BY, AL, DX)) OPC(ED, I(IN, RF_OSZ4, zAX, DX)) OPC(EE, I(OUT, BY, DX, AL)) OPC(EF, I(OUT, RF_OSZ4, DX, zAX))
OPC(F1, I(INT1, 0)) OPC(F4, I(HLT, 0)) OPC(F5, I(CMC, 0))

#define GRP3_ROWS(at, e, i)                                                                \
    M(TEST, RGS(3) | (at), e, i), M(NOT, RG(2) | LK | (at), e), M(NEG, RG(3) | LK | (at), e), \
    M(MUL, RG(4) | (at), e), M(IMUL, RG(5) | (at), e), M(DIV, RG(6) | (at), e), M(IDIV, RG(7) | (at), e)
OPC(F6, GRP3_ROWS(BY, Eb, Ibb)) OPC(F7, GRP3_ROWS(0, Ev, Iz))
OPC(F8, I(CLC, 0)) OPC(F9, I(STC, 0)) OPC(FA, I(CLI, 0)) OPC(FB, I(STI, 0)) OPC(FC, I(CLD, 0)) OPC(FD, I(STD, 0))
OPC(FE, M(INC, RG(0) | BY | LK, Eb), M(DEC, RG(1) | BY | LK, Eb))
OPC(FF, M(INC, RG(0) | LK, Ev), M(DEC, RG(1) | LK, Ev), M(CALL_IND, RG(2) | F64, Ev), MM(CALL_FAR, RG(3), Mp),
    M(JMP_IND, RG(4) | F64, Ev), MM(JMP_FAR, RG(5), Mp), M(PUSH, RG(6) | D64, Ev))

#undef ALU_ROWS
#undef GRP1_ROWS
#undef GRP2_ROWS
#undef GRP3_ROWS
