/* x87, D8 to DF: decoder rows for decode_tab.c. SDM volume 2, tables; aliases as every CPU has them. */

#define ARITH_MEM(p, e)                                                                    \
    MM(p##ADD, RG(0), e), MM(p##MUL, RG(1), e), MM(p##COM, RG(2), e), MM(p##COMP, RG(3), e), \
    MM(p##SUB, RG(4), e), MM(p##SUBR, RG(5), e), MM(p##DIV, RG(6), e), MM(p##DIVR, RG(7), e)
OPC(D8, ARITH_MEM(F, Ed),
    MR(FADD, RG(0), ST0, STi), MR(FMUL, RG(1), ST0, STi), MR(FCOM, RG(2), STi), MR(FCOMP, RG(3), STi),
    MR(FSUB, RG(4), ST0, STi), MR(FSUBR, RG(5), ST0, STi), MR(FDIV, RG(6), ST0, STi), MR(FDIVR, RG(7), ST0, STi))
OPC(D9, MM(FLD, RG(0), Ed), MM(FST, RG(2), Ed), MM(FSTP, RG(3), Ed), MM(FLDENV, RG(4), Menv), MM(FLDCW, RG(5), Ew),
    MM(FNSTENV, RG(6), Menv), MM(FNSTCW, RG(7), Ew),
    MR(FLD, RG(0), STi), MR(FXCH, RG(1), STi), MR(FNOP, RG(2) | RM(0)), MR(FSTP, RG(3), STi),
    MR(FCHS, RG(4) | RM(0)), MR(FABS, RG(4) | RM(1)), MR(FTST, RG(4) | RM(4)), MR(FXAM, RG(4) | RM(5)),
    MR(FLD1, RG(5) | RM(0)), MR(FLDL2T, RG(5) | RM(1)), MR(FLDL2E, RG(5) | RM(2)), MR(FLDPI, RG(5) | RM(3)),
    MR(FLDLG2, RG(5) | RM(4)), MR(FLDLN2, RG(5) | RM(5)), MR(FLDZ, RG(5) | RM(6)),
    MR(F2XM1, RG(6) | RM(0)), MR(FYL2X, RG(6) | RM(1)), MR(FPTAN, RG(6) | RM(2)), MR(FPATAN, RG(6) | RM(3)),
    MR(FXTRACT, RG(6) | RM(4)), MR(FPREM1, RG(6) | RM(5)), MR(FDECSTP, RG(6) | RM(6)), MR(FINCSTP, RG(6) | RM(7)),
    MR(FPREM, RG(7) | RM(0)), MR(FYL2XP1, RG(7) | RM(1)), MR(FSQRT, RG(7) | RM(2)), MR(FSINCOS, RG(7) | RM(3)),
    MR(FRNDINT, RG(7) | RM(4)), MR(FSCALE, RG(7) | RM(5)), MR(FSIN, RG(7) | RM(6)), MR(FCOS, RG(7) | RM(7)))
OPC(DA, ARITH_MEM(FI, Ed), MR(FCMOVCC, RGS(15) | COND, ST0, STi), MR(FUCOMPP, RG(5) | RM(1)))
OPC(DB, MM(FILD, RG(0), Ed), MM(FISTTP, RG(1), Ed), MM(FIST, RG(2), Ed), MM(FISTP, RG(3), Ed), MM(FLD, RG(5), Mt),
    MM(FSTP, RG(7), Mt), MR(FCMOVCC, RGS(15) | COND, ST0, STi), MR(FNCLEX, RG(4) | RM(2)), MR(FNINIT, RG(4) | RM(3)),
    MR(FNOP, RG(4) | RMS(0x13)), MR(FUCOMI, RG(5), ST0, STi), MR(FCOMI, RG(6), ST0, STi))
OPC(DC, ARITH_MEM(F, Eq),
    MR(FADD, RG(0), STi, ST0), MR(FMUL, RG(1), STi, ST0), MR(FCOM, RG(2), STi), MR(FCOMP, RG(3), STi),
    MR(FSUBR, RG(4), STi, ST0), MR(FSUB, RG(5), STi, ST0), MR(FDIVR, RG(6), STi, ST0), MR(FDIV, RG(7), STi, ST0))
OPC(DD, MM(FLD, RG(0), Eq), MM(FISTTP, RG(1), Eq), MM(FST, RG(2), Eq), MM(FSTP, RG(3), Eq), MM(FRSTOR, RG(4), Mfs),
    MM(FNSAVE, RG(6), Mfs), MM(FNSTSW, RG(7), Ew),
    MR(FFREE, RG(0), STi), MR(FXCH, RG(1), STi), MR(FST, RG(2), STi), MR(FSTP, RG(3), STi), MR(FUCOM, RG(4), STi),
    MR(FUCOMP, RG(5), STi))
OPC(DE, ARITH_MEM(FI, Ew),
    MR(FADDP, RG(0), STi, ST0), MR(FMULP, RG(1), STi, ST0), MR(FCOMP, RG(2), STi), MR(FCOMPP, RG(3) | RM(1)),
    MR(FSUBRP, RG(4), STi, ST0), MR(FSUBP, RG(5), STi, ST0), MR(FDIVRP, RG(6), STi, ST0), MR(FDIVP, RG(7), STi, ST0))
OPC(DF, MM(FILD, RG(0), Ew), MM(FISTTP, RG(1), Ew), MM(FIST, RG(2), Ew), MM(FISTP, RG(3), Ew), MM(FBLD, RG(4), Mt),
    MM(FILD, RG(5), Eq), MM(FBSTP, RG(6), Mt), MM(FISTP, RG(7), Eq),
    MR(FFREEP, RG(0), STi), MR(FXCH, RG(1), STi), MR(FSTP, RGS(12), STi), MR(FNSTSW, RG(4) | RM(0), AX),
    MR(FUCOMIP, RG(5), ST0, STi), MR(FCOMIP, RG(6), ST0, STi))

#undef ARITH_MEM
