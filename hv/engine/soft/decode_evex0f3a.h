/* EVEX map 3 (0F 3A): decoder rows for decode_tab.c. SDM volume 2, the instructions' pages. */

#define X2(name, c)      M(name, P66 | KZ | (c), Vx, Wx, Ib)
#define X3(name, c)      M(name, P66 | KZ | (c), Vx, Hx, Wx, Ib)
#define D(name, c)       X3(name, W0 | BC4 | (c))
#define Q(name, c)       X3(name, W1 | BC8 | (c))
#define PSPD(name, c)    D(name##PS, c), Q(name##PD, c)
#define PSPD2(name, c)   X2(name##PS, W0 | BC4 | (c)), X2(name##PD, W1 | BC8 | (c))
#define PH2(name, c)     M(name##PH, NP | W0 | KZ | BC2 | (c), Vx, Wx, Ib)
#define SSSD(name, c)                                                                      \
    M(name##SS, P66 | W0 | LIG | KZ | (c), V4, H4, W4, Ib), M(name##SD, P66 | W1 | LIG | KZ | (c), V8, H8, W8, Ib)
#define SS(name, c)      M(name##SS, P66 | W0 | LIG | KZ | (c), V4, H4, W4, Ib)
#define SD(name, c)      M(name##SD, P66 | W1 | LIG | KZ | (c), V8, H8, W8, Ib)
#define SH(name, c)      M(name##SH, NP | W0 | LIG | KZ | (c), V2, H2, W2, Ib)
#define KC(name, c)      M(name, P66 | KM | (c), Kg, Hx, Wx, Ib)
OPC(00, X2(VPERMQ, W1 | BC8 | LGE1)) OPC(01, X2(VPERMPD, W1 | BC8 | LGE1)) OPC(03, D(VALIGND, 0), Q(VALIGNQ, 0))
OPC(04, X2(VPERMILPS, W0 | BC4)) OPC(05, X2(VPERMILPD, W1 | BC8))
OPC(08, X2(VRNDSCALEPS, W0 | BC4 | SAE), PH2(VRNDSCALE, SAE)) OPC(09, X2(VRNDSCALEPD, W1 | BC8 | SAE))
OPC(0A, SS(VRNDSCALE, SAE), SH(VRNDSCALE, SAE)) OPC(0B, SD(VRNDSCALE, SAE)) OPC(0F, X3(VPALIGNR, 0))
OPC(14, M(VPEXTRB, P66 | L0, EdMb, V16, Ib)) OPC(15, M(VPEXTRW, P66 | L0, EdMw, V16, Ib))
OPC(16, M(VPEXTRQ, P66 | W1 | L0 | M64, Eq, V16, Ib), M(VPEXTRD, P66 | L0, Ed, V16, Ib))
OPC(17, M(VEXTRACTPS, P66 | L0, Ed, V16, Ib))
OPC(18, M(VINSERTF32X4, P66 | W0 | KZ | LGE1, Vx, Hx, W16, Ib), M(VINSERTF64X2, P66 | W1 | KZ | LGE1, Vx, Hx, W16, Ib))
OPC(19, M(VEXTRACTF32X4, P66 | W0 | KZ | LGE1, W16, Vx, Ib), M(VEXTRACTF64X2, P66 | W1 | KZ | LGE1, W16, Vx, Ib))
OPC(1A, M(VINSERTF32X8, P66 | W0 | KZ | L2, Vx, Hx, W32, Ib), M(VINSERTF64X4, P66 | W1 | KZ | L2, Vx, Hx, W32, Ib))
OPC(1B, M(VEXTRACTF32X8, P66 | W0 | KZ | L2, W32, Vx, Ib), M(VEXTRACTF64X4, P66 | W1 | KZ | L2, W32, Vx, Ib))
OPC(1D, M(VCVTPS2PH, P66 | W0 | KZ | SAE, Wh, Vx, Ib))
OPC(1E, KC(VPCMPUD, W0 | BC4), KC(VPCMPUQ, W1 | BC8)) OPC(1F, KC(VPCMPD, W0 | BC4), KC(VPCMPQ, W1 | BC8))
OPC(20, M(VPINSRB, P66 | L0, V16, H16, EdMb, Ib)) OPC(21, M(VINSERTPS, P66 | W0 | L0, V16, H16, W16M4, Ib))
OPC(22, M(VPINSRQ, P66 | W1 | L0 | M64, V16, H16, Eq, Ib), M(VPINSRD, P66 | L0, V16, H16, Ed, Ib))
OPC(23, D(VSHUFF32X4, LGE1), Q(VSHUFF64X2, LGE1)) OPC(25, D(VPTERNLOGD, 0), Q(VPTERNLOGQ, 0))
OPC(26, PSPD2(VGETMANT, SAE), PH2(VGETMANT, SAE)) OPC(27, SSSD(VGETMANT, SAE), SH(VGETMANT, SAE))
OPC(38, M(VINSERTI32X4, P66 | W0 | KZ | LGE1, Vx, Hx, W16, Ib), M(VINSERTI64X2, P66 | W1 | KZ | LGE1, Vx, Hx, W16, Ib))
OPC(39, M(VEXTRACTI32X4, P66 | W0 | KZ | LGE1, W16, Vx, Ib), M(VEXTRACTI64X2, P66 | W1 | KZ | LGE1, W16, Vx, Ib))
OPC(3A, M(VINSERTI32X8, P66 | W0 | KZ | L2, Vx, Hx, W32, Ib), M(VINSERTI64X4, P66 | W1 | KZ | L2, Vx, Hx, W32, Ib))
OPC(3B, M(VEXTRACTI32X8, P66 | W0 | KZ | L2, W32, Vx, Ib), M(VEXTRACTI64X4, P66 | W1 | KZ | L2, W32, Vx, Ib))
OPC(3E, KC(VPCMPUB, W0), KC(VPCMPUW, W1)) OPC(3F, KC(VPCMPB, W0), KC(VPCMPW, W1))
OPC(42, X3(VDBPSADBW, W0)) OPC(43, D(VSHUFI32X4, LGE1), Q(VSHUFI64X2, LGE1)) OPC(44, M(VPCLMULQDQ, P66, Vx, Hx, Wx, Ib))
OPC(50, PSPD(VRANGE, SAE)) OPC(51, SSSD(VRANGE, SAE)) OPC(54, PSPD(VFIXUPIMM, SAE)) OPC(55, SSSD(VFIXUPIMM, SAE))
OPC(56, PSPD2(VREDUCE, SAE), PH2(VREDUCE, SAE)) OPC(57, SSSD(VREDUCE, SAE), SH(VREDUCE, SAE))
OPC(66, M(VFPCLASSPS, P66 | W0 | KM | BC4, Kg, Wx, Ib), M(VFPCLASSPD, P66 | W1 | KM | BC8, Kg, Wx, Ib),
    M(VFPCLASSPH, NP | W0 | KM | BC2, Kg, Wx, Ib))
OPC(67, M(VFPCLASSSS, P66 | W0 | LIG | KM, Kg, W4, Ib), M(VFPCLASSSD, P66 | W1 | LIG | KM, Kg, W8, Ib),
    M(VFPCLASSSH, NP | W0 | LIG | KM, Kg, W2, Ib))
OPC(70, X3(VPSHLDW, W1)) OPC(71, D(VPSHLDD, 0), Q(VPSHLDQ, 0)) OPC(72, X3(VPSHRDW, W1)) OPC(73, D(VPSHRDD, 0), Q(VPSHRDQ, 0))
OPC(C2, M(VCMPPH, NP | W0 | KM | BC2 | SAE, Kg, Hx, Wx, Ib), M(VCMPSH, PF3 | W0 | LIG | KM | SAE, Kg, H2, W2, Ib))
OPC(CE, Q(VGF2P8AFFINEQB, 0)) OPC(CF, Q(VGF2P8AFFINEINVQB, 0))
#undef X2
#undef X3
#undef D
#undef Q
#undef PSPD
#undef PSPD2
#undef PH2
#undef SSSD
#undef SS
#undef SD
#undef SH
#undef KC
