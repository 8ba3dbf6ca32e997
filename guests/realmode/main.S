// Real-address mode: addressing, limits, interrupts, A20, unreal mode. SDM vol. 3A ch. 20.1, vol. 2.
// Each case runs a piece of 16-bit code with CS = DS = ES = SS = 0, which leaves its findings in cells that the 32-bit
// side checks. An exception ends the piece; vector, IP and pushed frame are noted.
#include "guest.inc"
GUEST "realmode"

// REAL label: runs it in real mode. Pieces end with a jump to real_end.
.macro REAL entry
  mov $\entry, %eax
  call go_real
.endm
.macro PIECE
  .pushsection .low, "ax"
  .code16
.endm
.macro ENDPIECE_PE                // of a piece that has set CR0.PE
  jmp pe_end
  .popsection
  .code32
.endm
.macro ENDPIECE
  ljmp $0, $real_end
  .popsection
  .code32
.endm
// One faulting instruction in real mode.
.macro RFAULTm line, name, vec, insn, pre
  PIECE
.Lr\@: \pre
.Ls\@: \insn
  ENDPIECE
  CASE "\name"
  REAL .Lr\@
  CHECKm \line, r_vec, $\vec
  CHECKm \line, r_ip, $.Ls\@
.endm
// A piece whose findings are EBX (and ECX).
.macro RVALUEm line, name, want, insn
  PIECE
.Lr\@: \insn
  ENDPIECE
  CASE "\name"
  REAL .Lr\@
  CHECKm \line, r_vec, $NONE
  CHECKm \line, r_ebx, $(\want)
.endm
#define RFAULT(...) RFAULTm __LINE__, __VA_ARGS__
#define RVALUE(...) RVALUEm __LINE__, __VA_ARGS__

  .code32
guest_main:
  call ivt_init
  call addressing
  call limits
  call interrupts
  call operands
  call strings
  call undefined
  call machine_status
  call unreal
  call a20
  FINISH

ivt_init:
  xor %edi, %edi
  mov $r_stubs, %eax
  mov $256, %ecx
1: stosl
  add $8, %eax
  loop 1b
  ret

go_real:
  pusha
  mov %eax, r_entry
  movl $NONE, r_vec
  movl $0, r_ip
  mov %esp, r_esp32
  lidt r_ivt
  ljmp $CODE16, $to_real
  .pushsection .low, "ax"
  .code16
to_real:
  mov $DATA16, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %fs
  mov %ax, %gs
  mov %ax, %ss
  mov %cr0, %eax
  and $~1, %al
  mov %eax, %cr0
  ljmp $0, $1f
1: xor %eax, %eax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %fs
  mov %ax, %gs
  mov %ax, %ss
  mov $0x7000, %esp
  push $0x0002
  popf
  jmp *r_entry
real_end:
  cli
  cld
  mov %ebx, %cs:r_ebx
  mov %ecx, %cs:r_ecx
  mov %edx, %cs:r_edx
  mov %esi, %cs:r_esi
  mov %edi, %cs:r_edi
back:
  lidtl %cs:r_idtr                // the PM tables
  lgdtl %cs:r_gdtr
  mov %cr0, %eax
  or $1, %al
  mov %eax, %cr0
  ljmpl $CODE0, $from_real
pe_end:                           // CS is no place to write to from protected mode
  mov $DATA16, %ax
  mov %ax, %ds
  mov %ebx, r_ebx
  mov %ecx, r_ecx
  jmp back
  .balign 8
r_stubs:
  .set v, 0
  .rept 256
  .balign 8, 0x90
  push $v
  jmp r_exception
  .set v, v + 1
  .endr
r_exception:                      // vector, IP, CS, FLAGS: without touching DS, on whatever stack
  mov %eax, %cs:r_eax
  pop %ax
  movzbl %al, %eax
  mov %eax, %cs:r_vec
  mov %sp, %cs:r_sp
  pop %ax
  mov %ax, %cs:r_ip
  pop %ax
  mov %ax, %cs:r_cs
  pop %ax
  mov %ax, %cs:r_flags
  pushf
  pop %ax
  mov %ax, %cs:r_hflags
  jmp real_end
  .balign 4
r_ivt: .word 0x3ff
  .long 0
  .balign 4
r_idtr: .word 256*8-1
  .long idt
  .balign 4
r_gdtr: .word gdt_end - gdt - 1
  .long gdt
  .balign 4
r_entry: .long 0
r_vec: .long 0
r_ip: .long 0
r_cs: .long 0
r_sp: .long 0
r_flags: .long 0
r_hflags: .long 0
r_eax: .long 0
r_ebx: .long 0
r_ecx: .long 0
r_edx: .long 0
r_esi: .long 0
r_edi: .long 0
r_esp32: .long 0
  .popsection
  .code32
from_real:
  mov $DATA0, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov %eax, %fs
  mov %eax, %gs
  mov r_esp32, %esp
  lidt idtr
  popa
  ret

#include "basic.inc"
#include "modes.inc"
