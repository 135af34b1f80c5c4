/* EVEX map 5, AVX512-FP16: decoder rows for decode_tab.c. SDM volume 2, the instructions' pages. */

#define PH(name, c)      M(name##PH, NP | W0 | KZ | BC2 | (c), Vx, Hx, Wx)
#define SH(name, c)      M(name##SH, PF3 | W0 | LIG | KZ | (c), V2, H2, W2)
OPC(10, MM(VMOVSH, PF3 | W0 | LIG | KZ, V2, W2), MR(VMOVSH, PF3 | W0 | LIG | KZ, V2, H16, W2))
OPC(11, MM(VMOVSH, PF3 | W0 | LIG | KM, W2, V2), MR(VMOVSH, PF3 | W0 | LIG | KZ, W2, H16, V2))
OPC(1D, M(VCVTPS2PHX, P66 | W0 | KZ | BC4 | ER, Vh, Wx), M(VCVTSS2SH, NP | W0 | LIG | KZ | ER, V2, H16, W4))
OPC(2A, M(VCVTSI2SH, PF3 | LIG | ER, V2, H16, Ey)) OPC(2C, M(VCVTTSH2SI, PF3 | LIG | SAE, Gy, W2))
OPC(2D, M(VCVTSH2SI, PF3 | LIG | ER, Gy, W2)) OPC(2E, M(VUCOMISH, NP | W0 | LIG | SAE, V2, W2))
OPC(2F, M(VCOMISH, NP | W0 | LIG | SAE, V2, W2))
OPC(51, M(VSQRTPH, NP | W0 | KZ | BC2 | ER, Vx, Wx), SH(VSQRT, ER)) OPC(58, PH(VADD, ER), SH(VADD, ER)) OPC(59, PH(VMUL, ER), SH(VMUL, ER))
OPC(5A, M(VCVTPH2PD, NP | W0 | KZ | BC2 | SAE, Vx, Wq), M(VCVTPD2PH, P66 | W1 | KZ | BC8 | ER, Vq, Wx),
    M(VCVTSH2SD, PF3 | W0 | LIG | KZ | SAE, V8, H16, W2), M(VCVTSD2SH, PF2 | W1 | LIG | KZ | ER, V2, H16, W8))
OPC(5B, M(VCVTDQ2PH, NP | W0 | KZ | BC4 | ER, Vh, Wx), M(VCVTQQ2PH, NP | W1 | KZ | BC8 | ER, Vq, Wx),
    M(VCVTPH2DQ, P66 | W0 | KZ | BC2 | ER, Vx, Wh), M(VCVTTPH2DQ, PF3 | W0 | KZ | BC2 | SAE, Vx, Wh))
OPC(5C, PH(VSUB, ER), SH(VSUB, ER)) OPC(5D, PH(VMIN, SAE), SH(VMIN, SAE)) OPC(5E, PH(VDIV, ER), SH(VDIV, ER))
OPC(5F, PH(VMAX, SAE), SH(VMAX, SAE)) OPC(6E, M(VMOVW, P66 | L0, V16, EdMw)) OPC(7E, M(VMOVW, P66 | L0, EdMw, V16))
OPC(78, M(VCVTTPH2UDQ, NP | W0 | KZ | BC2 | SAE, Vx, Wh), M(VCVTTPH2UQQ, P66 | W0 | KZ | BC2 | SAE, Vx, Wq),
    M(VCVTTSH2USI, PF3 | LIG | SAE, Gy, W2))
OPC(79, M(VCVTPH2UDQ, NP | W0 | KZ | BC2 | ER, Vx, Wh), M(VCVTPH2UQQ, P66 | W0 | KZ | BC2 | ER, Vx, Wq),
    M(VCVTSH2USI, PF3 | LIG | ER, Gy, W2))
OPC(7A, M(VCVTTPH2QQ, P66 | W0 | KZ | BC2 | SAE, Vx, Wq), M(VCVTUDQ2PH, PF2 | W0 | KZ | BC4 | ER, Vh, Wx),
    M(VCVTUQQ2PH, PF2 | W1 | KZ | BC8 | ER, Vq, Wx))
OPC(7B, M(VCVTPH2QQ, P66 | W0 | KZ | BC2 | ER, Vx, Wq), M(VCVTUSI2SH, PF3 | LIG | ER, V2, H16, Ey))
OPC(7C, M(VCVTTPH2UW, NP | W0 | KZ | BC2 | SAE, Vx, Wx), M(VCVTTPH2W, P66 | W0 | KZ | BC2 | SAE, Vx, Wx))
OPC(7D, M(VCVTPH2UW, NP | W0 | KZ | BC2 | ER, Vx, Wx), M(VCVTPH2W, P66 | W0 | KZ | BC2 | ER, Vx, Wx),
    M(VCVTW2PH, PF3 | W0 | KZ | BC2 | ER, Vx, Wx), M(VCVTUW2PH, PF2 | W0 | KZ | BC2 | ER, Vx, Wx))
#undef PH
#undef SH
