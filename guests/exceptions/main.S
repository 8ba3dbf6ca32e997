// Exceptions that single instructions raise: vector, error code, saved EIP and priority, in ring 0 and ring 3.
// SDM vol. 3A ch. 6 (tables 6-1, 6-2, 6-8), vol. 1 §8.7 (x87), §11.5 (SIMD); vol. 2A §2.1, §3.1.1.
#include "guest.inc"
GUEST "exceptions"
.set CODESEG, FREE
.set SMALLDATA, FREE + 8

  .code32
guest_main:
  movl $0x600, %eax               // OSFXSR, OSXMMEXCPT
  mov %eax, %cr4
  call divide
  call undefined
  call too_long
  call privileged
  call io_ports
  call coprocessor
  call x87
  call simd
  call control_registers
  call fetch_limit
  call saved_eip
  call priorities
  FINISH

divide:
  FAULT("DIV r32 by zero", DE, 0, "div %ecx", "xor %ecx,%ecx")
  FAULT3("DIV r32 by zero in ring 3", DE, 0, "div %ecx", "xor %ecx,%ecx")
  FAULT("DIV r8 quotient too large", DE, 0, "div %cl", "mov $0x1000,%eax; mov $1,%cl")
  FAULT("DIV r16 quotient too large", DE, 0, "div %cx", "mov $1,%dx; mov $0,%ax; mov $1,%cx")
  FAULT("IDIV most negative by -1", DE, 0, "idiv %ecx", "mov $0x80000000,%eax; cltd; mov $-1,%ecx")
  FAULT("IDIV r8 quotient 128", DE, 0, "idiv %cl", "mov $128,%ax; mov $1,%cl")
  FAULT("AAM 0", DE, 0, "aam $0")
  CASE "DIV leaves registers alone when it faults"
  TRY
  mov $0x11111111, %eax
  mov $0x22222222, %edx
  xor %ecx, %ecx
  div %ecx
  ENDTRY
  CHECK(exc_eax, $0x11111111)
  CHECK(exc_edx, $0x22222222)
  ret

undefined:
  FAULT("UD2", UD, 0, "ud2")
  FAULT3("UD2 in ring 3", UD, 0, "ud2")
  FAULT("UD1", UD, 0, ".byte 0x0f,0xb9,0xc0")
  FAULT("UD0", UD, 0, ".byte 0x0f,0xff,0xc0")
  FAULT("LOCK with a register destination", UD, 0, ".byte 0xf0,0x01,0xc0")
  FAULT("LOCK MOV to memory", UD, 0, ".byte 0xf0,0x89,0x05; .long scratch")
  FAULT("LOCK CMP memory", UD, 0, ".byte 0xf0,0x39,0x05; .long scratch")
  FAULT("LOCK ADD register from memory", UD, 0, ".byte 0xf0,0x03,0x05; .long scratch")
  FAULT("LOCK NOP", UD, 0, ".byte 0xf0,0x90")
  FAULT("LOCK BT memory", UD, 0, ".byte 0xf0,0x0f,0xa3,0x05; .long scratch")
  FAULT("LOCK PUSH", UD, 0, ".byte 0xf0,0x50")
  FAULT("LOCK SHL memory", UD, 0, ".byte 0xf0,0xd1,0x25; .long scratch")
  PASS("LOCK XADD memory is good", "lock xadd %eax,scratch")
  PASS("LOCK BTS memory is good", "lock btsl $3,scratch")
  PASS("LOCK XCHG memory is good", "lock xchg %eax,scratch")
  FAULT("MOV to CS", UD, 0, ".byte 0x8e,0xc8")
  FAULT("MOV to segment register 6", UD, 0, ".byte 0x8e,0xf0")
  FAULT("MOV from segment register 7", UD, 0, ".byte 0x8c,0xf8")
  FAULT("MOV from CR1", UD, 0, ".byte 0x0f,0x20,0xc8")
  FAULT("MOV to CR5", UD, 0, ".byte 0x0f,0x22,0xe8")
  FAULT("LEA with a register", UD, 0, ".byte 0x8d,0xc0")
  FAULT("FE /7", UD, 0, ".byte 0xfe,0xf8")
  FAULT("FF /7", UD, 0, ".byte 0xff,0xf8")
  FAULT("CALL far with a register", UD, 0, ".byte 0xff,0xd8")
  FAULT("JMP far with a register", UD, 0, ".byte 0xff,0xe8")
  FAULT("C6 /1", UD, 0, ".byte 0xc6,0xc8,0x00")
  FAULT("0F BA /0", UD, 0, ".byte 0x0f,0xba,0xc0,0x00")
  FAULT("0F 00 /7", UD, 0, ".byte 0x0f,0x00,0xf8")
  FAULT("CMPXCHG8B with a register", UD, 0, ".byte 0x0f,0xc7,0xc8")
  FAULT("INVLPG with a register", UD, 0, ".byte 0x0f,0x01,0xff")
  FAULT("LSS with a register", UD, 0, ".byte 0x0f,0xb2,0xc0")
  FAULT("RSM outside SMM", UD, 0, "rsm")
  FAULT("0F 04", UD, 0, ".byte 0x0f,0x04")
  FAULT("0F A6", UD, 0, ".byte 0x0f,0x24,0xc0")
  FAULT("SYSCALL with EFER.SCE clear", UD, 0, "syscall")
  FAULT3("VMX instruction without VMX", UD, 0, ".byte 0x0f,0x01,0xc2")
  FAULT("MOVNTI with a register", UD, 0, ".byte 0x0f,0xc3,0xc0")
  ret

too_long:                         // 15 bytes are the most (SDM vol. 2A §2.3.11, vol. 3A §6.15 #GP)
  PASS("instruction of 15 bytes", ".fill 14,1,0x66; nop")
  FAULT("instruction of 16 bytes", GP, 0, ".fill 15,1,0x66; nop")
  FAULT3("instruction of 16 bytes in ring 3", GP, 0, ".fill 15,1,0x3e; nop")
  PASS("repeated prefixes of one group", ".byte 0x2e,0x36,0x3e; mov scratch,%eax")
  ret

privileged:
  .irp i, "hlt", "clts", "invd", "wbinvd", "mov %cr0,%eax", "mov %eax,%cr3", "mov %cr4,%eax", "mov %dr7,%eax", "mov %eax,%dr0", "lgdt scratch", "lidt scratch", "lldt %ax", "ltr %ax", "lmsw %ax", "invlpg scratch", "sysexit"
  FAULT3m 100, "ring 3: \i", GP, 0, "\i"
  .endr
  FAULT3("ring 3: rdmsr", GP, 0, "rdmsr", "mov $0x1b,%ecx")
  FAULT3("ring 3: wrmsr", GP, 0, "wrmsr", "mov $0x10,%ecx")
  FAULT3("ring 3: cli with IOPL 0", GP, 0, "cli")
  FAULT3("ring 3: sti with IOPL 0", GP, 0, "sti")
  FAULT3("ring 3: rdpmc with PCE clear", GP, 0, "rdpmc", "xor %ecx,%ecx")
  PASS3("ring 3: smsw and sgdt are free without UMIP", "smsw %ax; sgdt scratch; sidt scratch; str %ax; sldt %ax")
  PASS3("ring 3: rdtsc with TSD clear", "rdtsc")
  mov %cr4, %eax
  or $4, %eax
  mov %eax, %cr4
  FAULT3("ring 3: rdtsc with TSD set", GP, 0, "rdtsc")
  PASS("ring 0: rdtsc with TSD set", "rdtsc")
  mov %cr4, %eax
  and $~4, %eax
  mov %eax, %cr4
  CASE "ring 3: POPF changes neither IF nor IOPL with IOPL 0"
  TRY
  TO_RING3
  push $0x3ad7
  popf
  int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  mov exc_efl, %eax
  and $0x3200, %eax
  CHECK(%eax, $0)
  CASE "ring 3: POPF changes IF but not IOPL with IOPL 3"
  TRY
  TO_RING3 0x3002
  push $0x0202
  popf
  int $EXIT
  ENDTRY
  mov exc_efl, %eax
  and $0x3200, %eax
  CHECK(%eax, $0x3200)
  CASE "ring 3: CLI and STI with IOPL 3"
  TRY
  TO_RING3 0x3202
  cli
  pushf
  pop %ebx
  sti
  nop
  int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  mov exc_ebx, %eax
  and $0x200, %eax
  CHECK(%eax, $0)
  mov exc_efl, %eax
  and $0x200, %eax
  CHECK(%eax, $0x200)
  CASE "ring 3: HLT with IOPL 3"
  TRY
  TO_RING3 0x3002
  hlt
  ENDTRY
  CHECK(exc_vec, $GP)
  ret

io_ports:                         // I/O permission bit map: SDM vol. 1 §19.5.2. Ports 0x80..0x87 are free of side effects.
  FAULT3("IN from a closed port", GP, 0, "in $0x80,%al")
  FAULT3("OUT to a closed port", GP, 0, "out %al,%dx", "mov $0x80,%dx")
  FAULT3("OUTSB to a closed port", GP, 0, "outsb", "mov $0x80,%dx; mov $scratch,%esi")
  FAULT3("INSB from a closed port", GP, 0, "insb", "mov $0x80,%dx; mov $scratch,%edi")
  movb $0xfe, tss+104+32+0x10     // only 0x80 open
  PASS3("IN from an open port", "in $0x80,%al")
  PASS3("OUT to an open port", "out %al,$0x80")
  FAULT3("IN of a word half open", GP, 0, "in $0x80,%ax")
  FAULT3("IN of a port next to an open one", GP, 0, "in $0x81,%al")
  movb $0xfc, tss+104+32+0x10
  PASS3("IN of a word all open", "in $0x80,%ax")
  FAULT3("IN of a dword half open", GP, 0, "in $0x80,%eax")
  movb $0x7f, tss+104+32+0x10
  FAULT3("IN of a word across two bytes of the map, second closed", GP, 0, "in $0x87,%ax")
  movb $0xfe, tss+104+32+0x11
  PASS3("IN of a word across two bytes of the map", "in $0x87,%ax")
  movb $-1, tss+104+32+0x10
  movb $-1, tss+104+32+0x11
  movw $0xdfff, tss+102
  FAULT3("map base beyond the TSS limit", GP, 0, "in $0x80,%al")
  movw $104+32, tss+102
  CASE "IOPL 3 needs no map"
  TRY
  TO_RING3 0x3002
  in $0x80, %al
  int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  ret

#define CR0_SET(bits) mov %cr0, %eax; or $bits, %eax; mov %eax, %cr0
#define CR0_CLEAR(bits) mov %cr0, %eax; and $~(bits), %eax; mov %eax, %cr0

coprocessor:                      // SDM vol. 3A table 2-2 and 6.15 #NM; CR0: MP 2, EM 4, TS 8
  fninit
  CR0_SET(8)
  FAULT("x87 with TS", NM, 0, "fnop")
  FAULT3("x87 with TS in ring 3", NM, 0, "fld1")
  FAULT("WAIT with TS and MP", NM, 0, "fwait")
  FAULT("MMX with TS", NM, 0, "pxor %mm0,%mm0")
  FAULT("SSE with TS", NM, 0, "xorps %xmm0,%xmm0")
  FAULT("FXSAVE with TS", NM, 0, "fxsave fxarea")
  FAULT("FNINIT with TS", NM, 0, "fninit")
  FAULT("LDMXCSR with TS", NM, 0, "ldmxcsr fxarea+24")
  PASS("PREFETCH and SFENCE with TS", "prefetcht0 scratch; sfence")
  FAULT("EMMS with TS", NM, 0, "emms")
  CR0_CLEAR(2)
  PASS("WAIT with TS, without MP", "fwait")
  CR0_CLEAR(8)
  CR0_SET(2)
  CR0_SET(4)
  FAULT("x87 with EM", NM, 0, "fnop")
  FAULT("FNSTSW with EM", NM, 0, "fnstsw %ax")
  PASS("WAIT with EM", "fwait")
  FAULT("MMX with EM", UD, 0, "pxor %mm0,%mm0")
  FAULT("SSE with EM", UD, 0, "xorps %xmm0,%xmm0")
  CASE "FXSAVE with EM"             // #NM in the APM and some editions of the SDM, #UD in others
  TRY
98: fxsave fxarea
  ENDTRY
  mov exc_vec, %eax
  sub $UD, %eax
  and $~1, %eax
  CHECK(%eax, $0)
  CHECK(exc_eip, $98b)
  CR0_SET(8)
  FAULT("SSE with EM and TS", UD, 0, "xorps %xmm0,%xmm0")
  FAULT("MMX with EM and TS", UD, 0, "pxor %mm0,%mm0")
  PASS("CLTS", "clts")
  mov %cr0, %eax
  and $8, %eax
  CHECK(%eax, $0)
  CR0_CLEAR(4)
  xor %eax, %eax
  mov %eax, %cr4
  FAULT("SSE without OSFXSR", UD, 0, "xorps %xmm0,%xmm0")
  FAULT("SSE2 without OSFXSR", UD, 0, "pxor %xmm0,%xmm0")
  FAULT("LDMXCSR without OSFXSR", UD, 0, "ldmxcsr fxarea+24")
  PASS("MMX without OSFXSR", "pxor %mm0,%mm0; emms")
  PASS("SFENCE, MFENCE, PAUSE without OSFXSR", "sfence; mfence; lfence; pause")
  CR0_SET(8)
  FAULT("SSE without OSFXSR and with TS", UD, 0, "xorps %xmm0,%xmm0")
  clts
  FAULT("XGETBV without OSXSAVE", UD, 0, "xgetbv", "xor %ecx,%ecx")
  FAULT("AVX without OSXSAVE", UD, 0, "vxorps %xmm0,%xmm0,%xmm0")
  mov $0x600, %eax
  mov %eax, %cr4
  ret

x87:                              // SDM vol. 1 §8.7, vol. 3A 6.15 #MF: reported on the next waiting instruction
  fninit
  movw $0x37b, scratch            // zero divide unmasked
  fldcw scratch
  FAULT("x87 error comes with the next x87 instruction", MF, 0, "fld1", "fld1; fldz; fdivrp")
  FAULT("x87 error comes with WAIT", MF, 0, "fwait")
  FAULT3("x87 error in ring 3", MF, 0, "fwait")
  FAULT("x87 error comes with MMX", MF, 0, "pxor %mm0,%mm0")
  PASS("FNSTSW does not wait", "fnstsw %ax; mov %eax,scratch+4")
  mov scratch+4, %eax
  and $0x8084, %eax
  CHECK(%eax, $0x8084)            // B, ES, ZE
  PASS("SSE does not wait", "xorps %xmm0,%xmm0")
  CR0_SET(8)
  FAULT("#NM is before #MF", NM, 0, "fwait")
  clts
  PASS("FNCLEX clears it", "fnclex; fwait")
  fld1
  fldz
  fdivrp
  PASS("FNINIT clears it", "fninit; fwait")
  CASE "unmasking a pending flag raises the error"
  TRY
  fld1
  fldz
  fdivrp                          // masked: sets ZE only
  movw $0x37b, scratch
  fldcw scratch
98: fwait
  ENDTRY
  CHECK(exc_vec, $MF)
  CHECK(exc_eip, $98b)
  fnclex
  fninit
  ret

simd:                             // SDM vol. 1 §11.5; MXCSR: ZM is bit 9
  movl $0x1d80, scratch
  ldmxcsr scratch
  FAULT("SSE divide by zero unmasked", XM, 0, "divps zero,%xmm0", "movaps one,%xmm0")
  FAULT3("SSE divide by zero unmasked in ring 3", XM, 0, "divss zero,%xmm0", "movaps one,%xmm0")
  CASE "destination stays, flag is set"
  movl $0x1d80, scratch
  ldmxcsr scratch
  TRY
  movaps one, %xmm1
  divps zero, %xmm1
  ENDTRY
  movss %xmm1, scratch
  CHECK(scratch, $0x3f800000)
  stmxcsr scratch
  CHECK(scratch, $0x1d84)
  mov $0x200, %eax
  mov %eax, %cr4
  FAULT("the same without OSXMMEXCPT", UD, 0, "divps zero,%xmm0", "movaps one,%xmm0")
  mov $0x600, %eax
  mov %eax, %cr4
  movl $0x10000, scratch
  FAULT("LDMXCSR with a reserved bit", GP, 0, "ldmxcsr scratch")
  movl $0x1f80, scratch
  ldmxcsr scratch
  FAULT("MOVAPS from an odd place", GP, 0, "movaps one+4,%xmm0")
  FAULT("MOVAPS from an odd place of the stack", GP, 0, "movaps 4(%esp),%xmm0", "and $-16,%esp")
  FAULT("MULPS from an odd place", GP, 0, "mulps one+8,%xmm0")
  PASS("MOVUPS from an odd place", "movups one+4,%xmm0")
  FAULT("FXSAVE to an odd place", GP, 0, "fxsave fxarea+8")
  movl $0xffff0000, fxarea+24
  FAULT("FXRSTOR with reserved MXCSR bits", GP, 0, "fxrstor fxarea", "fxsave fxarea; movl $-1,fxarea+24")
  ret

control_registers:                // SDM vol. 3A §2.5, vol. 2B MOV to CR
  FAULT("RDMSR of no MSR", GP, 0, "rdmsr", "mov $0x12345678,%ecx")
  FAULT("WRMSR of no MSR", GP, 0, "wrmsr", "mov $0x12345678,%ecx; xor %eax,%eax; xor %edx,%edx")
  FAULT("WRMSR: reserved bit of EFER", GP, 0, "wrmsr", "mov $0xc0000080,%ecx; mov $0x40000000,%eax; xor %edx,%edx")
  CASE "CR0.ET stays set"
  mov %cr0, %eax
  and $~0x10, %eax
  mov %eax, %cr0
  mov %cr0, %eax
  and $0x10, %eax
  CHECK(%eax, $0x10)
  CASE "LMSW sets but cannot clear PE"
  mov $0, %eax
  lmsw %ax
  smsw %eax
  and $0xf, %eax
  CHECK(%eax, $1)
  mov %cr0, %eax
  or $2, %eax
  mov %eax, %cr0
  ret

fetch_limit:                      // SDM vol. 3A §5.3: the whole instruction must lie within the limit
  SEGMENT_AT CODESEG, limited, (limited_end - limited - 1), 0x9b, 4
  CASE "running off the segment limit"
  TRY
  ljmp $CODESEG, $0
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_err, $0)
  CHECK(exc_eip, $(limited_end - limited))
  CHECK(exc_cs, $CODESEG)
  CHECK(exc_ebx, $0x55)
  SEGMENT_AT CODESEG, limited, (limited_end - limited - 2), 0x9b, 4
  CASE "instruction across the segment limit"
  TRY
  ljmp $CODESEG, $0
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_err, $0)
  CHECK(exc_eip, $(limited_last - limited))
  SEGMENT_AT CODESEG, limited, (limited_end - limited - 1), 0x9b, 4
  CASE "near jump beyond the limit faults at the jump"
  TRY
  ljmp $CODESEG, $(limited_jump - limited)
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_err, $0)
  CHECK(exc_eip, $(limited_jump - limited))
  CASE "far jump beyond the limit faults at the jump"
  TRY
98: ljmp $CODESEG, $(limited_end - limited)
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_err, $0)
  CHECK(exc_eip, $98b)
  CHECK(exc_cs, $CODE0)
  ret
limited:
  mov $0x55, %ebx
  jmp limited_last
limited_jump:
  jmp limited_far
limited_last:
  mov $0x66, %ecx
limited_end:
  ud2                             // where a processor without limits gets
  .skip 256, 0x90
limited_far:
  ud2

saved_eip:
  .macro TRAP name, vec, insn, pre
  CASE "\name"
  TRY
  \pre
  \insn
98:
  ENDTRY
  CHECKm 101, exc_vec, $\vec
  CHECKm 101, exc_eip, $98b
  .endm
  TRAP "INT3 saves the next EIP", BP_, "int3"
  TRAP "CD 03 saves the next EIP", BP_, ".byte 0xcd,3"
  TRAP "INTO saves the next EIP", OF, "into", "mov $0x7fffffff,%eax; inc %eax"
  TRAP "INT n saves the next EIP", 0x55, "int $0x55"
  TRAP "ICEBP saves the next EIP", DB, ".byte 0xf1"
  PASS("INTO without OF", "xor %eax,%eax; into")
  FAULT("BOUND saves its own EIP", BR, 0, "bound %eax,scratch+8", "movl $1,scratch+8; movl $5,scratch+12; mov $6,%eax")
  FAULT("BOUND below", BR, 0, "bound %eax,scratch+8", "mov $-1,%eax")
  PASS("BOUND at both bounds", "mov $1,%eax; bound %eax,scratch+8; mov $5,%eax; bound %eax,scratch+8")
  FAULT3("INT n in ring 3 through a gate of DPL 0", GP, (0x55*8+2), "int $0x55")
  FAULT3("INT3 in ring 3 through a gate of DPL 0", GP, (3*8+2), "int3")
  FAULT3("INTO in ring 3 through a gate of DPL 0", GP, (4*8+2), "into", "mov $0x7fffffff,%eax; inc %eax")
  CASE "ICEBP in ring 3 needs no DPL"
  TRY
  TO_RING3
  .byte 0xf1
98:
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CASE "fault sets RF in the saved EFLAGS"
  TRY
  ud2
  ENDTRY
  mov exc_efl, %eax
  and $0x10000, %eax
  CHECK(%eax, $0x10000)
  CASE "trap leaves RF clear in the saved EFLAGS"
  TRY
  int $0x55
  ENDTRY
  mov exc_efl, %eax
  and $0x10000, %eax
  CHECK(%eax, $0)
  ret

priorities:                       // SDM vol. 3A table 6-2
  SEGMENT SMALLDATA, 0, 0xf, 0x93, 4
  mov $SMALLDATA, %eax
  mov %eax, %fs
  FAULT("#UD of LOCK before the limit check", UD, 0, ".byte 0xf0,0x64,0x89,0x05; .long 0x100", "mov $SMALLDATA,%eax; mov %eax,%fs")
  FAULT("#NM before the limit check", NM, 0, "fldl %fs:0x100", "mov $SMALLDATA,%eax; mov %eax,%fs; mov %cr0,%eax; or $8,%eax; mov %eax,%cr0")
  clts
  FAULT("limit check", GP, 0, "mov %fs:0x10,%eax", "mov $SMALLDATA,%eax; mov %eax,%fs")
  FAULT("limit check of the last byte", GP, 0, "mov %fs:0xd,%eax", "mov $SMALLDATA,%eax; mov %eax,%fs")
  FAULT("SIMD limit check before alignment: both #GP", GP, 0, "movaps %fs:0x11,%xmm0", "mov $SMALLDATA,%eax; mov %eax,%fs")
  FAULT("DIV: operand's fault before #DE", GP, 0, "divl %fs:0x100", "mov $SMALLDATA,%eax; mov %eax,%fs; mov $1,%edx")
  FAULT("BOUND: operand's fault before #BR", GP, 0, "bound %eax,%fs:0x100", "mov $SMALLDATA,%eax; mov %eax,%fs; mov $-1,%eax")
  FAULT("CALL: operand's fault", GP, 0, "call *%fs:0x100", "mov $SMALLDATA,%eax; mov %eax,%fs")
  ret

  .section .bss
  .align 16
fxarea: .skip 512 + 16
scratch: .skip 64
  .section .rodata
  .align 16
one: .long 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000
zero: .long 0, 0, 0, 0
