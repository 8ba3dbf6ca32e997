// Single step, breakpoints, debug registers, alignment checks, in 64-bit mode.
// SDM vol. 3B ch. 17.2, 17.3; vol. 3A §6.8.3, 6.15 (#DB, #AC).
#define LONG
#include "guest.inc"
GUEST "debug"
#include "breakpoints.inc"

  .code64
guest_main:
  call single_step
  call registers
  call data_breakpoints
  call code_breakpoints
  call general_detect
  call after_mov_ss
  call alignment
  FINISH

single_step:
  CLEAR6
  CASE "TF: trap after the next instruction, BS"
  TRY
  STEP
  mov $0x55, %ebx
98: mov $0x66, %ebx
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CHECK(exc_ebx, $0x55)
  DR6_IS BS
  mov exc_efl, %rax
  and $0x10100, %eax
  CHECK(%rax, $0x100)             // TF in the frame, RF not
  mov exc_hfl, %rax
  and $0x100, %eax
  CHECK(%rax, $0)
  CLEAR6
  CASE "TF in ring 3"
  TRY
  TO_RING3 0x102
  nop
98: nop
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CHECK(exc_cs, $CODE3)
  TRAPS "TF: a taken jump traps at its target", BS, "jmp 98f; nop", STEP
  CASE "TF: INT n enters its handler without a trap"
  TRY
  STEP
  int $0x50
98:
  ENDTRY
  CHECK(exc_vec, $0x50)
  CHECK(exc_eip, $98b)
  mov exc_efl, %rax
  and $0x100, %eax
  CHECK(%rax, $0x100)
  CASE "TF: IRET back, trap after the instruction behind"
  GATE 0x51, plain
  CLEAR6
  TRY
  STEP
  int $0x51
  mov $0x77, %ebx
98: mov $0x88, %ebx
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CHECK(exc_ebx, $0x77)
  CASE "TF: a fault comes as itself"
  CLEAR6
  TRY
  STEP
98: ud2
  ENDTRY
  CHECK(exc_vec, $UD)
  CHECK(exc_eip, $98b)
  DR6_IS 0
  CASE "TF: REP STOSB traps after each element"
  TRY
  mov $scratch, %edi
  mov $5, %ecx
  STEP
98: rep stosb
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CHECK(exc_ecx, $4)
  CHECK(exc_edi, $(scratch + 1))
  TRAPS "TF: last element traps behind the instruction", BS, "rep stosb", "mov $scratch,%edi; mov $1,%ecx; STEP"
  TRAPS "TF: over MOV SS, and the instruction behind it", BS, "mov %eax,%ss; nop", "mov $DATA0,%eax; STEP"
  TRAPS "TF: over POP FS, no shadow", BS, "pop %fs", "push $0; STEP"
  TRAPS "TF: over STI, no shadow for traps", BS, "sti", STEP
  cli
  TRAPS "TF: POPF that clears it still traps", BS, "popf", "push $2; STEP"
  TRAPS "TF: CPUID", BS, "cpuid", STEP
  TRAPS "TF: OUT", BS, "out %al,$0x80", STEP
  TRAPS "TF: WRMSR", BS, "wrmsr", "mov $0xc0000101,%ecx; xor %eax,%eax; xor %edx,%edx; STEP"
  TRAPS "TF: MOV to CR3", BS, "mov %rax,%cr3", "mov %cr3,%rax; STEP"
  TRAPS "TF: store that changes the next instruction's page", BS, "mov %al,98f", "mov $0x90,%al; STEP"
  CASE "TF: SYSCALL with TF in its mask goes on without a trap"
  mov $0xc0000080, %ecx
  rdmsr
  or $1, %eax
  wrmsr
  mov $0xc0000081, %ecx
  xor %eax, %eax
  mov $0x001b0008, %edx
  wrmsr
  mov $0xc0000082, %ecx
  mov $syscall_target, %eax
  xor %edx, %edx
  wrmsr
  mov $0xc0000084, %ecx
  mov $0x700, %eax
  wrmsr
  CLEAR6
  TRY
  TO_RING3
  STEP
  syscall
  ENDTRY
  CHECK(exc_vec, $0x52)
  mov exc_r11, %rax
  and $0x100, %eax
  CHECK(%rax, $0x100)
  CASE "TF: SYSCALL that keeps TF traps at its target"
  mov $0xc0000084, %ecx
  xor %eax, %eax
  xor %edx, %edx
  wrmsr
  CLEAR6
  TRY
  TO_RING3
  STEP
  syscall
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $syscall_target)
  CHECK(exc_cs, $CODE0)
  CLEAR6
  ret
plain:
  iretq
syscall_target:
  int $0x52

registers:
  CASE "DR7: bit 10 is one, bits 11, 12, 14, 15 are zero"
  mov $0xd800, %eax
  and $~0x0800, %eax              // bit 11 is RTM's on some processors
  mov %rax, %dr7
  mov %dr7, %rax
  and $0xd400, %eax
  CHECK(%rax, $0x400)
  DISARM
  CASE "DR6: fixed ones and zero"
  xor %eax, %eax
  mov %rax, %dr6
  mov %dr6, %rax
  and $0xfffe17f0, %eax           // bits 11 (BLD) and 16 (RTM) belong to later features
  mov $0xfffe07f0, %ebx
  CHECK(%rax, %rbx)
  CLEAR6
  FAULT("DR6: upper half", GP, 0, "mov %rax,%dr6", "mov $1,%eax; shl $32,%rax")
  FAULT("DR7: upper half", GP, 0, "mov %rax,%dr7", "mov $1,%eax; shl $32,%rax")
  CASE "DR0 to DR3 have 64 bits"
  movabs $0x123456789abcdef0, %rbx
  mov %rbx, %dr3
  mov %dr3, %rax
  CHECK(%rax, %rbx)
  FAULT3("DR read in ring 3", GP, 0, "mov %dr0,%rax")
  CASE "DR4 and DR5 are DR6 and DR7 without CR4.DE"
  mov $0xffff0ff1, %eax
  mov %rax, %dr6
  .byte 0x0f, 0x21, 0xe0          // mov %dr4,%rax
  and $0xf, %eax
  CHECK(%rax, $1)
  .byte 0x0f, 0x21, 0xe8          // mov %dr5,%rax
  CHECK(%rax, $0x400)
  CLEAR6
  mov %cr4, %rax
  or $8, %eax
  mov %rax, %cr4
  FAULT("DR4 with CR4.DE", UD, 0, ".byte 0x0f,0x21,0xe0")
  FAULT("DR5 with CR4.DE", UD, 0, ".byte 0x0f,0x23,0xe8")
  ret

data_breakpoints:
  ARM 1, cells+8, 1, 3
  TRAPS "write of the watched dword", 2, "movl $1,cells+8"
  SILENT "read of it", "mov cells+8,%eax"
  SILENT "write before it", "movl $1,cells+4"
  SILENT "write behind it", "movb $1,cells+12"
  TRAPS "write of its last byte", 2, "movb $1,cells+11"
  TRAPS "write that overlaps", 2, "movq $1,cells+4"
  TRAPS "read-modify-write", 2, "incl cells+8"
  TRAPS "push", 2, "push %rax", "mov $cells+16,%esp"
  TRAPS "SSE store", 2, "movups %xmm0,cells"
  TRAPS "XADD", 2, "lock xadd %eax,cells+8"
  TRAPS "STOSB", 2, "stosb", "mov $cells+9,%edi"
  TRAPS "with TF: both bits", 0x4002, "movl $1,cells+8", STEP
  CASE "REP STOSB stops behind the element that hit"
  TRY
  mov $cells + 6, %edi
  mov $10, %ecx
98: rep stosb
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CHECK(exc_ecx, $7)
  CLEAR6
  ARM 2, cells+16, 3, 2
  TRAPS "access of the watched 8 bytes: read", 4, "movb cells+23,%al"
  TRAPS "access: write", 4, "movb %al,cells+16"
  SILENT "access: behind it", "movb cells+24,%al"
  ARM 3, cells+0x21, 3, 0
  TRAPS "one byte in the middle of a read", 8, "mov cells+0x20,%eax"
  SILENT "CMOV without a match still reads: word beside", "mov cells+0x22,%ax"
  ARM 0, cells+0x30, 1, 1
  mov %dr7, %rax
  and $~1, %eax
  or $2, %eax
  mov %rax, %dr7
  TRAPS "global enable is as good as local", 1, "movw $1,cells+0x30"
  ARM 0, cells+8, 1, 3
  CASE "in ring 3"
  TRY
  TO_RING3
  movl $1, cells+8
98: int $EXIT
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CLEAR6
  CASE "a write that faults does not trap"
  ARM 0, 0x3000, 1, 3
  TRY
  movabs $0xffff800000003000, %rbx
  movl $1, (%rbx)
  ENDTRY
  CHECK(exc_vec, $PF)
  DISARM
  CLEAR6
  SILENT "disabled", "movl $1,cells+8"
  ret

code_breakpoints:
  CASE "fault before the instruction"          // RF in its frame is 0 with Intel, 1 with AMD: not checked
  ARM 0, 98f, 0, 0
  TRY
  mov $1, %ebx
98: mov $2, %ebx
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  CHECK(exc_ebx, $1)
  DR6_IS 1
  CLEAR6
  CASE "IRET with RF goes over it, once"
  GATE DB, count_db
  movl $0, db_count
  mov $98f, %eax
  mov %rax, %dr0
  mov $3, %ecx
98: dec %ecx
  jnz 98b
  mov db_count, %eax
  CHECK(%rax, $3)                 // once for each time round
  UNGATE DB
  CASE "breakpoint in the middle of an instruction does not hit"
  mov $98f + 1, %eax
  mov %rax, %dr0
  CLEAR6
  TRY
98: mov $0x12345678, %ebx
  ENDTRY
  CHECK(exc_vec, $NONE)
  CASE "before a fault of the same instruction"
  mov $98f, %eax
  mov %rax, %dr0
  TRY
98: ud2
  ENDTRY
  CHECK(exc_vec, $DB)
  CASE "fault of the instruction saves RF"
  DISARM
  TRY
98: ud2
  ENDTRY
  mov exc_efl, %rax
  and $0x10000, %eax
  CHECK(%rax, $0x10000)
  CLEAR6
  ret
count_db:
  incl db_count
  orl $0x10000, 16(%rsp)
  iretq

general_detect:
  CASE "GD: any use of a debug register faults before it"
  CLEAR6
  mov $0x2400, %eax
  TRY
  mov %rax, %dr7
98: mov %dr0, %rax
  ENDTRY
  CHECK(exc_vec, $DB)
  CHECK(exc_eip, $98b)
  DR6_IS BD
  CASE "GD is cleared on the way"
  mov %dr7, %rax
  CHECK(%rax, $0x400)
  CLEAR6
  ret

after_mov_ss:
  movl $DATA0, cells+8
  ARM 1, cells+8, 3, 1
  TRAPS "MOV SS from watched memory: the trap waits for one instruction", 2, "mov cells+8,%ss; nop"
  CASE "and INT behind it goes first to its handler" // the pending #DB is delivered there
  TRY
  mov cells+8, %ss
  int $0x55
  ENDTRY
  mov exc_vec, %rax
  cmp $DB, %rax
  je 1f
  cmp $0x55, %rax
  je 1f
  CHECK(%rax, $DB)
1: CLEAR6
  CASE "code breakpoint behind MOV SS does not hit"
  ARM 0, 98f, 0, 0
  mov $DATA0, %eax
  TRY
  mov $DATA0, %eax
  mov %eax, %ss
98: nop
  ENDTRY
  CHECK(exc_vec, $NONE)
  DISARM
  CLEAR6
  ret

.macro AC3 name, insn, pre
  CASE "\name"
  TRY
  TO_RING3 0x40002
  \pre
98: \insn
  int $EXIT
  ENDTRY
  CHECKm 104, exc_vec, $AC
  CHECKm 105, exc_err, $0
  CHECKm 106, exc_eip, $98b
.endm
.macro NOAC3 name, insn
  CASE "\name"
  TRY
  TO_RING3 0x40002
  \insn
  int $EXIT
  ENDTRY
  CHECKm 107, exc_vec, $EXIT
.endm
alignment:
  mov %cr0, %rax
  or $0x40000, %eax
  mov %rax, %cr0
  AC3 "#AC: word at an odd place", "mov cells+1,%ax"
  AC3 "#AC: dword by 2", "mov cells+2,%eax"
  AC3 "#AC: qword by 4", "mov cells+4,%rax"
  AC3 "#AC: write", "mov %eax,cells+1"
  AC3 "#AC: push", "push %rax", "mov $user_stack_top-60,%esp"
  AC3 "#AC: LOCK", "lock incl cells+2"
  AC3 "#AC: x87 double", "fldl cells+4"
  AC3 "#AC: MOVSL source", "movsl", "mov $cells+1,%esi; mov $cells+8,%edi"
  NOAC3 "aligned accesses are good", "mov cells,%rax; mov cells+2,%ax; movb cells+1,%al; mov cells+4,%eax"
  NOAC3 "instruction fetches have no alignment", ".byte 0x66,0x90; nop; mov $1,%eax"
  PASS("ring 0 has no #AC", "pushf; orl $0x40000,(%rsp); popf; mov cells+1,%eax")
  CASE "without AC in EFLAGS"
  TRY
  TO_RING3
  mov cells+1, %eax
  int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  CASE "page fault before #AC"
  TRY
  TO_RING3 0x40002
  movabs $0xffff800000003001, %rbx
  mov (%rbx), %eax
  ENDTRY
  mov exc_vec, %rax
  cmp $AC, %rax                   // on a page that is not there either may come (SDM vol. 3A table 6-2: #AC is before #PF)
  je 1f
  CHECK(%rax, $PF)
1: CASE "non-canonical address before #AC"
  TRY
  TO_RING3 0x40002
  movabs $0x800000000001, %rbx
  mov (%rbx), %eax
  ENDTRY
  CHECK(exc_vec, $GP)
  mov %cr0, %rax
  and $~0x40000, %eax
  mov %rax, %cr0
  CASE "without CR0.AM"
  TRY
  TO_RING3 0x40002
  mov cells+1, %eax
  int $EXIT
  ENDTRY
  CHECK(exc_vec, $EXIT)
  ret

  .section .bss
  .align 64
scratch: .skip 64
  .skip 2048                    // some cases use what follows as a stack
cells: .skip 256
db_count: .skip 8
