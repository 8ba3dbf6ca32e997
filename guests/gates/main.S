// Control transfers: call gates, interrupt and trap gates, far jumps and returns, IRET, nested exceptions.
// SDM vol. 3A §5.8, ch. 6; vol. 2A CALL, INT n, IRET; vol. 2B RET.
#include "guest.inc"
GUEST "gates"
.set CG, FREE                     // call gate under test
.set S1, FREE + 0x08
.set CONF0, FREE + 0x10           // conforming code, DPL 0
.set CODE1, FREE + 0x18           // ring 1
.set DATA1, FREE + 0x20
.set OUTSIDE, 0x1000
.set DFTSS, FREE + 0x28

  .code32
// CALLGATE target, code selector, access byte, number of parameters
.macro CALLGATE target, code, type, count=0
  mov $\target, %eax
  mov %ax, gdt+CG
  movw $\code, gdt+CG+2
  movb $\count, gdt+CG+4
  movb $\type, gdt+CG+5
  shr $16, %eax
  mov %ax, gdt+CG+6
.endm

guest_main:
  SEGMENT CONF0, 0, 0xfffff, 0x9f, 0xc
  SEGMENT CODE1, 0, 0xfffff, 0xbb, 0xc
  SEGMENT DATA1, 0, 0xfffff, 0xb3, 0xc
  movl $ring0_stack_top - 1024, tss+12      // ESP1
  movl $DATA1 + 1, tss+16
  call double_fault_task
  call call_gates
  call call_gate_faults
  call gates16
  call far_jumps
  call far_returns
  call interrupt_gates
  call interrupt_faults
  call irets
  call iret_faults
  call nested
  FINISH

// #DF gets a task, so that one on a broken stack can be seen.
double_fault_task:
  movl $df_entry, dftss+32
  movl $2, dftss+36
  movl $df_stack_top, dftss+56
  movl $CODE0, dftss+76
  .irp o, 72, 80, 84, 88, 92
  movl $DATA0, dftss+\o
  .endr
  movw $104, dftss+102
  SEGMENT_AT DFTSS, dftss, 103, 0x89, 0
  GATE DF, 0, 0x85, DFTSS
  ret
df_entry:                         // records, makes the first task's TSS free again, and resumes
  popl exc_err
  movl $DF, exc_vec
  mov tss+32, %eax
  mov %eax, exc_eip
  mov tss+56, %eax
  mov %eax, exc_esp3
  incl df_count
  mov exc_resume, %ebx
  movl $0, exc_resume
  mov exc_saved_sp, %esp
  pushf
  andl $~0x4000, (%esp)           // NT
  popf
  clts
  movl $df_entry, dftss+32
  movb $0x89, gdt+TSS0+5
  mov $TSS0, %eax
  ltr %ax
  movb $0x89, gdt+DFTSS+5
  jmp *%ebx

#include "callgates.inc"
#include "interrupts.inc"

  .section .bss
  .align 16
scratch: .skip 64
far: .skip 8
df_count: .skip 4
dftss: .skip 104 + 8
  .skip 1024
df_stack_top: .skip 16
stack16: .skip 512
stack16_top: .skip 16
