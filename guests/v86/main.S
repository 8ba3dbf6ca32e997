// Virtual-8086 mode, with and without VME. SDM vol. 3A ch. 20; vol. 2A CLI, INT n, IRET; vol. 2B POPF, PUSHF, STI.
#include "guest.inc"
GUEST "v86"
.set VM, 0x20000
.set IOPL3, 0x3000
.set IF_, 0x200
.set VIF, 0x80000
.set VIP, 0x100000
.set S1, FREE
.set CONF0, FREE + 0x08
.set CODE1, FREE + 0x10
.set T2, FREE + 0x18
.set REDIRECT, tss + 104          // one bit for each vector, below the I/O map

// Goes to 16-bit code in .low, CS = DS = ES = SS = 0, SP = 7000; FS and GS are marks.
.macro ENTER entry, flags=0
  push $0x6666                    // GS
  push $0x5555                    // FS
  push $0                         // DS
  push $0                         // ES
  push $0                         // SS
  push $0x7000
  push $(VM + 2 + \flags)
  push $0
  push $\entry
  iret
.endm
// Code in virtual-8086 mode, up to its fault; VOK: up to the HLT behind it, which is the end of all of them.
.macro VFAULTm line, name, flags, vec, err, insn, pre
  .pushsection .low, "ax"
  .code16
.Lv\@: \pre
.Lw\@: \insn
  hlt
  .popsection
  .code32
  CASE "\name"
  TRY
  ENTER .Lv\@, \flags
  ENDTRY
  CHECKm \line, exc_vec, $\vec
  CHECKm \line, exc_err, $(\err)
  CHECKm \line, exc_eip, $.Lw\@
.endm
.macro VOKm line, name, flags, insn
  .pushsection .low, "ax"
  .code16
.Lv\@: \insn
.Lw\@: hlt
  .popsection
  .code32
  CASE "\name"
  TRY
  ENTER .Lv\@, \flags
  ENDTRY
  CHECKm \line, exc_vec, $GP
  CHECKm \line, exc_err, $0
  CHECKm \line, exc_eip, $.Lw\@
.endm
#define VFAULT(...) VFAULTm __LINE__, __VA_ARGS__
#define VOK(...) VOKm __LINE__, __VA_ARGS__
.macro EFL_IS mask, want
  mov exc_efl, %eax
  and $(\mask), %eax
  CHECK(%eax, $(\want))
.endm

  .code32
guest_main:
  SEGMENT CONF0, 0, 0xfffff, 0x9f, 0xc
  SEGMENT CODE1, 0, 0xfffff, 0xbb, 0xc
  xor %edi, %edi                  // an IVT of HLTs, so that nothing runs away
  mov $256, %ecx
  mov $stray, %eax
  rep stosl
  call entry_and_frame
  call addressing
  call sensitive
  call interrupts
  call forbidden
  call ports
  call exits
  call vme
  call pvi
  FINISH

  .section .low, "ax"
  .code16
stray: hlt
  .text
  .code32

entry_and_frame:
  CASE "frame of nine words, segments null in the handler"
  TRY
  ENTER stray, IOPL3
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_kesp, $(ring0_stack_top - 36))
  CHECK(exc_eip, $stray)
  CHECK(exc_cs, $0)
  CHECK(exc_esp3, $0x7000)
  CHECK(exc_ss3, $0)
  CHECK(exc_vfs, $0x5555)
  CHECK(exc_vgs, $0x6666)
  CHECK(exc_ds, $0)
  CHECK(exc_es, $0)
  CHECK(exc_fs, $0)
  CHECK(exc_gs, $0)
  EFL_IS 0x33000, 0x33000         // VM, IOPL, and RF of a fault
  mov exc_hfl, %eax
  and $0x23000, %eax
  CHECK(%eax, $0x3000)
  CASE "IRET in ring 3 does not enter it"
  TRY
  TO_RING3
  push $VM + 2
  push $CODE3
  push $1f
  iret
1: int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  EFL_IS VM, 0
  CASE "EIP beyond 64 KiB: #GP(0)"
  TRY
  ENTER 0x10000
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_err, $0)
  CASE "PUSHF in ring 0 shows VM clear"
  pushf
  pop %eax
  and $VM, %eax
  CHECK(%eax, $0)
  CASE "by a task switch"
  SEGMENT_AT T2, t2, 103, 0x89, 0
  movl $stray, t2+32
  movl $VM + 2, t2+36
  movl $0x6ff0, t2+56
  movl $ring0_stack_top - 256, t2+4
  movl $DATA0, t2+8
  movl $0x1234, t2+72
  movw $104, t2+102
  TRY
  ljmp $T2, $0
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_eip, $stray)
  CHECK(exc_ves, $0x1234)
  CHECK(exc_kesp, $(ring0_stack_top - 256 - 36))
  movb $0x89, gdt+TSS0+5
  mov $TSS0, %eax
  ltr %ax
  clts
  ret

addressing:
  CASE "segment times 16"
  movl $0x13579bdf, 0x9234
  .pushsection .low, "ax"
  .code16
.Lseg: mov $0x923, %ax
  mov %ax, %ds
  mov 4, %ebx
  hlt
  .popsection
  .code32
  TRY
  ENTER .Lseg
  ENDTRY
  CHECK(exc_ebx, $0x13579bdf)
  CHECK(exc_vds, $0x923)
  VFAULT("word at FFFF", 0, GP, 0, "mov 0xffff,%ax")
  VFAULT("dword at FFFD", 0, GP, 0, "mov 0xfffd,%eax")
  VOK("byte at FFFF", 0, "mov 0xffff,%al")
  VFAULT("word at FFFF of the stack", 0, SS, 0, "mov (%bp),%ax", "mov $0xffff,%bp")
  VFAULT("32-bit address beyond 64 KiB", 0, GP, 0, "addr32 mov (%ebx),%al", "mov $0x10000,%ebx")
  VFAULT("PUSH at SP 1", 0, SS, 0, "push %ax", "mov $1,%sp")
  VOK("PUSH at SP 0 wraps", 0, "xor %sp,%sp; push %ax; mov $0x7000,%sp")
  VFAULT("jump beyond 64 KiB", 0, GP, 0, "jmpl *%eax", "mov $0x10000,%eax")
  VOK("code segment can be written", 0, "mov %cs:.Lany,%al; mov %al,%cs:.Lany")
  CASE "FFFF:10 and above is beyond 1 MiB" // no wrap with A20 on
  .pushsection .low, "ax"
  .code16
.Lhigh: mov $0xffff, %ax
  mov %ax, %ds
  mov 0x30, %bl
  hlt
.Lany: .byte 0
  .popsection
  .code32
  TRY
  ENTER .Lhigh
  ENDTRY
  movzbl 0x100020, %eax
  movzbl exc_ebx, %ebx
  CHECK(%ebx, %eax)
  CASE "segment loads never fault"
  .pushsection .low, "ax"
  .code16
.Lloads: mov $0xfff8, %ax
  mov %ax, %fs
  mov %ax, %gs
  mov $3, %ax
  mov %ax, %es
  hlt
  .popsection
  .code32
  TRY
  ENTER .Lloads
  ENDTRY
  CHECK(exc_vfs, $0xfff8)
  CHECK(exc_ves, $3)
  CASE "far jump and far call are as in real mode"
  .pushsection .low, "ax"
  .code16
.Lfar: lcall $0x10, $.Lfar2 - 0x100
  hlt
.Lfar2: mov %cs, %bx
  mov %sp, %cx
  hlt
  .popsection
  .code32
  TRY
  ENTER .Lfar
  ENDTRY
  movzwl exc_ebx, %eax
  CHECK(%eax, $0x10)
  movzwl exc_ecx, %eax
  CHECK(%eax, $0x6ffc)
  CHECK(exc_cs, $0x10)
  ret

sensitive:                        // §20.2.7: IOPL-sensitive without VME
  .irp i, "cli", "sti", "pushf", "popf", "pushfl", "popfl", "int $0x30", "iret", "iretl"
  VFAULTm 100, "IOPL 0: \i", 0, GP, 0, "\i"
  .endr
  VOK("IOPL 3: CLI, STI, PUSHF, POPF", IOPL3, "cli; sti; nop; pushf; popf; pushfl; popfl; cli")
  CASE "IOPL 3: CLI and STI change IF"
  .pushsection .low, "ax"
  .code16
.Lif: sti
  nop
  pushf
  pop %bx
  cli
  pushf
  pop %cx
  hlt
  .popsection
  .code32
  TRY
  ENTER .Lif, IOPL3
  ENDTRY
  mov exc_ebx, %eax
  and $0x3200, %eax
  CHECK(%eax, $0x3200)
  mov exc_ecx, %eax
  and $0x200, %eax
  CHECK(%eax, $0)
  CASE "IOPL 3: POPF changes neither IOPL nor VM"
  .pushsection .low, "ax"
  .code16
.Lpopf: pushl $0x00000ad7
  popfl
  hlt
  .popsection
  .code32
  TRY
  ENTER .Lpopf, IOPL3
  ENDTRY
  EFL_IS 0x23ad7, 0x23ad7
  CASE "IOPL 3: IRET goes on in virtual-8086 mode, IOPL stays"
  .pushsection .low, "ax"
  .code16
.Liret: push $0x0202
  push $0x20
  push $.Liret2 - 0x200
  iret
.Liret2: hlt
  .popsection
  .code32
  TRY
  ENTER .Liret, IOPL3
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_cs, $0x20)
  EFL_IS 0x23200, 0x23200
  CHECK(exc_esp3, $0x7000)
  ret

interrupts:
  CASE "IOPL 3: INT n through a gate of DPL 3"
  .pushsection .low, "ax"
  .code16
.Lint: int $EXIT
.Lint2: hlt
  .popsection
  .code32
  TRY
  ENTER .Lint, IOPL3
  ENDTRY
  CHECK(exc_vec, $EXIT)
  CHECK(exc_eip, $.Lint2)
  CHECK(exc_kesp, $(ring0_stack_top - 36))
  VFAULT("IOPL 3: INT n through a gate of DPL 0", IOPL3, GP, 0x41*8+2, "int $0x41")
  VFAULT("INT3 through a gate of DPL 0", 0, GP, 3*8+2, "int3")
  UNGATE BP_, 0xee
  CASE "INT3 through a gate of DPL 3 whatever IOPL"
  .pushsection .low, "ax"
  .code16
.Lbp: int3
.Lbp2: hlt
  .popsection
  .code32
  TRY
  ENTER .Lbp
  ENDTRY
  CHECK(exc_vec, $BP_)
  CHECK(exc_eip, $.Lbp2)
  UNGATE BP_
  GATE 0x41, (exc_stubs + 16*0x41), 0xee, CONF0
  VFAULT("gate to conforming code", IOPL3, GP, CONF0, "int $0x41")
  GATE 0x41, (exc_stubs + 16*0x41), 0xee, CODE1
  VFAULT("gate to ring 1", IOPL3, GP, CODE1, "int $0x41")
  UNGATE 0x41
  VFAULT("#DE", 0, DE, 0, "div %cl", "xor %cx,%cx")
  VFAULT("#UD", 0, UD, 0, "ud2")
  VFAULT("#BR", 0, BR, 0, "bound %ax,.Lany2", "jmp 7f; .Lany2: .word 5,6; 7: xor %ax,%ax")
  GATE UD, back_to_v86
  VOK("IRET from the handler goes back to it", 0, "ud2; mov $0x77,%bl")
  UNGATE UD
  CHECK(exc_vfs, $0x5555)
  CASE "16-bit interrupt gate from it"
  SEGMENT_AT S1, handler16, 0xffff, 0x9b, 4
  GATE 0x41, 0, 0xe6, S1
  TRY
  .pushsection .low, "ax"
  .code16
.Lint16: int $0x41
  hlt
  .popsection
  .code32
  ENTER .Lint16, IOPL3
  ENDTRY
  CHECK(exc_vec, $0x42)
  CHECK(exc_ecx, $(ring0_stack_top - 18))
  UNGATE 0x41
  ret
back_to_v86:
  addl $2, (%esp)
  iret
handler16:
  mov %esp, %ecx
  int $0x42

forbidden:
  .irp i, "hlt", "clts", "lmsw %ax", "mov %cr0,%eax", "mov %eax,%cr0", "mov %dr0,%eax", "rdmsr", "wrmsr", "invd", "wbinvd"
  VFAULTm 100, "ring 0 instruction: \i", IOPL3, GP, 0, "\i"
  .endr
  VFAULT("LGDT", IOPL3, GP, 0, "lgdt .Lany")
  VFAULT("LIDT", IOPL3, GP, 0, "lidt .Lany")
  .irp i, "lldt %ax", "ltr %ax", "sldt %ax", "str %ax", "lar %ax,%bx", "lsl %ax,%bx", "verr %ax", "verw %ax", "arpl %ax,%bx"
  VFAULTm 100, "not recognized: \i", IOPL3, UD, 0, "\i"
  .endr
  VOK("SMSW, SGDT, SIDT are free", 0, "smsw %ax; sgdt .Lroom; sidt .Lroom; jmp 7f; .Lroom: .skip 8; 7:")
  ret

ports:                            // the map alone decides, IOPL does not
  VFAULT("closed port with IOPL 3", IOPL3, GP, 0, "in $0x80,%al")
  movb $0xfe, tss+104+32+0x10
  VOK("open port with IOPL 0", 0, "in $0x80,%al; out %al,$0x80")
  VFAULT("half open", 0, GP, 0, "in $0x80,%ax")
  movb $0xff, tss+104+32+0x10
  ret

exits:
  CASE "TF: single step"
  .pushsection .low, "ax"
  .code16
.Ltf: mov $0x12, %bl
.Ltf2: hlt
  .popsection
  .code32
  TRY
  ENTER .Ltf, 0x100
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $.Ltf2)
  mov $0xffff0ff0, %eax
  mov %eax, %dr6
  CASE "fault of the limit in code: EIP runs over FFFF"
  movb $0x90, 0xffff
  TRY
  ENTER 0xffff
  ENDTRY
  CHECK(exc_vec, $GP)
  CHECK(exc_eip, $0x10000)
  ret

#include "vme.inc"

  .section .bss
  .align 16
t2: .skip 104 + 8
