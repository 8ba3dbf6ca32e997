// Hardware task switches, 32-bit and 16-bit. SDM vol. 3A ch. 7, table 7-1, 7-2; 6.15 #TS.
#include "guest.inc"
GUEST "tasks"
.set T2, FREE                     // a 32-bit task
.set T16, FREE + 0x08             // a 16-bit task
.set TGATE, FREE + 0x10           // task gate
.set LDT2, FREE + 0x18            // the second task's LDT
.set S1, FREE + 0x20
.set CODE16B, FREE + 0x28         // 16-bit code with the base of task16
.set OUTSIDE, 0x1000
.set FIRST, TSS0

  .code32
// Fills the second task's TSS: flat ring 0, recognisable registers. Both descriptors as if never run.
.macro SETUP entry, cr3=0
  mov $\entry, %eax
  call setup
.endm
setup:
  mov $t2, %edi
  mov %eax, %ebx
  xor %eax, %eax
  mov $26, %ecx
  rep stosl
  mov %ebx, t2+32
  movl $0x8d7, t2+36              // CF PF AF ZF SF OF
  movl $0x11, t2+40               // EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI
  movl $0x22, t2+44
  movl $0x33, t2+48
  movl $0x44, t2+52
  movl $t2_stack, t2+56
  movl $0x66, t2+60
  movl $0x77, t2+64
  movl $0x88, t2+68
  movl $DATA0, t2+72              // ES, CS, SS, DS, FS, GS
  movl $CODE0, t2+76
  movl $DATA0, t2+80
  movl $DATA0, t2+84
  movl $DATA0, t2+88
  movl $DATA3, t2+92
  movl $LDT2, t2+96
  movw $104, t2+102
  mov %cr3, %eax
  mov %eax, t2+28
  SEGMENT_AT T2, t2, 103, 0x89, 0
  SEGMENT_AT LDT2, ldt2, 15, 0x82, 0
  movb $0x8b, gdt+FIRST+5
  movw $0, tss
  clts
  ret
// Makes the first task current again by hand, after a test that stayed in another one.
.macro RESET
  call reset
.endm
reset:
  push %eax
  pushf
  andl $~0x4000, (%esp)
  popf
  clts
  movb $0x89, gdt+FIRST+5
  mov $FIRST, %eax
  ltr %ax
  xor %eax, %eax
  lldt %ax
  pop %eax
  ret
// Notes what a task finds when it begins, then INT 0x40 to the test.
.macro NOTE
  mov %eax, %cs:seen
.endm

guest_main:
  movl $0x00cf9300, ldt2+12
  movl $0x0000ffff, ldt2+8
  SEGMENT_AT CODE16B, task16, 0xffff, 0x9b, 0
  call jumps
  call calls
  call interrupts
  call privilege
  call faults
  call late_faults
  call trap_bit
  call sixteen
  FINISH

#include "switch.inc"
#include "fault.inc"

  .section .bss
  .align 16
t2: .skip 104 + 8
t16: .skip 64
ldt2: .skip 16
  .skip 1024
t2_stack: .skip 32
  .skip 1024
t16_stack: .skip 32
seen: .skip 64
far: .skip 8
