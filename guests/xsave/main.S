// Extended state: XCR0, XSAVE and XRSTOR, FXSAVE, and what CPUID says of them. SDM vol. 1 ch. 13; vol. 2 XSETBV, XRSTOR.
#define LONG
#include "guest.inc"
GUEST "xsave"
.set OSXSAVE, 0x40000

  .code64
guest_main:
  call fxsave_
  UNLESS cpuid_1c, 26, 9f
  call osxsave
  call xcr0
  call images
  call compact
  call vectors
  FINISH
9: SKIP "XSAVE: no such feature"
  FINISH

.macro CR4_OR bits
  mov %cr4, %rax
  or $\bits, %eax
  mov %rax, %cr4
.endm
.macro CR4_NOT bits
  mov %cr4, %rax
  and $~\bits, %eax
  mov %rax, %cr4
.endm
.macro XSETBV_ lo, hi=0, reg=0
  mov $\reg, %ecx
  mov $\lo, %eax
  mov $\hi, %edx
  xsetbv
.endm
.macro MASK lo                    // EDX:EAX for XSAVE and XRSTOR
  mov $\lo, %eax
  xor %edx, %edx
.endm
.macro WIPE                       // an area of all ones
  mov $area, %edi
  mov $1024, %ecx
  mov $-1, %eax
  rep stosl
.endm
.macro ZERO
  mov $area, %edi
  mov $1024, %ecx
  xor %eax, %eax
  rep stosl
.endm

fxsave_:
  CASE "FXSAVE and FXRSTOR carry XMM, MXCSR and x87"
  fninit
  fldpi
  movl $0x1f00, scratch
  ldmxcsr scratch
  mov $0x1234567, %eax
  movd %eax, %xmm3
  movd %eax, %xmm12
  fxsave area
  fninit
  movl $0x1f80, scratch
  ldmxcsr scratch
  pxor %xmm3, %xmm3
  pxor %xmm12, %xmm12
  fxrstor area
  movd %xmm3, %eax
  CHECK(%rax, $0x1234567)
  movd %xmm12, %eax
  CHECK(%rax, $0x1234567)
  stmxcsr scratch
  mov scratch, %eax
  CHECK(%rax, $0x1f00)
  fnstsw %ax
  movzwl %ax, %eax
  CHECK(%rax, $0x3800)
  movzbl area + 4, %eax           // abridged tag: ST0 is in R7
  CHECK(%rax, $0x80)
  movl $0x1f80, scratch
  ldmxcsr scratch
  fninit
  ret

osxsave:
  CASE "CPUID.OSXSAVE follows CR4.OSXSAVE"
  mov $1, %eax
  cpuid
  shr $27, %ecx
  and $1, %ecx
  mov %ecx, scratch
  CR4_OR OSXSAVE
  mov $1, %eax
  cpuid
  shr $27, %ecx
  and $1, %ecx
  CHECK(%rcx, $1)
  mov scratch, %eax
  CHECK(%rax, $0)
  CR4_NOT OSXSAVE
  FAULT("XSAVE without OSXSAVE", UD, 0, "xsave area", "MASK 3")
  FAULT("XRSTOR without OSXSAVE", UD, 0, "xrstor area", "MASK 3")
  FAULT("XSETBV without OSXSAVE", UD, 0, "xsetbv", "xor %ecx,%ecx; MASK 1")
  CR4_OR OSXSAVE
  ret

xcr0:
  CASE "XCR0 can hold x87 and SSE"
  TRY
  XSETBV_ 3
  xor %ecx, %ecx
  xgetbv
  ENDTRY
  CHECK(exc_vec, $NONE)
  CHECK(%rax, $3)
  CHECK(%rdx, $0)
  FAULT("XCR0: x87 cannot be off", GP, 0, "xsetbv", "xor %ecx,%ecx; MASK 2")
  FAULT("XCR0: AVX needs SSE", GP, 0, "xsetbv", "xor %ecx,%ecx; MASK 5")
  FAULT("XCR0: bit 63", GP, 0, "xsetbv", "xor %ecx,%ecx; mov $3,%eax; mov $0x80000000,%edx")
  FAULT("XCR0: bits that CPUID does not have", GP, 0, "xsetbv", "xor %ecx,%ecx; mov $0x40000003,%eax; xor %edx,%edx")
  FAULT("XCR1", GP, 0, "xsetbv", "mov $1,%ecx; MASK 1")
  FAULT("XGETBV of XCR7", GP, 0, "xgetbv", "mov $7,%ecx")
  FAULT3("XSETBV in ring 3", GP, 0, "xsetbv", "xor %ecx,%ecx; MASK 3")
  PASS3("XGETBV in ring 3", "xor %ecx,%ecx; xgetbv")
  FAULT("LOCK XSETBV", UD, 0, ".byte 0xf0,0x0f,0x01,0xd1", "xor %ecx,%ecx; MASK 3")
  CASE "CPUID leaf 13: size for XCR0 = 3"
  mov $13, %eax
  xor %ecx, %ecx
  cpuid
  CHECK(%rbx, $576)
  CASE "XCR0 stays when OSXSAVE goes and comes"
  CR4_NOT OSXSAVE
  CR4_OR OSXSAVE
  xor %ecx, %ecx
  xgetbv
  CHECK(%rax, $3)
  ret

images:
  FAULT("XSAVE to an odd place", GP, 0, "xsave area+16", "MASK 3")
  FAULT("XRSTOR from an odd place", GP, 0, "xrstor area+32", "MASK 3")
  FAULT("XSAVE with TS", NM, 0, "xsave area", "mov %cr0,%rax; or $8,%eax; mov %rax,%cr0; MASK 3")
  clts
  CASE "XSAVE writes what is asked for, and the header's bits"
  ZERO
  fninit
  fld1
  mov $0x7654321, %eax
  movd %eax, %xmm1
  movl $0x1f80, scratch
  ldmxcsr scratch
  MASK 2
  xsave area
  mov area + 176, %eax            // XMM1
  CHECK(%rax, $0x7654321)
  movzwl area, %eax               // FCW: not asked for
  CHECK(%rax, $0)
  mov area + 24, %eax             // MXCSR goes with SSE
  CHECK(%rax, $0x1f80)
  CHECK(area + 512, $2)
  CASE "XSAVE keeps header bits that were not asked for"
  ZERO
  movq $1, area + 512
  MASK 2
  xsave area
  CHECK(area + 512, $3)
  CASE "XRSTOR of x87 only leaves SSE"
  ZERO
  fninit
  fldpi
  mov $0x1111, %eax
  movd %eax, %xmm1
  MASK 3
  xsave area
  fninit
  mov $0x2222, %eax
  movd %eax, %xmm1
  MASK 1
  xrstor area
  movd %xmm1, %eax
  CHECK(%rax, $0x2222)
  fnstsw %ax
  movzwl %ax, %eax
  CHECK(%rax, $0x3800)
  MASK 2
  xrstor area
  movd %xmm1, %eax
  CHECK(%rax, $0x1111)
  CASE "XRSTOR with a clear header bit initializes"
  movq $0, area + 512
  fldpi
  MASK 3
  xrstor area
  movd %xmm1, %eax
  CHECK(%rax, $0)
  fnstsw %ax
  movzwl %ax, %eax
  CHECK(%rax, $0)
  fnstcw scratch
  movzwl scratch, %eax
  CHECK(%rax, $0x37f)
  CASE "MXCSR is loaded even then, if SSE is asked for"
  movl $0x1f00, area + 24
  MASK 2
  xrstor area
  stmxcsr scratch
  mov scratch, %eax
  CHECK(%rax, $0x1f00)
  movl $0x1f80, scratch
  ldmxcsr scratch
  movl $0x1f80, area + 24
  FAULT("XRSTOR: header bit that XCR0 does not have", GP, 0, "xrstor area", "ZERO; movq $7,area+512; MASK 3")
  FAULT("XRSTOR: header bytes 8 to 15", GP, 0, "xrstor area", "ZERO; movq $1,area+520; MASK 3")
  FAULT("XRSTOR: header bytes 16 to 23", GP, 0, "xrstor area", "ZERO; movq $1,area+528; MASK 3")
  FAULT("XRSTOR: reserved MXCSR bits", GP, 0, "xrstor area", "ZERO; movl $-1,area+24; movq $3,area+512; MASK 3")
  CASE "bits of EDX:EAX beyond XCR0 are ignored"
  ZERO
  mov $-1, %eax
  mov $-1, %edx
  TRY
  mov $-1, %eax
  mov $-1, %edx
  xsave area
  ENDTRY
  CHECK(exc_vec, $NONE)
  mov area + 512, %rax
  and $~3, %rax
  CHECK(%rax, $0)
  CASE "XSAVE into a page that is not there" // whether as a read of the header or as a write is the processor's choice
  TRY
  movabs $0xffff900000001000, %rbx
  MASK 3
98: xsave (%rbx)
  ENDTRY
  CHECK(exc_vec, $PF)
  CHECK(exc_eip, $98b)
  ret

compact:                          // XSAVEOPT, XSAVEC where CPUID 13.1 has them
  mov $13, %eax
  mov $1, %ecx
  cpuid
  mov %eax, scratch + 8
  UNLESS scratch+8, 0, 1f
  CASE "XSAVEOPT, then XRSTOR"
  ZERO
  mov $0x3333, %eax
  movd %eax, %xmm5
  MASK 3
  xsaveopt area
  pxor %xmm5, %xmm5
  MASK 3
  xrstor area
  movd %xmm5, %eax
  CHECK(%rax, $0x3333)
1: UNLESS scratch+8, 1, 2f
  CASE "XSAVEC: XCOMP_BV, then XRSTOR of the compacted form"
  ZERO
  mov $0x4444, %eax
  movd %eax, %xmm6
  MASK 3
  xsavec area
  mov area + 520, %rax
  mov %rax, %rbx
  movabs $0x8000000000000003, %rax
  CHECK(%rbx, %rax)
  pxor %xmm6, %xmm6
  MASK 3
  xrstor area
  movd %xmm6, %eax
  CHECK(%rax, $0x4444)
2: ret

vectors:
  UNLESS cpuid_1c, 28, 9f
  FAULT("AVX with XCR0.AVX clear", UD, 0, "vxorps %ymm0,%ymm0,%ymm0")
  CASE "XCR0 can hold AVX, CPUID leaf 13 grows"
  TRY
  XSETBV_ 7
  ENDTRY
  CHECK(exc_vec, $NONE)
  mov $13, %eax
  xor %ecx, %ecx
  cpuid
  CHECK(%rbx, $832)
  mov $13, %eax
  mov $2, %ecx
  cpuid
  CHECK(%rax, $256)
  CHECK(%rbx, $576)
  CASE "XSAVE and XRSTOR of the upper halves"
  ZERO
  vmovups pattern, %ymm2
  MASK 7
  xsave area
  CHECK(area + 576 + 32, $0x33333333)
  vzeroall
  MASK 7
  xrstor area
  vmovups %ymm2, scratch2
  CHECK(scratch2 + 16, $0x33333333)
  CHECK(scratch2, $0x11111111)
  CASE "XRSTOR of AVX only leaves the lower halves"
  vzeroall
  MASK 4
  xrstor area
  vmovups %ymm2, scratch2
  CHECK(scratch2 + 16, $0x33333333)
  CHECK(scratch2, $0)
  CASE "a VEX.128 instruction clears the upper half, a legacy one keeps it"
  vmovups pattern, %ymm2
  movaps %xmm2, %xmm3
  movups pattern, %xmm2
  vmovups %ymm2, scratch2
  CHECK(scratch2 + 16, $0x33333333)
  vmovups pattern, %xmm2
  vmovups %ymm2, scratch2
  CHECK(scratch2 + 16, $0)
  CASE "AVX with TS"
  TRY
  mov %cr0, %rax
  or $8, %eax
  mov %rax, %cr0
98: vxorps %ymm0, %ymm0, %ymm0
  ENDTRY
  clts
  CHECK(exc_vec, $NM)
  CHECK(exc_eip, $98b)
  FAULT("VMOVAPS from an odd place", GP, 0, "vmovaps pattern+16,%ymm0")
  PASS("VMOVUPS and VADDPS from an odd place", "vmovups pattern+4,%xmm0; vaddps pattern+4,%xmm0,%xmm0")
  FAULT("VEX with an operand-size prefix", UD, 0, ".byte 0x66; vxorps %ymm0,%ymm0,%ymm0")
  FAULT("VEX with REX", UD, 0, ".byte 0x48; vxorps %ymm0,%ymm0,%ymm0")
  FAULT("VEX with LOCK", UD, 0, ".byte 0xf0; vxorps %ymm0,%ymm0,%ymm0")
  FAULT("VEX.vvvv that must be 1111", UD, 0, ".byte 0xc5,0xf0,0x10,0x04,0x25; .long pattern")
  ret
9: SKIP "AVX: no such feature"
  ret

  .section .bss
  .align 64
area: .skip 4096
scratch: .skip 64
scratch2: .skip 64
  .section .rodata
  .align 32
pattern: .quad 0x11111111, 0x22222222, 0x33333333, 0x44444444, 0x55555555, 0x66666666
